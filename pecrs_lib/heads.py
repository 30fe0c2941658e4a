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


def causal_pool(h: Tensor, w: Tensor) -> Tensor:
    """At every position the pooling of Eq 1 over all positions up to it, in one pass.

    Args:
        h: (B, T, D) outputs of a causal language model, real tokens first.
        w: (D,) learned; 0 is the plain mean.

    Returns:
        (B, T, D).
    """
    score = h @ w  # (B, T)
    weight = (score - score.detach().amax(1, keepdim=True)).exp()[..., None]  # (B, T, 1)
    return (weight * h).cumsum(1) / weight.cumsum(1).clamp_min(torch.finfo(h.dtype).tiny)


class QueryEncoder(nn.Module):
    """What f reads of a turn: the output d_t at ``[REC]``, standardised (Eq 2).

    DEVIATION: with `pooling`, the outputs of all tokens up to there are pooled with a learned w, as
    Eq 1 pools those of an item text, and added. The paper has d_t alone, into which attention must
    first learn to gather what was said; a small model takes long to learn that.
    """

    def __init__(self, dim: int, pooling: bool) -> None:
        super().__init__()
        self.standardise = Standardise(dim)
        self.pooled = Standardise(dim) if pooling else None
        self.w = nn.Parameter(torch.zeros(dim)) if pooling else None

    def outputs(self, hidden: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor | None]:
        """(P, D) each: d_t, and the pooled outputs where there is pooling; not standardised."""
        d = hidden[row, column].float()
        if self.w is None:
            return d, None
        return d, causal_pool(hidden.float(), self.w)[row, column]

    def forward(self, hidden: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """(B, T, D) trunk outputs and where the P ``[REC]`` stand, (P,) each -> (P, D)."""
        d, pooled = self.outputs(hidden, row, column)
        x = self.standardise(d)
        return x if self.pooled is None or pooled is None else x + self.pooled(pooled)


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
