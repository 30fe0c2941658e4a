"""What stands between the language model's outputs and the losses: f, g and h_item.

Comes before `items` and `model`, which hold the heads.
"""

from __future__ import annotations

import torch
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


BOUND = 20.0  # of the logarithm of a weight: float32 holds sums of numbers e^40 apart


class ContextPooling(nn.Module):
    """The weighted mean of some of the vectors that were read; a small network weighs them."""

    def __init__(self, dim: int, width: int = 64) -> None:
        super().__init__()
        self.standardise = Standardise(dim)
        self.gate = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, 1))
        last = self.gate[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # training starts from the plain mean

    def weight(self, z: Tensor) -> Tensor:
        """(…, D) -> (…), positive."""
        return self.gate(z)[..., 0].clamp(-BOUND, BOUND).exp()

    def pool(self, z: Tensor, keep: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """(P, D) means up to (row, column) of the vectors (B, T, D) to keep (B, T)."""
        return causal_pool(z, self.weight(z) * keep)[row, column]

    def forward(self, z: Tensor, keep: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return self.standardise(self.pool(z, keep, row, column))


class QueryEncoder(nn.Module):
    """What f reads of a turn: the output d_t at ``[REC]``, standardised (Eq 2).

    DEVIATION: with `pooling`, what the LM reads up to there is pooled, words and item vectors
    apart, and added: the counterpart of Eq 1, which pools item texts. The paper has d_t alone, into
    which attention must first learn to gather what was said; a small LM trained for an hour does
    not get that far, so here d_t starts with a small share.
    """

    def __init__(self, dim: int, pooling: bool) -> None:
        super().__init__()
        self.standardise = Standardise(dim)
        self.words = Standardise(dim) if pooling else None  # by the table of word vectors
        self.said = ContextPooling(dim) if pooling else None
        self.named = ContextPooling(dim) if pooling else None
        self.share = nn.Parameter(torch.tensor(0.1)) if pooling else None

    def inputs(self, x: Tensor, column: Tensor) -> Tensor:
        """(B, T', D) what is pooled: the vectors read up to the last ``[REC]``, standardised."""
        assert self.words is not None
        return self.words(x[:, : int(column.max()) + 1 if len(column) else 1].float())

    def forward(self, d: Tensor, x: Tensor, slot: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """(P, D) for the P turns whose ``[REC]`` stand at (row, column), (P,) each.

        Args:
            d: (P, D) outputs of the LM there.
            x: (B, T, D) what the LM reads, the trunk first.
            slot: (B, T) True where that is an item vector.
        """
        d = self.standardise(d.float())
        if self.said is None or self.named is None or self.share is None:
            return d
        z = self.inputs(x, column)
        named = slot[:, : z.shape[1]]
        said = self.said(z, ~named, row, column)
        return self.share * d + said + self.named(z, named, row, column)


def mlp(dim: int, out: int) -> nn.Sequential:
    """Two layers with ReLU: (…, D) -> (…, D_out)."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, out))


class Head(nn.Module):
    """x + MLP(x), the form of f and h_item: (…, D) -> (…, D).

    DEVIATION: the paper's heads are plain MLPs. Outputs of a language model live where its word
    vectors do: at ``[REC]`` they point to the words it expects, and for an item text to its words.
    So training starts from the identity, which compares the two, and not from random numbers.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = mlp(dim, dim)
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)
