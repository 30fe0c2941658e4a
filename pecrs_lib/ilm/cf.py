"""Collaborative filtering: a vector per item, from who took it, and from nothing else.

The first step of ILM. The paper takes the vectors of a matrix factorisation that is already there;
here they are a truncated SVD of the training interactions (Cremonesi et al. 2010, "PureSVD").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import diags
from scipy.sparse.linalg import svds
from torch import Tensor

from pecrs_lib.data.interactions import Interactions
from pecrs_lib.next_item import popularity, user_item


def cf_vectors(train: Interactions, dim: int) -> Tensor:
    """(N, dim) vectors of items, all of length √dim; zeros for items nobody took.

    Every entry of the matrix is divided by the roots of both counts, so that neither the popular
    items nor the busy users make up the first directions. The SVD starts from fixed numbers: equal
    interactions give equal vectors.

    Raises:
        ValueError: as many dimensions as users or items, or more.
    """
    matrix = user_item(train.users, len(train))
    if not 1 <= dim < min(matrix.shape):
        raise ValueError(f"dim={dim} of a {matrix.shape[0]} × {matrix.shape[1]} matrix")
    by_user, by_item = (
        diags(1 / np.sqrt(np.maximum(np.asarray(matrix.sum(axis)).ravel(), 1))) for axis in (1, 0)
    )
    start = np.random.default_rng(0).standard_normal(min(matrix.shape))
    _, size, v = svds(by_user @ matrix @ by_item, k=dim, v0=start)
    vectors = (v * size[:, None])[::-1].T  # (N, dim), the largest direction first
    sign = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(dim)])  # the SVD leaves it open
    vectors[popularity(train.users, len(train)) == 0] = 0  # else rounding, blown up to length √dim
    return _scaled(torch.from_numpy(np.ascontiguousarray(vectors * sign)).float())


def _scaled(vectors: Tensor) -> Tensor:
    """Each to the length √dim, where a network expects its inputs; zeros stay."""
    return F.normalize(vectors, dim=1) * vectors.shape[1] ** 0.5


def user_vectors(cf: Tensor, users: Iterable[Sequence[int]]) -> Tensor:
    """(U, dim) vectors of users, the sums of their items' (N, dim), scaled: "folded in".

    A user in the space of the items can go where an item goes, and needs no training.
    """
    sums = [cf[list(taken)].sum(0) for taken in users]
    return _scaled(torch.stack(sums))


def shuffled(cf: Tensor, generator: torch.Generator) -> Tensor:
    """The vectors (N, dim), each given to another item: what an aligned model must notice."""
    order = torch.randperm(len(cf), generator=generator)
    return cf[torch.empty_like(order).scatter(0, order, order.roll(1))]  # nobody keeps their own
