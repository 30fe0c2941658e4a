"""The figures of the reproduction: those of the paper, and every claim with its verdict.

Beside `figures`, whose palette and size they share. A table in, a Figure out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pecrs_lib.figures import MARKERS, axes_of, dots_figure
from pecrs_lib.reproduction.findings import VERDICTS
from pecrs_lib.reproduction.layout import NO_RUN, panels, paper_and_ours
from pecrs_lib.reproduction.report import SYMBOLS
from pecrs_lib.reproduction.tables import NAMES

APART = 1.04  # lines of a grid, so that their intervals do not hide each other


def grid_figure(table: pd.DataFrame) -> Figure:
    """R@50 over M_inference, a line per M_train (the paper's Figure 3).

    Args:
        table: of `tables.figure_3`.
    """
    if table.empty:
        return _empty()
    figure, ax = axes_of()
    groups = list(table.groupby("M_train"))
    colours = sns.color_palette("colorblind", len(groups))
    for k, ((m, rows), marker, colour) in enumerate(zip(groups, MARKERS, colours, strict=False)):
        spread = [rows["ours"] - rows["low"], rows["high"] - rows["ours"]]
        place = rows["M_inference"] * APART ** (k - (len(groups) - 1) / 2)
        ax.errorbar(
            place, rows["ours"], yerr=spread, marker=marker, color=colour,
            capsize=3, label=f"{m}",
        )  # fmt: skip
    ax.set(xscale="log", xlabel="$M_{inference}$, candidates re-ranked", ylabel="Recall@50 (%)")
    values = sorted(table["M_inference"].unique())
    ax.set_xticks(values, [str(v) for v in values], minor=False)
    ax.minorticks_off()
    figure.legend(title="$M_{train}$, negatives", loc="outside right upper")
    return figure


def turns_figure(table: pd.DataFrame) -> Figure:
    """R@50 by the number of utterances before, a line per system (the paper's Figure 4).

    Args:
        table: of `tables.figure_4`; a number over fewer than five points is not drawn.
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
    ax.legend(fontsize=9)
    return figure


def differences_figure(table: pd.DataFrame, dataset: str) -> Figure:
    """What is lost when a part is taken away: the paper's difference beside ours, in points. The
    legend says on which data each was measured.

    Args:
        table: of `tables.table_5` or `table_6`; rows without a difference are left out.
        dataset: of our runs, a key of `tables.NAMES`.
    """
    rows = table.dropna(subset="difference") if "difference" in table else table.iloc[:0]
    if rows.empty:
        return _empty()
    ours = {"paper difference": "paper", "difference": "ours"}
    bounds = {"difference low": "low", "difference high": "high"}
    shown = rows.drop(columns=[*ours.values(), *bounds.values()]).rename(columns=ours | bounds)
    names = {"the paper": f"the paper ({table.attrs['paper']})", "ours": f"ours ({NAMES[dataset]})"}
    both = paper_and_ours(shown).replace({"by": names})
    return dots_figure(*panels(both, "by", "difference in {} (points)"))


def points_figure(table: pd.DataFrame, have: Mapping[str, int]) -> Figure:
    """How many test points each of the paper's differences needs to be told from zero.

    Args:
        table: of `ablations.points_of_paper`.
        have: name of a test set -> its points.
    """
    if table["ours"].isna().all():
        return _empty()
    figure, ax = axes_of(size=(7.0, 1.2 + 0.4 * len(table)))
    place = np.arange(len(table))[::-1]
    spread = [table["ours"] - table["low"], table["high"] - table["ours"]]
    ax.errorbar(table["ours"], place, xerr=spread, fmt="o", color="0.2", capsize=3)
    for (name, n), style in zip(have.items(), ("-", "--", ":"), strict=False):
        ax.axvline(n, color="0.5", linestyle=style, label=f"{name}: {n:,}")
    differences = table["paper difference"]
    labels = [f"{row} ({d:+.1f})" for row, d in zip(table["row"], differences, strict=True)]
    ax.set_yticks(place, labels)
    ax.set(xscale="log", xlabel="test points needed")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(have), fontsize=9)
    return figure


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
    figure, ax = axes_of(size=(10.6, 1.3 + 0.26 * len(table)))
    for place, row in enumerate(table.to_dict("records")):
        for k, name in enumerate(names):
            if row[name]:
                ax.barh(-place, 0.94, left=k - 0.47, height=0.84, color=colours[row[name]],
                        edgecolor="0.75", linewidth=0.6)  # fmt: skip
                ax.text(k, -place, SYMBOLS[row[name]], ha="center", va="center",
                        color="white" if row[name] in VERDICTS[:2] else "0.2")  # fmt: skip
    names_of = table["the paper says"].str.rstrip(".") + " (" + table["id"] + ")"
    ax.set_yticks(range(0, -len(table), -1), names_of, fontsize=9)
    ax.set_xticks(range(len(names)), names)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set(xlim=(-0.6, len(names) - 0.4), ylim=(0.45 - len(table), 0.6))
    ax.grid(visible=False)
    handles = [Patch(facecolor=colours[v], edgecolor="0.5", label=f"{SYMBOLS[v]}  {v}")
               for v in VERDICTS]  # fmt: skip
    handles.append(Patch(facecolor="none", edgecolor="none", label="blank: not about this data"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _empty() -> Figure:
    """In place of a figure of runs that are not there."""
    figure, ax = axes_of(size=(7.0, 1.0))
    ax.text(0.5, 0.5, NO_RUN, ha="center", va="center", transform=ax.transAxes)
    ax.set_axis_off()
    return figure
