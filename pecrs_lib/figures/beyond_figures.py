"""The figures of what goes beyond the paper: of `beyond`, `confidence` and `variant_tables`.

Beside `paper_figures`; palette, size and markers are those of `figures`. A table in, a Figure out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from pecrs_lib.figures import MARKERS, axes_of, dots_figure
from pecrs_lib.reproduction.evidence import cell, rank_array
from pecrs_lib.reproduction.layout import NO_RUN, panels
from pecrs_lib.reproduction.tables import CUTS
from pecrs_lib.reproduction.variant_tables import DIFFERENCE, worth


def variants_figure(table: pd.DataFrame) -> Figure:
    """What each variant gains or loses in R@50, over all targets and over novel ones.

    Args:
        table: of `variant_tables`.
    """
    names = list(worth(table).index)
    label = "difference in Recall@50 to the main run (points)"
    return dots_figure(*panels(_targets(table), "targets", {DIFFERENCE: label}, names))


def recall_panels(table: pd.DataFrame, names: Sequence[str] | None = None) -> Any:
    """All targets beside novel ones, for `figures.dots_figure`: a panel per cut-off."""
    labels = {f"R@{k}": f"Recall@{k} (%)" for k in CUTS}
    return panels(_targets(table), "targets", labels, names)


def _targets(table: pd.DataFrame) -> pd.DataFrame:
    known = table[table["targets"] != ""]
    return known.assign(targets=known["targets"] + " targets")


def learning_curve_figure(table: pd.DataFrame) -> Figure:
    """Recall over the share of the training dialogues, a line per cut-off.

    Args:
        table: of `variant_tables.learning_curve`; shares without runs say so.
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
    ax.set(xscale="log", xlabel="training dialogues (%)", ylabel="Recall (%)", ylim=(0, None))
    shares = sorted(table["share"].unique())
    there = set(rows["share"])
    names = [f"{share:g}" if share in there else f"{share:g}\n{NO_RUN}" for share in shares]
    ax.set_xticks(shares, names, minor=False)
    ax.set_xlim(shares[0] / 1.3, shares[-1] * 1.3)
    ax.minorticks_off()
    if len(rows):
        ax.set_title(f"n = {int(rows['n'].max())} points, bars: 95 %", fontsize=9)
    ax.legend(fontsize=9)
    return figure


def popularity_figure(table: pd.DataFrame, k: int = 50) -> Figure:
    """Recall@k by how often recommenders name the target in training, a line per system.

    Args:
        table: of `beyond.popularity`.
    """
    figure, ax = axes_of()
    mine = table[table["metric"] == f"R@{k}"]
    labels = list(dict.fromkeys(mine["mentions"]))
    n = [int(mine[mine["mentions"] == label]["n"].iloc[0]) for label in labels]
    groups = list(mine.groupby("row", sort=False))
    colours = sns.color_palette("colorblind", len(groups))
    for j, ((name, rows), marker, colour) in enumerate(zip(groups, MARKERS, colours, strict=False)):
        ours = name == "PECRS"
        place = np.arange(len(labels)) + 0.07 * (j - (len(groups) - 1) / 2)
        spread = np.stack([rows["ours"] - rows["low"], rows["high"] - rows["ours"]]).clip(0)
        ax.errorbar(
            place, rows["ours"], yerr=spread, fmt=marker, capsize=2, label=name,
            color="black" if ours else colour, ms=8 if ours else 6,
        )  # fmt: skip
    ticks = [f"{label}\nn = {count}" for label, count in zip(labels, n, strict=True)]
    ax.set_xticks(range(len(labels)), ticks)
    ax.set(xlabel="mentions of the target by recommenders in training", ylabel=f"Recall@{k} (%)")
    ax.legend(fontsize=9)
    return figure


def reliability_figure(table: pd.DataFrame) -> Figure:
    """Share right by confidence; on the dashed line, a confidence is what it says.

    Args:
        table: of `confidence.reliability`.
    """
    figure, ax = axes_of(size=(5.4, 4.4))
    most = 5 + max(table["confidence"].max(), table["high"].max())
    ax.plot([0, most], [0, most], "--", color="0.5", lw=1)
    for (name, rows), marker, shade in zip(
        table.groupby("row", sort=False), MARKERS, ("0.1", "0.5"), strict=False
    ):
        spread = np.stack([rows["ours"] - rows["low"], rows["high"] - rows["ours"]]).clip(0)
        ax.errorbar(
            rows["confidence"], rows["ours"], yerr=spread, marker=marker, color=shade, capsize=2,
            mfc="white" if shade != "0.1" else None, label=name,
        )  # fmt: skip
    ax.set(xlabel="confidence (%)", ylabel="share right (%)", xlim=(0, most), ylim=(0, most))
    ax.legend(title="softmax over the candidates", fontsize=9)
    return figure


def candidates_table(record: Mapping[str, Any]) -> pd.DataFrame:
    """Recall@50, CPU seconds a turn and MiB for every M_inference.

    Args:
        record: "candidates" of the file of `experiments.beyond`.
    """
    rows = []
    for spent in record["timed"]:
        ranks = rank_array(record["rank"][str(spent["M"])])
        found = cell("PECRS", "R@50", record["points"]["dialogue"], [ranks <= 50])
        each = {"CPU seconds a turn": spent["seconds"] / spent["turns"], "MiB": spent["MiB"]}
        rows.append(found | {"M": spent["M"]} | each)
    return pd.DataFrame(rows)


def candidates_figure(record: Mapping[str, Any]) -> Figure:
    """Recall, seconds and memory over the number of candidates; dotted: the LM's positions.

    Both axes of the middle panel are logarithmic: time in proportion to M is a diagonal.

    Args:
        record: "candidates" of the file of `experiments.beyond`.
    """
    table = candidates_table(record)
    figure, axes = axes_of(3, (9.6, 3.2))
    spread = np.stack([table["ours"] - table["low"], table["high"] - table["ours"]])
    axes[0].errorbar(table["M"], table["ours"], yerr=spread, marker="o", color="0.2", capsize=3)
    axes[1].plot(table["M"], table["CPU seconds a turn"], marker="s", color="0.2")
    axes[2].plot(table["M"], table["MiB"], marker="D", color="0.2")
    names = ("Recall@50 (%)", "CPU seconds a turn", "peak memory of the process (MiB)")
    for ax, name in zip(axes, names, strict=True):
        ax.axvline(record["positions"], ls=":", color="0.4", lw=1)
        ax.set(xscale="log", xlabel="candidates re-ranked (log scale)", ylabel=name)
        if ax is axes[1]:
            ax.set(yscale="log", ylabel=f"{name} (log scale)")
            ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}")
        else:
            ax.set_ylim(0, 1.1 * ax.get_ylim()[1])
        ax.set_xticks(table["M"], [str(m) for m in table["M"]], rotation=45)
        ax.minorticks_off()
    axes[0].annotate(
        "positions of the LM ", (record["positions"], 0), xytext=(0, 4), ha="right",
        textcoords="offset points", fontsize=9,
    )  # fmt: skip
    return figure


def epochs_figure(table: pd.DataFrame) -> Figure:
    """Recall after every epoch on dev and on test, the best of each marked.

    Args:
        table: of `beyond.epochs`.
    """
    metrics = list(dict.fromkeys(table["metric"]))
    figure, axes = axes_of(len(metrics), (3.2 * len(metrics), 3.2))
    for ax, metric in zip(np.atleast_1d(axes), metrics, strict=True):
        mine = table[table["metric"] == metric]
        for (part, rows), style in zip(mine.groupby("row", sort=False), ("--", "-"), strict=True):
            ax.plot(rows["epoch"], rows["ours"], ls=style, color="0.2", label=part)
            best = rows.loc[rows["ours"].idxmax()]
            ax.plot(best["epoch"], best["ours"], "o", color="0.2", mfc="white", ms=8)
        ax.set(xlabel="epoch of the heads", ylabel=f"Recall@{metric.removeprefix('R@')} (%)")
        ax.margins(y=0.15)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    np.atleast_1d(axes)[0].legend()
    return figure
