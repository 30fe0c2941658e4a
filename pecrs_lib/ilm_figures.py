"""Pictures of the Item-Language Model: neighbours in three spaces, and its results as tables.

Beside `figures`, which draws what `table_of` and `cells_of` take from `data/results/ilm.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pecrs_lib.figures import axes_of


def nearest(similarity: Tensor, row: int, k: int) -> tuple[list[int], list[float]]:
    """The k items most like item `row`, which is not among them, and how like: from (N, N)."""
    one = similarity[row].clone()
    one[row] = -torch.inf
    value, rows = one.topk(k)
    return rows.tolist(), value.tolist()


def neighbours_figure(
    row: int, spaces: Mapping[str, Tensor], names: Sequence[str], k: int = 6
) -> Figure:
    """The k nearest items of one item in each space, side by side.

    Args:
        spaces: name → (N, N) similarities.
        names: (N,) of the items.
    """
    figure, axes = axes_of(len(spaces), (3.7 * len(spaces), 0.9 + 0.32 * k))
    shared: dict[int, int] = {}
    found = {space: nearest(each, row, k) for space, each in spaces.items()}
    for rows, _ in found.values():
        for j in rows:
            shared[j] = shared.get(j, 0) + 1
    for ax, (space, (rows, value)) in zip(np.atleast_1d(axes), found.items(), strict=True):
        shade = ["0.35" if shared[j] > 1 else "0.75" for j in rows]
        ax.barh(range(0, -k, -1), value, color=shade, edgecolor="black", height=0.7)
        ax.set_yticks(range(0, -k, -1), [names[j][:26] for j in rows], fontsize=8)
        ax.set(title=space, xlabel="cosine")
        ax.grid(axis="y", visible=False)
    figure.suptitle(f"Nearest to {names[row]} (dark: near in another space, too)", fontsize=10)
    return figure


def neighbours_table(
    row: int, spaces: Mapping[str, Tensor], names: Sequence[str], k: int = 6
) -> pd.DataFrame:
    """What `neighbours_figure` draws."""
    found = {s: [names[j] for j in nearest(each, row, k)[0]] for s, each in spaces.items()}
    return pd.DataFrame(found, range(1, k + 1)).rename_axis("place")


def cells_of(
    rows: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> dict[str, dict[str, list[Any]]]:
    """Panels for `figures.dots_figure` and `dots_table`: a metric each, a row per system.

    Args:
        rows: system → metric → cell with value, low and high.
        names: metrics.
    """
    return {name: {name: [row[name] for row in rows.values()]} for name in names}
