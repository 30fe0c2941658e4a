"""What a language model must beat: popularity, company of the last item, SASRec.

Comes after `samples`; judged by `scoring`. Counts are of training sequences. SASRec is cornac's
(extra ``pod``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

Sequences = Sequence[Sequence[int]]


def popularity_scores(train: Sequences, n: int) -> np.ndarray:
    """(N,) how many users took an item."""
    return np.bincount(np.fromiter(chain(*train), dtype=np.int64), minlength=n).astype(float)


def last_item_scores(train: Sequences, past: Sequences, n: int) -> np.ndarray:
    """(U, N) users who took an item and the latest one of `past`, ties by popularity."""
    taken = np.zeros((len(train), n), dtype=np.float32)
    user = np.repeat(np.arange(len(train)), [len(items) for items in train])
    taken[user, np.fromiter(chain(*train), dtype=np.int64)] = 1
    together = taken.T @ taken
    np.fill_diagonal(together, 0)
    popular = popularity_scores(train, n)
    return together[[items[-1] for items in past]] + popular / (popular.max() + 1)


def sequence_scores(model: Any, train: Sequences, past: Sequences, n: int) -> np.ndarray:
    """(U, N) scores of a next-item model of cornac, fitted here on the training sequences.

    Args:
        model: such as ``cornac.models.SASRec``, not yet fitted.
        past: histories to go on from.
    """
    from cornac.data import SequentialDataset

    rows = [(u, u, j, t) for u, items in enumerate(train) for t, j in enumerate(items)]
    data = SequentialDataset.from_usit(rows)  # knows only items that somebody took
    model.fit(data)
    scores = np.full((len(past), n), -np.inf)
    known = list(data.iid_map)
    for u, items in enumerate(past):
        history = [data.iid_map[j] for j in items if j in data.iid_map]
        scores[u, known] = model.score(u, history)[: len(known)]
    return scores


def best_items(scores: np.ndarray, length: int = 50) -> np.ndarray:
    """(U, length) items from the highest score on; of equal ones the lower item first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :length]
