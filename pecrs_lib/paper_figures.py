"""The figures of the paper, drawn from the tables of `reproduction`.

Beside `figures`, whose palette and size they share. A table of `reproduction` in, a Figure out.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from pecrs_lib.figures import MARKERS, axes_of


def grid_figure(table: pd.DataFrame) -> Figure:
    """R@50 over M_inference, a line per M_train (the paper's Figure 3).

    Args:
        table: of `reproduction.figure_3`.
    """
    figure, ax = axes_of()
    groups = list(table.groupby("M_train"))
    colours = sns.color_palette("colorblind", len(groups))
    for (m, rows), marker, colour in zip(groups, MARKERS, colours, strict=False):
        spread = [rows["ours"] - rows["low"], rows["high"] - rows["ours"]]
        ax.errorbar(
            rows["M_inference"], rows["ours"], yerr=spread, marker=marker, color=colour,
            capsize=3, label=f"{m}",
        )  # fmt: skip
    ax.set(xscale="log", xlabel="$M_{inference}$, candidates re-ranked", ylabel="Recall@50 (%)")
    values = sorted(table["M_inference"].unique())
    ax.set_xticks(values, [str(v) for v in values], minor=False)
    ax.minorticks_off()
    ax.legend(title="$M_{train}$, negatives")
    return figure


def turns_figure(table: pd.DataFrame) -> Figure:
    """R@50 by the number of utterances before, a line per system (the paper's Figure 4).

    Args:
        table: of `reproduction.figure_4`; a number over fewer than five points is not drawn.
    """
    figure, ax = axes_of()
    known = table[table["ours"].notna() & (table["n"] >= 5)]
    labels = list(dict.fromkeys(table["prior"]))
    groups = list(known.groupby("row", sort=False))
    colours = sns.color_palette("colorblind", len(groups))
    for (system, rows), marker, colour in zip(groups, MARKERS, colours, strict=False):
        place = [labels.index(label) for label in rows["prior"]]
        ours = system == "PECRS"
        style = {"color": "black", "lw": 2.5} if ours else {"color": colour, "lw": 1}
        ax.plot(place, rows["ours"], marker=marker, label=system, **style)
        if ours:
            ax.fill_between(place, rows["low"], rows["high"], color="black", alpha=0.12)
    points = {row["prior"]: row["n"] for row in table.to_dict("records")}
    ax.set_xticks(range(len(labels)), [f"{label}\nn = {points[label]}" for label in labels])
    ax.set(xlabel="utterances before the recommendation", ylabel="Recall@50 (%)", ylim=(0, None))
    ax.legend(fontsize=8)
    return figure


def differences_figure(table: pd.DataFrame) -> Figure:
    """What is lost when a part is taken away: the paper's difference beside ours, in points.

    Args:
        table: of `reproduction.table_5` or `table_6`; rows without a difference are left out.
    """
    rows = table.dropna(subset="difference")
    figure, ax = axes_of(size=(7.0, 1.2 + 0.4 * len(rows)))
    place = np.arange(len(rows))[::-1]
    spread = [
        rows["difference"] - rows["difference low"],
        rows["difference high"] - rows["difference"],
    ]
    ax.errorbar(
        rows["difference"], place, xerr=spread, fmt="o", color="0.2", capsize=3, label="ours"
    )
    ax.plot(rows["paper difference"], place, "D", mfc="white", mec="0.2", label="the paper")
    ax.axvline(0, color="0.6", lw=1)
    ax.set_yticks(place, rows["row"])
    ax.set_xlabel(f"difference in {rows['metric'].iloc[0]} (points)")
    ax.grid(axis="x", alpha=0.3)
    ax.legend(fontsize=8)
    return figure
