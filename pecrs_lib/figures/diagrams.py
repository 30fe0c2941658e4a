"""Pictures that explain: tokens, masks, maps and flows. Data in, matplotlib Figure out.

Beside `figures`, which draws results. Both share palette and size; shades differ in lightness, so
that greyscale keeps them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from pecrs_lib.figures import Picture, axes_of

STEPS = (
    ("dialogue", "items, words"), ("one LM pass", "the whole dialogue"),
    ("retrieve", "the nearest films"),
    ("re-rank", "films in context"), ("reply", "a film in a sentence"),
)  # fmt: skip
KINDS = {  # of the tokens of a trunk: colour, and the hatch of the foot, which greyscale keeps
    "word": ("#ffffff", ""), "speaker": ("#dcdcdc", "..."), "marker": ("#9ecae1", "|||"),
    "item": ("#f0b25c", "xxx"), "response": ("#c7e3c0", "///"),
}  # fmt: skip


def flow_diagram(steps: Sequence[tuple[str, str]] = STEPS) -> Figure:
    """Boxes from top to bottom, each with a name and a line beside it: legible on a phone."""
    figure = Picture(figsize=(4.4, 0.62 * len(steps)), layout="constrained")
    ax = figure.subplots()
    ax.set(xlim=(0, 4.4), ylim=(-len(steps), 0))
    ax.axis("off")
    for k, (name, beside) in enumerate(steps):
        y = -k - 0.5
        box = FancyBboxPatch((0.1, y - 0.28), 4.2, 0.56, "round,pad=0.04", fc="#e8eef6", ec="black")
        ax.add_patch(box)
        ax.text(0.25, y, name, va="center", weight="bold", fontsize=12)
        ax.text(2.0, y, beside, va="center", fontsize=11)
        if k:
            ax.annotate("", (2.2, y + 0.31), (2.2, y + 0.69), arrowprops={"arrowstyle": "->"})
    return figure


def token_strip(tokens: Sequence[str], kinds: Sequence[str], per_row: int = 10) -> Figure:
    """Tokens in reading order with their places, marked by what they are.

    Args:
        kinds: keys of `KINDS`; the legend has those that occur.

    Raises:
        ValueError: as many kinds as tokens are needed.
    """
    if len(tokens) != len(kinds):
        raise ValueError(f"{len(tokens)} tokens, but {len(kinds)} kinds")
    rows = max(1, -(-len(tokens) // per_row))
    figure = Picture(figsize=(9.0, 0.62 * rows + 0.5), layout="constrained")
    ax = figure.subplots()
    ax.set(xlim=(0, per_row), ylim=(-rows, 0))
    ax.axis("off")
    for k, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        x, y = k % per_row + 0.04, -(k // per_row) - 0.97
        colour, hatch = KINDS[kind]
        ax.add_patch(Rectangle((x, y), 0.92, 0.66, fc=colour, ec="0.3"))
        ax.add_patch(Rectangle((x, y), 0.92, 0.17, fc="none", ec="0.3", hatch=hatch, lw=0.5))
        shown = token.replace("Ġ", "").replace("<|endoftext|>", "<eos>").replace("$", r"\$")
        shown = shown if len(shown) <= 10 else f"{shown[:9]}…"
        ax.text(x + 0.46, y + 0.41, shown, ha="center", va="center", fontsize=9.5)
        ax.text(x, y + 0.69, str(k), va="bottom", fontsize=8, color="0.3")
    used = [Patch(fc=c, hatch=h, ec="0.3", label=n) for n, (c, h) in KINDS.items() if n in kinds]
    figure.legend(handles=used, loc="outside upper left", ncols=len(KINDS), fontsize=9.5)
    return figure


def mask_figure(mask: ArrayLike, labels: Sequence[str] | None = None, title: str = "") -> Figure:
    """Who attends to whom: (T_query, T_key) of bool, dark where the row sees the column."""
    seen = np.asarray(mask, dtype=float)
    size = min(9.0, max(3.2, 0.25 * len(seen) + 1.2))
    figure = Picture(figsize=(size, size), layout="constrained")
    ax = figure.subplots()
    ax.imshow(seen, cmap="Greys", vmin=0, vmax=1.4, interpolation="nearest")
    ax.set(xlabel="sees (key)", ylabel="reads (query)", title=title)
    if labels is not None:
        ax.set_xticks(range(len(labels)), labels, rotation=90, fontsize=9)
        ax.set_yticks(range(len(labels)), labels, fontsize=9)
    if len(seen) <= 60:  # cells are large enough for lines between them
        ax.set_xticks(np.arange(seen.shape[1] + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(seen.shape[0] + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="0.85", linewidth=0.4)
        ax.tick_params(which="minor", length=0)
    return figure


def map_figure(
    points: ArrayLike, groups: Sequence[str], names: Mapping[int, str] | None = None
) -> Figure:
    """Items as points (N, 2), a marker and colour per group; some carry their names, which stand
    at the right from top to bottom, so that none hides another."""
    xy = np.asarray(points, dtype=float)
    figure, ax = axes_of(size=(8.4, 5.2))
    shown = list(dict.fromkeys(groups))
    for group, marker, colour in zip(
        shown, "osD^vPX*<>"[: len(shown)], sns.color_palette("colorblind", len(shown)), strict=True
    ):
        mine = np.array([g == group for g in groups])
        ax.scatter(*xy[mine].T, s=18, marker=marker, color=colour, alpha=0.6, label=group)
    names = names or {}
    named = sorted(names, key=lambda k: -xy[k, 1])
    line = {"arrowstyle": "-", "color": "0.35", "lw": 0.8, "relpos": (0, 0.5)}
    for k, height in zip(named, np.linspace(0.95, 0.05, len(named)), strict=True):
        ax.annotate(
            names[k], xy[k], (1.02, height), textcoords="axes fraction", va="center",
            fontsize=9, arrowprops=line,
        )  # fmt: skip
        ax.plot(*xy[k], "o", ms=8, mfc="none", mec="black")
    ax.set(xlabel="first principal direction", ylabel="second principal direction")
    figure.legend(loc="outside upper center", ncols=len(shown), fontsize=9)
    return figure


def bars_figure(
    values: Mapping[str, float],
    xlabel: str,
    interval: Mapping[str, tuple[float, float]] | None = None,
    ylabel: str = "",
) -> Figure:
    """Horizontal bars in the given order, from the top; `interval` adds low and high."""
    figure, ax = axes_of(size=(7.0, 0.7 + 0.34 * len(values)))
    place = np.arange(len(values))[::-1]
    found = np.array(list(values.values()), dtype=float)
    ax.barh(place, found, color="#7f9fc8", height=0.7)
    if interval:
        low, high = np.array([interval[name] for name in values], dtype=float).T
        spread = np.stack([found - low, high - found]).clip(0)
        ax.errorbar(found, place, xerr=spread, fmt="none", ecolor="black", capsize=3)
    ax.set_yticks(place, list(values))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", alpha=0.3)
    return figure


def lines_figure(
    x: ArrayLike, lines: Mapping[str, ArrayLike], xlabel: str, ylabel: str, *, log_x: bool = False,
    mark: tuple[str, float] | None = None,
) -> Figure:  # fmt: skip
    """One line per name over a shared x, told apart by markers; `mark` names a place on x."""
    figure, ax = axes_of()
    for (name, y), marker in zip(lines.items(), "osD^vPX*" * 2, strict=False):
        ax.plot(x, y, marker=marker, label=name, markevery=max(1, len(np.asarray(x)) // 12))
    if mark:
        ax.axvline(mark[1], color="black", ls="--", lw=1.5, label=mark[0])
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log_x else "linear")
    if not log_x and bool((np.asarray(x) % 1 == 0).all()):  # no half epochs
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return figure


def grid_figure(
    table: ArrayLike, rows: Sequence[str], columns: Sequence[str], *, row_label: str,
    column_label: str, value_label: str, here: tuple[int, int] | None = None,
) -> Figure:  # fmt: skip
    """A table as a heat map with its numbers; `here` is framed."""
    values = np.asarray(table, dtype=float)
    figure = Picture(
        figsize=(1.6 + 0.75 * len(columns), 1.3 + 0.45 * len(rows)), layout="constrained"
    )
    ax = figure.subplots()
    sns.heatmap(
        values, annot=True, fmt=".1f", cmap="Greys", ax=ax, cbar_kws={"label": value_label},
        xticklabels=list(columns), yticklabels=list(rows), linewidths=0.5,
    )  # fmt: skip
    ax.set(xlabel=column_label, ylabel=row_label)
    if here is not None:
        row, column = here
        ax.add_patch(
            FancyBboxPatch((column, row), 1, 1, "square,pad=0", fill=False, ec="#d55e00", lw=3)
        )
    return figure
