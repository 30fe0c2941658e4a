"""Pictures that explain: tokens, masks, maps and flows. Data in, matplotlib Figure out.

Beside `figures`, which draws results. Both share palette and size; shades differ in lightness, so
that greyscale keeps them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from pecrs_lib.figures import Picture, axes_of

STEPS = (
    ("dialogue", "items, words"), ("one LM pass", "the whole dialogue"),
    ("retrieve", "the nearest films"),
    ("re-rank", "films in context"), ("reply", "a film in a sentence"),
)  # fmt: skip
KINDS = {  # of the tokens of a trunk
    "word": "#f2f2f2", "speaker": "#d0d0d0", "marker": "#9ecae1", "item": "#e6a04b",
    "response": "#c7e3c0",
}  # fmt: skip


def flow_diagram(steps: Sequence[tuple[str, str]] = STEPS) -> Figure:
    """Boxes from left to right, each with a name and a line below it."""
    figure = Picture(figsize=(1.75 * len(steps), 1.5), layout="constrained")
    ax = figure.subplots()
    ax.set(xlim=(-0.1, len(steps)), ylim=(0, 1))
    ax.axis("off")
    for k, (name, below) in enumerate(steps):
        box = FancyBboxPatch((k, 0.25), 0.72, 0.5, "round,pad=0.05", fc="#e8eef6", ec="black")
        ax.add_patch(box)
        ax.text(k + 0.36, 0.58, name, ha="center", va="center", weight="bold")
        ax.text(k + 0.36, 0.36, below, ha="center", va="center", fontsize=8)
        if k:
            ax.annotate("", (k - 0.05, 0.5), (k - 0.23, 0.5), arrowprops={"arrowstyle": "->"})
    return figure


def token_strip(tokens: Sequence[str], kinds: Sequence[str], per_row: int = 14) -> Figure:
    """Tokens in reading order, coloured by what they are; `kinds` are keys of `KINDS`.

    Raises:
        ValueError: as many kinds as tokens are needed.
    """
    if len(tokens) != len(kinds):
        raise ValueError(f"{len(tokens)} tokens, but {len(kinds)} kinds")
    rows = max(1, -(-len(tokens) // per_row))
    figure = Picture(figsize=(9.0, 0.55 * rows + 0.55), layout="constrained")
    ax = figure.subplots()
    ax.set(xlim=(0, per_row), ylim=(-rows, 0.75))
    ax.axis("off")
    for k, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        x, y = k % per_row, -(k // per_row) - 0.9
        ax.add_patch(
            FancyBboxPatch((x + 0.04, y), 0.9, 0.8, "square,pad=0", fc=KINDS[kind], ec="0.5")
        )
        shown = token.replace("Ġ", "").replace("<|endoftext|>", "<eos>").replace("$", r"\$")
        ax.text(x + 0.49, y + 0.4, shown[:11], ha="center", va="center", fontsize=7.5)
        ax.text(x + 0.9, y + 0.06, str(k), ha="right", va="bottom", fontsize=4.5, color="0.35")
    for k, (kind, colour) in enumerate(KINDS.items()):
        ax.add_patch(
            FancyBboxPatch((2 * k + 0.04, 0.2), 0.3, 0.4, "square,pad=0", fc=colour, ec="0.5")
        )
        ax.text(2 * k + 0.45, 0.4, kind, va="center", fontsize=8)
    return figure


def mask_figure(mask: ArrayLike, labels: Sequence[str] | None = None, title: str = "") -> Figure:
    """Who attends to whom: (T_query, T_key) of bool, dark where the row sees the column."""
    seen = np.asarray(mask, dtype=float)
    size = min(9.0, max(3.2, 0.22 * len(seen) + 1.2))
    figure = Picture(figsize=(size, size), layout="constrained")
    ax = figure.subplots()
    ax.imshow(seen, cmap="Greys", vmin=0, vmax=1.4, interpolation="nearest")
    ax.set(xlabel="sees (key)", ylabel="reads (query)", title=title)
    if labels is not None:
        ax.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
        ax.set_yticks(range(len(labels)), labels, fontsize=7)
    if len(seen) <= 60:  # cells are large enough for lines between them
        ax.set_xticks(np.arange(seen.shape[1] + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(seen.shape[0] + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="0.85", linewidth=0.4)
        ax.tick_params(which="minor", length=0)
    return figure


def map_figure(
    points: ArrayLike, groups: Sequence[str], names: Mapping[int, str] | None = None
) -> Figure:
    """Items as points (N, 2), a marker and colour per group; some carry their names."""
    xy = np.asarray(points, dtype=float)
    figure, ax = axes_of(size=(7.4, 5.2))
    shown = list(dict.fromkeys(groups))
    for group, marker, colour in zip(
        shown, "osD^vPX*<>"[: len(shown)], sns.color_palette("colorblind", len(shown)), strict=True
    ):
        mine = np.array([g == group for g in groups])
        ax.scatter(*xy[mine].T, s=18, marker=marker, color=colour, alpha=0.6, label=group)
    for k, name in (names or {}).items():
        ax.annotate(name, xy[k], fontsize=7.5, xytext=(4, 3), textcoords="offset points")
    ax.set(xlabel="first principal direction", ylabel="second principal direction")
    ax.legend(fontsize=8)
    return figure


def bars_figure(
    values: Mapping[str, float],
    xlabel: str,
    interval: Mapping[str, tuple[float, float]] | None = None,
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
    ax.set_xlabel(xlabel)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", alpha=0.3)
    return figure


def lines_figure(
    x: ArrayLike, lines: Mapping[str, ArrayLike], xlabel: str, ylabel: str, *, log_x: bool = False
) -> Figure:
    """One line per name over a shared x, told apart by markers."""
    figure, ax = axes_of()
    for (name, y), marker in zip(lines.items(), "osD^vPX*" * 2, strict=False):
        ax.plot(x, y, marker=marker, label=name, markevery=max(1, len(np.asarray(x)) // 12))
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
