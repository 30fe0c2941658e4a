"""Items as short sequences of symbols, which a language model can write.

Comes after `data.interactions`, before `vocabulary`. An id scheme is an (N, L) table of codes, a
row per item, all rows different. Two schemes know nothing of the future: random digits, which know
nothing at all, and clusters of the *training* sequences. The third, numbers in order of first
appearance, is that of P5 and POD, and is here to show what it gives away (`leak`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

Sequences = Sequence[Sequence[int]]


def random_ids(n: int, rng: np.random.Generator, length: int = 2) -> np.ndarray:
    """(N, length) digits of a random order of the items: leak-free, and without meaning.

    The base is the smallest in which `length` digits tell n items apart.
    """
    base = next(b for b in range(1, n + 1) if b**length >= n)
    return np.stack(np.unravel_index(rng.permutation(n), (base,) * length), 1)


def appearance_numbers(sequences: Sequences, n: int) -> np.ndarray:
    """(N,) number of every item, 0, 1, …, in the order in which users come to them.

    `sequences` are whole ones, test items included: the numbering of P5 and POD, and a leak. Items
    nobody takes are numbered last.
    """
    order = np.array(list(dict.fromkeys(chain(*sequences, range(n)))))
    numbers = np.empty(n, dtype=np.int64)
    numbers[order] = np.arange(n)
    return numbers


def cluster_ids(train: Sequences, n: int, rng: np.random.Generator, size: int = 32) -> np.ndarray:
    """(N, 2) cluster and place in it, of clusters of at most `size` items taken by the same users.

    Items are halved along the first principal direction of their users, again and again. Items
    that nobody takes in `train` fall together. Which number a cluster and a place in it have is
    random. That two items share a cluster tells who takes what together, in `train`.

    Args:
        train: training sequences only; anything else would leak.
    """
    taken = np.zeros((n, len(train)), dtype=np.float32)
    user = np.repeat(np.arange(len(train)), [len(items) for items in train])
    taken[np.fromiter(chain(*train), dtype=np.int64), user] = 1
    norm = np.linalg.norm(taken, axis=1, keepdims=True)
    left, singular, _ = np.linalg.svd(taken / np.maximum(norm, 1), full_matrices=False)
    vector = left[:, :size] * singular[:size]
    groups = [np.arange(n)]
    while max(map(len, groups)) > size:
        groups = [half for group in groups for half in _halves(vector, group, size)]
    codes = np.empty((n, 2), dtype=np.int64)
    for cluster, group in zip(rng.permutation(len(groups)), groups, strict=True):
        codes[group, 0], codes[group, 1] = cluster, rng.permutation(len(group))
    return codes


def numbers_of(codes: np.ndarray) -> np.ndarray:
    """(N, L) codes -> (N,) one number per item: its symbols as digits, the first the highest."""
    return np.ravel_multi_index(tuple(codes.T), tuple(codes.max(0) + 1))


def _halves(vector: np.ndarray, group: np.ndarray, size: int) -> list[np.ndarray]:
    if len(group) <= size:
        return [group]
    centred = vector[group] - vector[group].mean(0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    order = group[np.argsort(centred @ direction, kind="stable")]
    return np.array_split(order, 2)
