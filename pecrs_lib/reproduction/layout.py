"""Tables in the columns of `evidence` as a reader wants them: as text, and as panels of a figure.

Comes after `evidence`, before all that shows a table. A dash is a number that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

Panels = dict[str, dict[str, list[Mapping[str, Any]]]]
NO_RUN = "no run yet"
KEYS = ("row", "targets", "prior", "M_inference")  # what tells the lines of a table apart


def panels(
    table: pd.DataFrame,
    series: str | None = None,
    labels: str | Mapping[str, str] = "{}",
    rows: Sequence[str] | None = None,
    *,
    panel: str = "metric",
) -> tuple[list[str], Panels]:
    """The names and panels that `figures.dots_figure` and `figures.dots_table` take.

    Args:
        table: a number that is NaN leaves its place empty, and a row without any says so.
        series: column that tells the markers of a panel apart; None: there is one.
        labels: of the axes, with braces where the name of the panel stands; or panel -> label,
            of those to take.
        rows: to take, in this order; None: all.
        panel: column that tells panels apart.
    """
    names = list(dict.fromkeys(table["row"]) if rows is None else rows)
    if isinstance(labels, str):
        labels = {name: labels.format(name) for name in dict.fromkeys(table[panel])}
    made: Panels = {}
    for key, label in labels.items():
        part = table[table[panel] == key]
        groups = part.groupby(series, sort=False) if series else [("", part)]
        made[label] = {str(s): [_dot(of, row) for row in names] for s, of in groups}
    cells = [cells for of in made.values() for cells in of.values()]
    known = [any(of[k]["value"] is not None for of in cells) for k in range(len(names))]
    said = [n if there else f"{n}: {NO_RUN}" for n, there in zip(names, known, strict=True)]
    return said, made


def _dot(table: pd.DataFrame, name: str) -> Mapping[str, Any]:
    found = table[table["row"] == name].to_dict("records")
    if not found or np.isnan(found[0]["ours"]):
        return {"value": None}
    row = found[0]
    bounds = {} if np.isnan(row["low"]) else {"low": row["low"], "high": row["high"]}
    return {"value": row["ours"]} | bounds


def paper_and_ours(table: pd.DataFrame) -> pd.DataFrame:
    """Every number twice, ``by`` the paper and by us, for `panels`.

    The interval of a row is ours where there is a number of ours, else the paper's.
    """
    printed = table.assign(by="the paper", ours=table["paper"])
    printed.loc[table["ours"].notna(), ["low", "high"]] = np.nan
    return pd.concat([printed, table.assign(by="ours")], ignore_index=True)


def wide(table: pd.DataFrame, *, seeds: bool = False) -> pd.DataFrame:
    """A line per row of the paper's table, a column per metric.

    Cells are ``paper | ours [low, high]``, without the paper where a table has no number of it; ""
    for a metric that a line does not have.

    Args:
        seeds: say each seed's number, too.
    """
    keys = [k for k in KEYS if k in table and (k == "row" or table[k].nunique() > 1)]
    compared = bool(table["paper"].notna().any())
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in table.to_dict("records"):
        key = tuple("" if isinstance(row[k], float) else str(row[k]) for k in keys)
        line = lines.setdefault(key, {})
        each = f" ({' '.join(map(_number, row['seeds']))})"
        text = _spanned(row) + (each if seeds and len(row["seeds"]) > 1 else "")
        line[row["metric"]] = f"{_number(row['paper'])} | {text}" if compared else text
        if row["n"] and (n := f"{row['n']:,}") not in line.get("n", "").split(" / "):
            line["n"] = f"{line['n']} / {n}" if "n" in line else n
    heads = [*dict.fromkeys(table["metric"]), "n"]
    cells = [[*key, *(line.get(head, "") for head in heads)] for key, line in lines.items()]
    told = "paper | ours" if compared else "ours"
    return pd.DataFrame(cells, columns=[*keys, *heads]).rename_axis(columns=told)


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """The differences of a table and their verdicts; a row without a run is empty.

    Args:
        table: of `tables.table_5` or `table_6`.
    """
    columns = ["paper difference", "difference", "difference low", "difference high", "verdict"]
    rows = table.reindex(columns=["row", "metric", "n", *columns])
    rows = rows[rows["metric"].str.startswith("R@")].to_dict("records")
    made = {
        r["row"]: {
            "the paper": points(r["paper difference"]),
            "ours": points(r["difference"], r["difference low"], r["difference high"]),
            "n": str(r["n"] or "–"),
            "verdict": r["verdict"] if isinstance(r["verdict"], str) else "",
        }
        for r in rows
    }
    return pd.DataFrame(made).T


def points(value: float, low: float = np.nan, high: float = np.nan) -> str:
    """A difference in points with its interval."""
    bounds = "" if np.isnan(low) else f" [{low:+.1f}, {high:+.1f}]"
    return "–" if np.isnan(value) else f"{value:+.1f}{bounds}"


def _number(value: float) -> str:
    if np.isnan(value):
        return "–"
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:#.3g}"


def _spanned(row: Mapping[str, Any]) -> str:
    bounds = f" [{_number(row['low'])}, {_number(row['high'])}]"
    return _number(row["ours"]) + ("" if np.isnan(row["low"]) else bounds)
