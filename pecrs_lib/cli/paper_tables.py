"""The paper's tables and claims as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pecrs_lib.cli.terminal import columns

if TYPE_CHECKING:  # needs torch
    import pandas as pd

LEGEND = "paper | ours [95 % interval over dialogues] (each seed)"


def as_text(table: pd.DataFrame) -> str:
    """Title, what the paper measured on, and the lines of `layout.wide`, aligned."""
    from pecrs_lib.reproduction.layout import wide

    shown = wide(table, seeds=True)
    heads = ["" if name == "row" else name for name in shown]
    paper = f"; the paper: {table.attrs['paper']}" if table.attrs["paper"] else ""
    text = columns([heads, *shown.to_numpy().tolist()]).replace("–", "-")  # for any terminal
    return f"{table.attrs['title']}{paper}\n{text}"


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
