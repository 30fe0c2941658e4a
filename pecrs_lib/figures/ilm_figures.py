"""Pictures of the Item-Language Model: neighbours in three spaces, and its results as tables.

Beside `figures`; the tables are of `data/results/ilm.json`.
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
from pecrs_lib.figures.diagrams import lines_figure, token_strip
from pecrs_lib.ilm.language import ILM
from pecrs_lib.ilm.tasks import Task


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


def slots_strip(model: ILM, task: Task) -> Figure:
    """A task's tokens as the LM reads them, its K slots and the answer coloured."""
    batch = model.encoded([task])
    kinds, pieces = [], []
    for token, slot, answer in zip(
        batch.token[0].tolist(), batch.slot[0].tolist(), batch.answer[0].tolist(), strict=True
    ):
        kinds.append("item" if slot >= 0 else "response" if answer else "word")
        pieces.append("CF" if slot >= 0 else model.tokenizer.decode(token))
    return token_strip(pieces, kinds)


def history_figure(history: Mapping[str, Sequence[float]], points: int = 20) -> Figure:
    """The losses of stage 1, means of stretches of steps, so that each has `points` of them."""
    lines = {
        name: [float(part.mean()) for part in np.array_split(np.array(values), points)]
        for name, values in history.items()
    }
    x = np.arange(1, points + 1) * 100 / points
    return lines_figure(x, lines, "share of the steps (%)", "loss (nats)")


def panels_of(
    rows: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> dict[str, dict[str, list[Any]]]:
    """Panels for `figures.dots_figure` and `dots_table`: a metric each, a row per system.

    Args:
        rows: system → metric → cell with value, low and high.
        names: metrics, in percent.
    """
    return {f"{name} (%)": {"value": [row[name] for row in rows.values()]} for name in names}


def shown(cell: Mapping[str, float], digits: int) -> str:
    """``value [low, high]``."""
    value, low, high = (f"{cell[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def table_of(rows: Mapping[Any, Mapping[str, Any]], digits: int = 2) -> pd.DataFrame:
    """Cells as `shown`: a row per system, a column per metric."""
    return pd.DataFrame(
        {name: {m: shown(cell, digits) for m, cell in row.items()} for name, row in rows.items()}
    ).T


def found_texts(alignment: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """R@10 of item to text for every variant, and of the first with another film's vector."""
    way = "item to text, {} CF"
    rows = {name: {"R@10": found[way.format("own")]["R@10"]} for name, found in alignment.items()}
    name, found = next(iter(alignment.items()))
    return rows | {f"{name}, another's CF": {"R@10": found[way.format("other")]["R@10"]}}


def sources_table(sources: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What the own CF vector tells of unseen texts, for one variant on several sets of data.

    Args:
        sources: name → its ``alignment``.
    """
    way = "item to text, {} CF"
    table = {
        name: {
            "chance R@10": of["chance R@10"],
            "own CF": shown(of[way.format("own")]["R@10"], 1),
            "another's CF": shown(of[way.format("other")]["R@10"], 1),
            "nats a word, own − another's": shown(of["nll"]["own - other"], 3),
        }
        for name, of in sources.items()
    }
    return pd.DataFrame(table).T


def met_rows(met: Mapping[str, Any], films: Sequence[str]) -> dict[str, Any]:
    """Rows of `dots_figure` from a part of ``ilm_pecrs.json``: every kind of tokens and films."""
    return {f"{kind}, {f}": of[f] for f in films for kind, of in met["rows"].items()}


def task_table(tasks: Mapping[str, Mapping[str, Any]], metric: str, digits: int) -> pd.DataFrame:
    """Means of a metric: a row per variant, a column per kind of task."""
    return pd.DataFrame(
        {name: {kind: c[metric]["value"] for kind, c in of.items()} for name, of in tasks.items()}
    ).T.round(digits)
