"""The untrained rule "the largest id so far, plus 1, plus 2, …", and what it scores.

Comes after `item_ids`. On numbers given in order of first appearance a user's next item is often
the next new number. The rule learns nothing: what it gets is what the numbering tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pecrs_lib.data.interactions import Interactions
from pecrs_lib.next_item import gains, with_interval
from pecrs_lib.pod.item_ids import appearance_numbers


def rule_ranks(
    sequences: Sequence[Sequence[int]], numbers: np.ndarray, *, last: bool = False
) -> np.ndarray:
    """(U,) place of each user's last item in the rule's list, 1 = first, inf = not in it.

    The list is ``m + 1, m + 2, …`` with m the largest number of the user's earlier items.

    Args:
        sequences: items 0 ≤ j < N in time order, at least two for every user.
        numbers: (N,) of the items.
        last: m is the latest number in place of the largest.
    """
    length = np.array([len(items) for items in sequences])
    if (length < 2).any():
        u = int(np.argmax(length < 2))
        raise ValueError(f"user {u} has {length[u]} items, the rule needs 2")
    number = numbers[np.concatenate([np.asarray(items) for items in sequences])]
    end = length.cumsum()
    target, latest = number[end - 1], number[end - 2]
    number[end - 1] = -1  # the target takes no part in the largest
    start = latest if last else np.maximum.reduceat(number, end - length)
    ahead = (target - start).astype(float)
    return np.where(ahead > 0, ahead, np.inf)


def scores(data: Interactions, seed: int = 0) -> dict[str, dict[str, Any]]:
    """What the rules score on a data set, by way of numbering: every metric with its interval.

    Args:
        data: whole sequences; everybody's last item is the right one.
        seed: of the order of the users, where they are shuffled, and of random numbers.
    """
    rng, n = np.random.default_rng(seed), len(data)
    leaky = appearance_numbers(data.users, n)
    shuffled = [data.users[u] for u in rng.permutation(len(data.users))]
    ways = {
        "largest + 1, leaky ids": (leaky, False),
        "last + 1, leaky ids": (leaky, True),
        "largest + 1, leaky ids, users shuffled": (appearance_numbers(shuffled, n), False),
        "largest + 1, random ids": (rng.permutation(n), False),
        "last + 1, random ids": (rng.permutation(n), True),
    }
    found = {}
    for way, (numbers, last) in ways.items():
        each = gains(rule_ranks(data.users, numbers, last=last))
        found[way] = {metric: with_interval(values) for metric, values in each.items()}
    return found
