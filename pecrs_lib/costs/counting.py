"""Counted live rather than reckoned: pairs of tokens, padding, values kept for backward.

Beside `estimate`, for notebook 15: what the arithmetic says can be checked on any packed batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pecrs_lib.context import Window
from pecrs_lib.packing import PADDING, Batch, visible


def pairs(batch: Batch) -> dict[str, int]:
    """Pairs of tokens in one head of one layer: those a mask over everything computes, those that
    `attention` computes, and those that `packing.visible` asks for, padding left out.
    """
    rows, T = batch.token.shape
    S, real = batch.shared, batch.layout.branch != PADDING
    needed = visible(batch.layout, batch.layout)[:, 0] & real[:, :, None] & real[:, None]
    return {
        "mask over everything": rows * T * T,
        "computed": rows * (S * S + (T - S) * (S + 1)),
        "needed": int(needed.sum()),
    }


def padded(batches: Sequence[Sequence[Window]]) -> float:
    """Tokens of the batches' trunks, padding included, over those that count."""
    widest = sum(max(len(w.token) for w in batch) * len(batch) for batch in batches)
    return widest / sum(len(w.token) for batch in batches for w in batch)


def kept_for_backward(model: torch.nn.Module, work: Callable[[], Any]) -> tuple[Any, int]:
    """What `work()` gives, and the bytes that autograd keeps of it, the model's weights apart."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # alive, so that no address comes twice

    def note(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        found = work()
    return found, sum(storage.nbytes() for storage in kept.values())
