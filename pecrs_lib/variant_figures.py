"""Figures of our own variants, drawn from `variant_tables`.

Beside `paper_figures`, whose palette and size they share. A table in, a Figure out.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from pecrs_lib.figures import MARKERS, axes_of
from pecrs_lib.variant_tables import DIFFERENCE


def variant_differences_figure(table: pd.DataFrame) -> Figure:
    """What each variant gains or loses in R@50, over all targets and over novel ones.

    Args:
        table: of `variant_tables`; variants without runs are left out.
    """
    rows = table[(table["metric"] == DIFFERENCE) & table["ours"].notna()]
    names = list(dict.fromkeys(rows["row"]))
    figure, ax = axes_of(size=(7.0, 1.2 + 0.5 * len(names)))
    filled = {"all": ("0.2", 0.12), "novel": ("white", -0.12)}
    for targets, (colour, shift) in filled.items():
        of = rows[rows["targets"] == targets]
        place = [len(names) - 1 - names.index(name) + shift for name in of["row"]]
        spread = [of["ours"] - of["low"], of["high"] - of["ours"]]
        ax.errorbar(
            of["ours"], place, xerr=spread, fmt="o", color="0.2", mfc=colour, capsize=3,
            label=f"{targets} targets, n = {int(of['n'].max()) if len(of) else 0}",
        )  # fmt: skip
    ax.axvline(0, color="0.6", lw=1)
    ax.set_yticks(np.arange(len(names))[::-1], names)
    ax.set_xlabel("difference in Recall@50 to the main run (points)")
    ax.grid(axis="x", alpha=0.3)
    ax.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def learning_curve_figure(table: pd.DataFrame) -> Figure:
    """Recall over the share of the training dialogues, a line per cut-off.

    Args:
        table: of `variant_tables.learning_curve`; shares without runs are left out.
    """
    cuts = ("R@1", "R@10", "R@50")
    rows = table[(table["targets"] == "all") & table["ours"].notna() & table["metric"].isin(cuts)]
    figure, ax = axes_of()
    colours = sns.color_palette("colorblind", len(cuts))
    for cut, marker, colour in zip(cuts, MARKERS, colours, strict=False):
        of = rows[rows["metric"] == cut]
        spread = [of["ours"] - of["low"], of["high"] - of["ours"]]
        ax.errorbar(
            of["share"], of["ours"], yerr=spread, marker=marker, color=colour, capsize=3,
            label=f"Recall@{cut[2:]}",
        )  # fmt: skip
    shares = sorted(rows["share"].unique())
    ax.set(xscale="log", xlabel="training dialogues (%)", ylabel="Recall (%)", ylim=(0, None))
    ax.set_xticks(shares, [f"{share:g}" for share in shares], minor=False)
    ax.minorticks_off()
    if len(rows):
        ax.set_title(f"n = {int(rows['n'].max())} points, bars: 95 %", fontsize=9)
    ax.legend(fontsize=8)
    return figure
