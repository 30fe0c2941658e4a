"""A table of `reproduction` as text: a line per row of the paper's table, a column per metric."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pecrs_lib.cli.terminal import columns

if TYPE_CHECKING:  # needs torch
    import pandas as pd

KEYS = ("row", "targets", "prior", "M_inference")  # what tells lines apart
LEGEND = "paper | ours [95 % interval over dialogues] (each seed)"


def as_text(table: pd.DataFrame) -> str:
    """Title, what the paper measured on, and the aligned lines."""
    keys = [name for name in KEYS if name in table and (name == "row" or table[name].nunique() > 1)]
    metrics = list(dict.fromkeys(table["metric"]))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in table.to_dict("records"):
        line = lines.setdefault(tuple(_plain(row[k]) for k in keys), {})
        line[row["metric"]] = _cell(row)
        if row["n"] and (n := str(row["n"])) not in line.get("n", "").split("/"):
            line["n"] = f"{line['n']}/{n}" if "n" in line else n
    names = [*metrics, "n"]
    cells = [[*key, *(line.get(name, "") for name in names)] for key, line in lines.items()]
    heads = [*("" if k == "row" else k for k in keys), *names]
    paper = f"; the paper: {table.attrs['paper']}" if table.attrs["paper"] else ""
    return f"{table.attrs['title']}{paper}\n{columns([heads, *cells])}"


def _plain(value: Any) -> str:
    return "" if isinstance(value, float) and math.isnan(value) else str(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 100 else f"{value:.3g}"


def _cell(row: dict[str, Any]) -> str:
    paper = "-" if math.isnan(row["paper"]) else _number(row["paper"])
    if math.isnan(row["ours"]):
        return paper if paper != "-" else ""
    text = f"{paper} | {_number(row['ours'])}"
    if not math.isnan(row["low"]):
        text += f" [{_number(row['low'])}, {_number(row['high'])}]"
    if len(row["seeds"]) > 1:
        text += f" ({' '.join(map(_number, row['seeds']))})"
    return text


def claims_as_text(table: pd.DataFrame) -> str:
    """A line per claim of `claims.claims`."""
    heads = ["", "claim", "paper", "ours [95 %]", "n", "verdict"]
    lines = [
        [
            row["table"],
            row["claim"],
            "" if math.isnan(row["paper difference"]) else f"{row['paper difference']:+.1f}",
            f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]",
            str(row["n"]),
            row["verdict"],
        ]
        for row in table.to_dict("records")
    ]
    return columns([heads, *lines])
