"""What stands between the language model's outputs and the losses: f, g and h_item.

Comes after `losses`, before `items` and `model`, which hold the heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Standardise(nn.Module):
    """Shift and scale each of D dimensions to mean 0 and spread 1, by statistics taken once.

    DEVIATION: the outputs of a language model for texts of one form, or for one token in many
    contexts, point in nearly one direction. The heads would see little but what all have in common,
    and learn little but popularity; so they read standardised outputs.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Take the statistics from a sample (n, D)."""
        self.mean.copy_(x.mean(0))
        self.std.copy_(x.std(0, correction=0).clamp_min(1e-3))

    @property
    def fitted(self) -> bool:
        """Whether `fit` has been called."""
        return bool(self.mean.any())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def causal_pool(x: Tensor, weight: Tensor) -> Tensor:
    """At every position the weighted mean of all positions up to it, in one pass.

    Args:
        x: (B, T, D) vectors, real tokens first.
        weight: (B, T), not negative; where all so far are 0, so is the mean.

    Returns:
        (B, T, D).
    """
    w = weight[..., None]
    return (w * x).cumsum(1) / w.cumsum(1).clamp_min(1e-12)


RECENT = 60.0  # tokens after which a mention counts e times less, two exchanges or so


def repetition_offset(
    item: Tensor, row: Tensor, column: Tensor, items: Tensor, repetition: Tensor
) -> Tensor:
    """(P, n) how much nearer each of the `items` (n,) is for having been named, 0 where it was not.

    A film counts repetition[0] if it stands in the trunk up to (row, column), (P,) each, and
    repetition[1] for every time it does, times exp(-tokens since / RECENT).

    Args:
        item: (B, T) catalogue rows, -1 where there is none.
        repetition: (2,), or (P, 2) where it differs from point to point.
    """
    since = column[:, None] - torch.arange(item.shape[1], device=item.device)
    read = 1 + item[row].masked_fill(since < 0, -1)  # 0 where there is none
    size = 2 + int(torch.cat([item.flatten(), items]).max())
    none = torch.zeros(len(row), size, device=item.device)
    named = none.scatter(1, read, 1.0)
    recent = none.scatter_add(1, read, (-since.clamp_min(0) / RECENT).exp())
    once, fresh = repetition[..., :1], repetition[..., 1:]
    return (once * named + fresh * recent)[:, 1 + items]


BOUND = 20.0  # of the logarithm of a weight: float32 holds sums of numbers e^40 apart


class QueryEncoder(nn.Module):
    """What f reads of a turn: the output d_t at ``[REC]``, standardised (Eq 2).

    DEVIATION: with `pooling`, what the LM reads up to there, words and item vectors, is pooled as
    well: the counterpart of Eq 1, which pools item texts. The paper has d_t alone, into which
    attention must first learn to gather what was said; a small LM trained for an hour does not get
    that far, so here d_t starts with a small share. Films that were named point to films like
    them, and most of all to themselves; how likely they really are to be recommended again is
    `repetition`, two learned numbers that draw them near or push them away. What is likely is not
    what serves best, so at inference they count `repetition_scale` times.
    """

    def __init__(
        self, dim: int, pooling: bool, repetition_scale: float = 1.0, width: int = 64
    ) -> None:
        super().__init__()
        self.repetition_scale = repetition_scale
        self.standardise = Standardise(dim)
        self.words = Standardise(dim) if pooling else None  # by the table of word vectors
        self.gate: nn.Sequential | None = None
        if pooling:
            self.gate = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, 1))
            last = self.gate[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)  # training starts from the plain mean
            self.share = nn.Parameter(torch.tensor(0.1))
            self.repetition = nn.Parameter(torch.zeros(2))  # of `repetition_offset`

    def weight(self, z: Tensor) -> Tensor:
        """(…, D) standardised vectors -> (…), positive: how much each counts."""
        assert self.gate is not None
        return self.gate(z)[..., 0].clamp(-BOUND, BOUND).exp()

    def pool(self, x: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """(P, D) weighted means of the vectors x (B, T, D) up to (row, column), each normalised."""
        assert self.words is not None
        z = self.words(x[:, : int(column.max()) + 1 if len(column) else 1].float())
        mean = causal_pool(z, self.weight(z))[row, column]
        return F.layer_norm(mean, mean.shape[-1:])

    def pool_bags(self, x: Tensor, count: Tensor) -> Tensor:
        """(P, D) the same means from U different vectors x (U, D) and how often each was read.

        The order of what is read does not matter here, and most words are read many times.

        Args:
            count: (P, U).
        """
        assert self.words is not None
        z = self.words(x.float())
        part = count * self.weight(z)
        mean = part @ z / part.sum(1, keepdim=True).clamp_min(1e-12)
        return F.layer_norm(mean, mean.shape[-1:])

    def forward(self, d: Tensor, x: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """(P, D) for the P turns whose ``[REC]`` stand at (row, column), (P,) each.

        Args:
            d: (P, D) outputs of the LM there.
            x: (B, T, D) what the LM reads, the trunk first.
        """
        d = self.standardise(d.float())
        return d if self.gate is None else self.share * d + self.pool(x, row, column)

    def offset(self, item: Tensor, row: Tensor, column: Tensor, items: Tensor) -> Tensor | float:
        """(P, n) what `repetition_offset` takes off the distances; 0 without pooling."""
        if self.gate is None:
            return 0.0
        scale = 1.0 if self.training else self.repetition_scale
        return scale * repetition_offset(item, row, column, items, self.repetition)


def mlp(dim: int, out: int, width: int | None = None) -> nn.Sequential:
    """Two layers with ReLU, `width` (or D) wide between: (…, D) -> (…, D_out)."""
    width = width or dim
    return nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, out))


class Head(nn.Module):
    """x + MLP(x), the form of f and h_item: (…, D) -> (…, D).

    DEVIATION: the paper's heads are plain MLPs. Outputs of a language model live where its word
    vectors do: at ``[REC]`` they point to the words it expects, and for an item text to its words.
    So training starts from the identity, which compares the two, and not from random numbers.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = mlp(dim, dim, 2 * dim)
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)
