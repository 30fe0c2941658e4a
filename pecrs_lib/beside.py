"""Tables of `reproduction` and `ablations` as a reader wants them: the paper's number beside ours.

Comes after `ablations`. A number stands as ``value [low, high]``; a dash is a run that is not
there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd


def panels(
    table: pd.DataFrame,
    panel: str = "metric",
    series: str | None = None,
    label: str = "{}",
    rows: Sequence[str] | None = None,
) -> tuple[list[str], dict[str, dict[str, list[Mapping[str, Any]]]]]:
    """The names and panels that `figures.dots_figure` and `figures.dots_table` take.

    Args:
        table: in the columns of `evidence`; a number that is NaN leaves its place empty.
        panel: column that tells panels apart.
        series: column that tells the markers of a panel apart; None: there is one.
        label: of an axis, with braces where the name of the panel stands.
        rows: the rows to take; None: all.
    """
    names = [row for row in dict.fromkeys(table["row"]) if rows is None or row in rows]
    made: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for name, part in table.groupby(panel, sort=False):
        groups = part.groupby(series, sort=False) if series else [("", part)]
        made[label.format(name)] = {str(s): [_dot(g, row) for row in names] for s, g in groups}
    return names, made


def _dot(table: pd.DataFrame, name: str) -> Mapping[str, Any]:
    found = table[table["row"] == name].to_dict("records")
    if not found or np.isnan(found[0]["ours"]):
        return {"value": None}
    row = found[0]
    bounds = {} if np.isnan(row["low"]) else {"low": row["low"], "high": row["high"]}
    return {"value": row["ours"]} | bounds


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """A column per metric, as the paper prints it: ``paper | ours [low, high]``; a dash for what is
    not there.

    Args:
        table: in the columns of `evidence`.
    """
    text = [
        f"{_number(row['paper'])} | {_spanned(row['ours'], row['low'], row['high'])}"
        for row in table.to_dict("records")
    ]
    wide = table[["row", "metric"]].assign(text=text)
    names, metrics = (list(dict.fromkeys(table[c])) for c in ("row", "metric"))
    made = wide.pivot(index="row", columns="metric", values="text").reindex(names)[metrics]
    return made.fillna("–").rename_axis(index=None, columns="paper | ours")


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """The differences of a table and their verdicts; a row without a run is empty.

    Args:
        table: of `reproduction.table_5` or `table_6`.
    """
    columns = ["paper difference", "difference", "difference low", "difference high", "verdict"]
    rows = table.reindex(columns=["row", "metric", "n", *columns])
    rows = rows[rows["metric"].str.startswith("R@")].to_dict("records")
    made = {
        r["row"]: {
            "the paper": _points(r["paper difference"]),
            "ours": _points(r["difference"], r["difference low"], r["difference high"]),
            "n": str(r["n"] or "–"),
            "verdict": r["verdict"] if isinstance(r["verdict"], str) else "",
        }
        for r in rows
    }
    return pd.DataFrame(made).T


def _points(value: float, low: float = np.nan, high: float = np.nan) -> str:
    bounds = "" if np.isnan(low) else f" [{low:+.1f}, {high:+.1f}]"
    return "–" if np.isnan(value) else f"{value:+.1f}{bounds}"


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3g}"


def _spanned(value: float, low: float, high: float) -> str:
    return _number(value) + ("" if np.isnan(low) else f" [{_number(low)}, {_number(high)}]")
