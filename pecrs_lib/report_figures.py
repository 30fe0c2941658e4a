"""The figure of the report: every claim's verdict on every data set.

Beside `figures`, whose style it shares. A table of `report_tables.verdicts` in, a Figure out.
"""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pecrs_lib.figures import axes_of
from pecrs_lib.findings import VERDICTS
from pecrs_lib.report import SYMBOLS


def verdicts_figure(table: pd.DataFrame, *, judged_only: bool = False) -> Figure:
    """A square per claim and data set: colour and symbol say the verdict; none where it is not
    about the data set.

    Args:
        table: of `report_tables.verdicts`.
        judged_only: leave out claims without a verdict from files on any data set.
    """
    names = [c for c in table if c not in ("id", "where", "the paper says")]
    if judged_only:
        table = table[table[names].isin(VERDICTS[:3]).any(axis=1)]
    blue, orange, grey = (sns.color_palette("colorblind")[k] for k in (0, 1, 7))
    colours = dict(zip(VERDICTS, (blue, orange, (*grey, 0.45), "white", "white"), strict=True))
    figure, ax = axes_of(size=(8.6, 1.3 + 0.25 * len(table)))
    for place, row in enumerate(table.to_dict("records")):
        for k, name in enumerate(names):
            if row[name]:
                ax.barh(-place, 0.94, left=k - 0.47, height=0.84, color=colours[row[name]],
                        edgecolor="0.75", linewidth=0.6)  # fmt: skip
                ax.text(k, -place, SYMBOLS[row[name]], ha="center", va="center",
                        color="white" if row[name] in VERDICTS[:2] else "0.2")  # fmt: skip
    ax.set_yticks(range(0, -len(table), -1), table["the paper says"], fontsize=8)
    ax.set_xticks(range(len(names)), names)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set(xlim=(-0.6, len(names) - 0.4), ylim=(0.45 - len(table), 0.6))
    ax.grid(visible=False)
    handles = [Patch(facecolor=colours[v], edgecolor="0.5", label=f"{SYMBOLS[v]}  {v}")
               for v in VERDICTS]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return figure
