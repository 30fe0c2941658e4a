"""What comes next for a user: lists from counts, and what any list scores.

After `data.interactions`, for the two related systems alike (`ilm`, `pod`). Lists are of the whole
catalogue; one right item per user: HR@k is the share of users whose item is in the first k, NDCG@k
the mean of 1 / log2(1 + rank) there. Baselines count training sequences; SASRec is cornac's (extra
``pod``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from pecrs_lib.metrics import bootstrap_means, rule_of_three

NOTHING = -1  # a place of a list without an item
Sequences = Sequence[Sequence[int]]  # for every user, items in time order, none twice


def user_item(users: Sequences, n: int) -> csr_matrix:
    """(U, N) ones where a user took an item, N = `n`."""
    start = np.cumsum([0, *map(len, users)])
    items = np.fromiter(chain(*users), dtype=np.int64)
    return csr_matrix((np.ones(len(items)), items, start), (len(users), n))


def popularity(users: Sequences, n: int) -> np.ndarray:
    """(N,) how many users took an item."""
    return np.bincount(np.fromiter(chain(*users), dtype=np.int64), minlength=n).astype(float)


def last_item_scores(train: Sequences, past: Sequences, n: int) -> np.ndarray:
    """(U, N) users who took an item and the latest one of `past`, ties by popularity."""
    taken = user_item(train, n)
    together = taken.T @ taken
    together.setdiag(0)
    taken_by = popularity(train, n)
    return together[[items[-1] for items in past]].toarray() + taken_by / (taken_by.max() + 1)


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
    """(U, length) items from the highest score (U, N) on; of equal ones the lower item first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :length]


def ranks_in(lists: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(U,) place of the target in each list of (U, n) items, 1 = first; inf = not in it."""
    hit = lists == target[:, None]
    return np.where(hit.any(1), hit.argmax(1) + 1.0, np.inf)


def without(lists: np.ndarray, seen: Sequences) -> np.ndarray:
    """(U, n) lists with each user's `seen` items taken out; the rest moves up, NOTHING fills."""
    user = np.repeat(np.arange(len(seen)), [len(items) for items in seen])
    item = np.fromiter(chain(*seen), dtype=np.int64)
    table = np.zeros((len(lists), max(lists.max(initial=0), item.max(initial=0)) + 1), dtype=bool)
    table[user, item] = True
    drop = (lists == NOTHING) | np.take_along_axis(table, np.maximum(lists, 0), 1)
    order = np.argsort(drop, axis=1, kind="stable")
    moved, dropped = (np.take_along_axis(x, order, 1) for x in (lists, drop))
    return np.where(dropped, NOTHING, moved)


def gains(ranks: np.ndarray, cuts: Sequence[int] = (1, 5, 10)) -> dict[str, np.ndarray]:
    """(U,) what each user adds to HR@k and NDCG@k, from ranks (U,)."""
    found: dict[str, np.ndarray] = {}
    for k in cuts:
        hit = ranks <= k
        found[f"HR@{k}"] = hit.astype(float)
        if k > 1:  # at 1 they are the same
            found[f"NDCG@{k}"] = np.where(hit, 1 / np.log2(1 + ranks), 0)
    return found


def with_interval(
    values: np.ndarray,
    samples: int = 1000,
    seed: int = 0,
    bounds: tuple[float, float] = (0, 1),
) -> dict[str, Any]:
    """Mean of values (U,) or (seeds, U) with a 95 % bootstrap interval over users, and n = U.

    Seeds see the same users, so they are averaged user by user first. Zeros alone have the interval
    of `rule_of_three`, for values within the `bounds`.
    """
    user = np.atleast_2d(values).mean(0)
    means = bootstrap_means(np.arange(len(user)), user[:, None], samples, seed)[:, 0]
    low, high = np.quantile(means, [0.025, 0.975])
    if not user.any():
        low, high = rule_of_three(0, len(user), *bounds)
    return {"value": float(user.mean()), "low": float(low), "high": float(high), "n": len(user)}
