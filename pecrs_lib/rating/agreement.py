"""How far raters agree, and whether a preference could be chance: pure functions of counts.

Stands beside `metrics`; `human_evaluation` applies them to judgements. All categories are nominal:
a tie is as far from either preference as these are from each other. What would be 0/0 is NaN:
raters who only ever gave one answer show neither agreement nor disagreement beyond chance.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def cohen_kappa(a: ArrayLike, b: ArrayLike) -> float:
    """(p_o - p_e) / (1 - p_e) of two raters (Cohen, 1960): 1 is perfect, 0 what chance gives.

    p_o is the share of items with equal labels, p_e the same share if each rater kept their own
    shares of the labels and gave them at random. Both (P,) of any labels; different shapes or none
    raise ValueError. NaN where both gave one and the same label throughout.
    """
    one, two = np.asarray(a), np.asarray(b)  # (P,), (P,)
    if one.shape != two.shape or one.ndim != 1 or not one.size:
        raise ValueError(f"two (P,) arrays are needed, P > 0: got {one.shape} and {two.shape}")
    n = len(one)
    labels = np.unique(np.concatenate([one, two]))  # (C,)
    # times n², so that the comparison with 1 is one of integers
    chance = sum(int((one == c).sum()) * int((two == c).sum()) for c in labels)
    same = n * int((one == two).sum())
    return (same - chance) / (n * n - chance) if chance < n * n else math.nan


def krippendorff_alpha(labels: ArrayLike) -> float:
    """1 - D_o / D_e of any number of raters, judgements may be missing (Krippendorff, 2011).

    D_o is the share of differing pairs within items, each item of m judgements weighing m; D_e that
    share among all judgements that can be paired. 1 is perfect, 0 what chance gives.

    `labels` (R, P): one row per rater, NaN where they did not judge. Another shape or nothing at
    all raises ValueError. NaN where no item has two judgements, or all of them are equal.
    """
    table = np.asarray(labels, dtype=float)  # (R, P)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"a non-empty (R, P) table is needed, got shape {table.shape}")
    values = np.unique(table[~np.isnan(table)])  # (C,)
    counts = (table[:, :, None] == values).sum(axis=0)  # (P, C)
    counts = counts[counts.sum(axis=1) > 1]  # a single judgement has nobody to agree with
    of_item, of_value = counts.sum(axis=1), counts.sum(axis=0)  # (P,), (C,)
    n = int(of_item.sum())
    expected = n * n - int((of_value**2).sum())  # ordered pairs that differ
    if not expected:
        return math.nan
    differing = of_item**2 - (counts**2).sum(axis=1)  # (P,) ordered pairs
    return 1 - (n - 1) * float((differing / (of_item - 1)).sum()) / expected


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p-value of wins against losses if each were as likely; ties left out.

    Twice the binomial tail, at most 1; 1 where nothing was decided. Negative counts raise
    ValueError.
    """
    if min(wins, losses) < 0:
        raise ValueError(f"counts are not negative, got {wins} and {losses}")
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**n)
