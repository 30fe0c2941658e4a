"""Hit rate and NDCG over the whole catalogue, from ranks; intervals over users.

Comes after `recommending` and `baselines`, which give lists. One right item per user: HR@k is the
share of users whose item is in the first k, NDCG@k the mean of 1 / log2(1 + rank) there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from pecrs_lib.metrics import bootstrap_means

NOTHING = -1  # a place of a list without an item


def ranks_in(lists: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(U,) place of the target in each list of (U, n) items, 1 = first; inf = not in it."""
    hit = lists == target[:, None]
    return np.where(hit.any(1), hit.argmax(1) + 1.0, np.inf)


def without(lists: np.ndarray, seen: Sequence[Sequence[int]]) -> np.ndarray:
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


def with_interval(values: np.ndarray, samples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Mean of values (U,) or (seeds, U) with a 95 % bootstrap interval over users, and n = U.

    Seeds see the same users, so they are averaged user by user first.
    """
    user = np.atleast_2d(values).mean(0)
    means = bootstrap_means(np.arange(len(user)), user[:, None], samples, seed)[:, 0]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(user.mean()), "low": float(low), "high": float(high), "n": len(user)}
