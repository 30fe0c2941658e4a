"""Pictures: every function takes data and returns a matplotlib Figure, and draws nothing else.

The end of the flow. One palette, one size, labelled axes; bars carry hatches and lines carry
markers, so that a figure is legible in greyscale.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

SIZE = (7.0, 3.8)  # inches
MARKERS = "osD^vPX*"


class Picture(Figure):
    """A Figure that a notebook shows without pyplot, which keeps figures alive and global."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG bytes, the same ones every time; 128 colours, a third of the bytes."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    few = Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    few.save(small, format="png", optimize=True)
    return small.getvalue()


def axes_of(columns: int = 1, size: tuple[float, float] = SIZE) -> tuple[Figure, Any]:
    """An empty figure in the project's style: its axes, or an array of them side by side."""
    figure = Picture(figsize=size, layout="constrained")
    axes = figure.subplots(1, columns)
    for ax in np.atleast_1d(axes):
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.3)
    return figure, axes


def recall_figure(
    rows: Sequence[Mapping[str, Any]], *, targets: str = "all", k: Sequence[int] = (1, 10, 50)
) -> Figure:
    """Recall@k of every system with its interval.

    Args:
        rows: `evaluation.as_records` of a recall table.
        targets: which target set to draw.
    """
    shown = [row for row in rows if row["targets"] == targets]
    figure, axes = axes_of(len(k), (2.6 * len(k), 0.5 + 0.38 * len(shown)))
    for ax, cut in zip(np.atleast_1d(axes), k, strict=True):
        cell = [row[f"R@{cut}"] for row in shown]
        value = np.array([c["value"] for c in cell], dtype=float)
        spread = np.array([[c["value"] - c["low"], c["high"] - c["value"]] for c in cell], float)
        place = np.arange(len(shown))[::-1]
        colours = sns.color_palette("colorblind", len(shown))
        ax.barh(place, value, color=colours, alpha=0.75, height=0.7)
        ax.errorbar(value, place, xerr=spread.T.clip(0), fmt="none", ecolor="black", capsize=3)
        ax.set_yticks(
            place, [row["system"] for row in shown] if ax is np.atleast_1d(axes)[0] else []
        )
        ax.set_xlabel(f"Recall@{cut} (%)")
        ax.grid(axis="y", visible=False)
        ax.grid(axis="x", alpha=0.3)
    figure.suptitle(f"{targets} targets, n = {shown[0]['n']}; bars: 95 % interval", fontsize=10)
    return figure


def dots_figure(
    names: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
) -> Figure:
    """Values with their intervals side by side: a row per name, a marker per series.

    Args:
        names: rows, from the top.
        panels: label of the x axis → series → a cell per name, ``{"value": …, "low": …, "high":
            …}``; bounds may be missing. A cell whose value is None leaves its place empty.
    """
    most = max(len(series) for series in panels.values())
    rows = len(names) * (0.16 + 0.16 * most)
    figure, axes = axes_of(len(panels), (max(SIZE[0], 2.2 + 3.1 * len(panels)), 1.2 + rows))
    for ax, (label, series) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        ax.axvline(0, color="0.8", linewidth=1)
        _draw_series(ax, series)
        ax.set_yticks(range(0, -len(names), -1), names if ax is np.atleast_1d(axes)[0] else [])
        ax.set(xlabel=label, ylim=(0.6 - len(names), 0.6))
        ax.grid(axis="y", visible=False)
        ax.grid(axis="x", alpha=0.3)
    if most > 1:
        handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=most, fontsize=9)
    return figure


def dots_table(
    names: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
) -> pd.DataFrame:
    """What `dots_figure` draws, as ``value [low, high]``; a dash where there is no value."""
    one = all(len(series) == 1 for series in panels.values())
    columns = {
        label if one else (label, name): [_shown(cell) for cell in cells]
        for label, series in panels.items()
        for name, cells in series.items()
    }
    return pd.DataFrame(columns, list(names))


def _shown(cell: Mapping[str, Any]) -> str:
    if cell["value"] is None:
        return "–"
    bounds = f" [{cell['low']:.1f}, {cell['high']:.1f}]" if "low" in cell else ""
    return f"{cell['value']:.1f}{bounds}"


def _draw_series(ax: Any, series: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """The series of one panel, each a little below the one before."""
    below = np.linspace(0.14, -0.14, len(series)) if len(series) > 1 else np.zeros(1)
    for k, (name, cells) in enumerate(series.items()):
        known = [(row, c["value"], c) for row, c in enumerate(cells) if c["value"] is not None]
        value = np.array([v for _, v, _ in known], dtype=float)
        low = np.array([c.get("low", v) for _, v, c in known], dtype=float)
        high = np.array([c.get("high", v) for _, v, c in known], dtype=float)
        place = np.array([below[k] - row for row, _, _ in known])
        ax.errorbar(
            value, place, xerr=np.stack([value - low, high - value]).clip(0), label=name,
            fmt=MARKERS[k], ms=6, capsize=2, color=("0.1", "0.5")[k % 2],
            mfc="white" if k % 2 else None,
        )  # fmt: skip


def bands_figure(shares: Mapping[str, Mapping[str, float]], xlabel: str) -> Figure:
    """Bars of parts that add up to a whole, from dark to light, the last part hatched.

    Args:
        shares: row → part → percent; every row has the same parts in the same order.
    """
    parts = list(next(iter(shares.values())))
    figure, ax = axes_of(size=(8.4, 1.1 + 0.36 * len(shares)))
    place = np.arange(len(shares))[::-1]
    left = np.zeros(len(shares))
    for k, part in enumerate(parts):
        value = np.array([row[part] for row in shares.values()])
        last = k == len(parts) - 1
        shade = "white" if last else str(0.15 + 0.7 * k / max(1, len(parts) - 2))
        ax.barh(
            place, value, left=left, height=0.72, color=shade, edgecolor="black", linewidth=0.6,
            hatch="///" if last else None, label=part,
        )  # fmt: skip
        left += value
    ax.set_yticks(place, list(shares))
    ax.set(xlabel=xlabel, xlim=(0, 100))
    ax.grid(visible=False)
    figure.legend(loc="outside upper center", ncols=len(parts), fontsize=9)
    return figure


def training_figure(warm_start: Sequence[float], steps: Sequence[Mapping[str, float]]) -> Figure:
    """Loss of every epoch of the warm start, and the three losses of every step after it.

    Args:
        warm_start: from `warmstart.warm_start`.
        steps: what `Trainer.on_step` was told, in order.
    """
    figure, (left, right) = axes_of(2, (8.4, 3.4))
    left.plot(range(1, len(warm_start) + 1), warm_start, marker="o", color="0.35")
    left.set(xlabel="epoch of the warm start", ylabel="retrieval loss (nats)")
    for name, marker in zip(steps[0] if steps else (), MARKERS, strict=False):
        value = [step[name] for step in steps]
        right.plot(range(1, len(value) + 1), value, marker=marker, ms=4, label=name)
    right.set(xlabel="step of the single stage", ylabel="training loss (nats)", yscale="log")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend()
    return figure


def losses_figure(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """What each loss does when it is taken away: a row per variant, a point per seed.

    Args:
        runs: of the file of `experiments.losses`.
    """
    names = list(dict.fromkeys(run["variant"] for run in runs))
    figure, axes = axes_of(3, (11.0, 0.9 + 0.42 * len(names)))
    for run in runs:
        place = len(names) - names.index(run["variant"]) - 0.12 * run["seed"]
        at = {row["stage"]: row for row in run["recall"] if row["targets"] == "all"}
        for ax, cell in zip(axes, (at["retrieval"]["R@50"], at["re-ranked"]["R@10"]), strict=False):
            spread = [[cell["value"] - cell["low"]], [cell["high"] - cell["value"]]]
            ax.errorbar(cell["value"], place, xerr=spread, fmt="o", color="0.25", capsize=3)
        axes[2].plot(run["perplexity"], place, "o", color="0.25")
    labels = ("Recall@50 of retrieval (%)", "Recall@10, re-ranked (%)", "perplexity of responses")
    for ax, label in zip(axes, labels, strict=True):
        ax.set_yticks(range(len(names), 0, -1), names if ax is axes[0] else [""] * len(names))
        ax.set(xlabel=label, ylim=(0.5, len(names) + 0.5))
        ax.grid(axis="x", alpha=0.3)
    axes[2].set_xscale("log")
    return figure


def strategies_figure(
    tables: Mapping[str, Mapping[str, tuple[float, float]]], xlabel: str, ylabel: str
) -> Figure:
    """Two metrics of every decoding strategy as points, one panel per table; axes start at 0.

    Args:
        tables: title -> strategy -> (x, y); a marker per family, which is the name up to a comma.
    """
    figure, axes = axes_of(len(tables), (4.6 * len(tables), 4.2))
    for ax, (title, points) in zip(np.atleast_1d(axes), tables.items(), strict=True):
        families = list(dict.fromkeys(name.split(",")[0] for name in points))
        colours = sns.color_palette("colorblind", len(families))
        for family, marker, colour in zip(families, MARKERS, colours, strict=False):
            mine = [xy for name, xy in points.items() if name.split(",")[0] == family]
            ax.plot(*np.array(mine).T, marker, color=colour, ms=7, mec="black", label=family)
        most = np.array(list(points.values())).max(0)
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
        ax.set(xlim=(0, 1.15 * most[0]), ylim=(0, 1.15 * most[1]))
    np.atleast_1d(axes)[0].legend(fontsize=9)
    return figure


def cost_figure(report: Mapping[str, Any]) -> Figure:
    """Data points per second and tokens per point, one pass beside three (the benchmark's file)."""
    figure, (left, right) = axes_of(2, (7.4, 3.0))
    names = {"one_pass": "one pass", "three_passes": "three passes"}
    colours = sns.color_palette("colorblind", 2)
    for ax, key, unit in (
        (left, "points_per_second", "data points per second"),
        (right, "tokens_per_point", "tokens through the LM per point"),
    ):
        values = [report[name][key] for name in names]
        bars = ax.bar(list(names.values()), values, color=colours, hatch=["", "//"], alpha=0.75)
        ax.bar_label(bars, [f"{value:,.2f}" if value < 10 else f"{value:,.0f}" for value in values])
        ax.set_ylabel(unit)
        ax.margins(y=0.15)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG at 150 dots per inch."""
    path.write_bytes(png(figure, 150))
