"""A catalogue pruned with test labels, as the official code prunes INSPIRED's.

Comes after `assessment`, before `running`, which measures main runs on it as well. Which items the
test dialogues mention is part of what a system is asked, so these ranks flatter it; they are here
to say by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pecrs_lib.assessment import item_vectors, predictions_of, rank_dialogues
from pecrs_lib.data import Catalogue, Dialogue
from pecrs_lib.model import PECRS


def mentioned(catalogue: Catalogue, splits: Mapping[str, Sequence[Dialogue]]) -> Catalogue:
    """The items that some dialogue mentions, of whatever part, in their order."""
    every = (u for part in splits.values() for d in part for u in d.utterances)
    known = {item for utterance in every for item in utterance.items}
    return Catalogue(tuple(movie for movie in catalogue if movie.id in known))


def rank_among_mentioned(
    model: PECRS,
    catalogue: Catalogue,
    splits: Mapping[str, Sequence[Dialogue]],
    *,
    cache_dir: Path | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, Any] | None:
    """The test part ranked among the items that are `mentioned`.

    Args:
        splits: all parts of the data; "test" is ranked.

    Returns:
        how many items are left; of every point the rank (None outside the catalogue) and the row
        in the whole catalogue that is ranked first (-1 for none). None if nothing is pruned.
    """
    pruned = mentioned(catalogue, splits)
    if len(pruned) == len(catalogue):
        return None
    v = item_vectors(model, pruned, cache_dir=cache_dir)
    ranked = rank_dialogues(model, splits["test"], pruned, v, progress=progress)
    found = predictions_of(ranked, splits["test"], pruned)
    row = [catalogue.row[movie.id] for movie in pruned] + [-1]  # the last for a row of -1
    return {
        "items": len(pruned),
        "rank": [int(r) if np.isfinite(r) else None for r in found.rank],
        "top1": [row[j] for j in found.top1],
    }
