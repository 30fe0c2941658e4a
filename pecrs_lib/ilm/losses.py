"""The four losses of stage 1, as functions of tensors.

After `qformer`. Item-text contrast (ITC), item-text matching (ITM) and item-grounded text
generation (ITG) are BLIP-2's (Li et al. 2023); the item-item contrast is ILM's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def item_text_scores(z: Tensor, t: Tensor) -> Tensor:
    """s_ij = max_k z_ik·t_j, the query that knows the text best: (A, K, d), (B, d) -> (A, B)."""
    return torch.einsum("akd,bd->abk", z, t).amax(-1)


def item_item_scores(z: Tensor, y: Tensor) -> Tensor:
    """s_ij = max_{k,l} z_ik·y_jl: (A, K, d), (B, K, d) -> (A, B)."""
    return torch.einsum("akd,bld->abkl", z, y).amax((-1, -2))


def contrastive_loss(s: Tensor, temperature: float, rows: Tensor, columns: Tensor) -> Tensor:
    """Symmetric cross-entropy of pairs on the diagonal of s (B, B) against all else in the batch.

    Args:
        rows, columns: (B,) item of every row and column; where a pair off the diagonal repeats
            the item of its row's or column's own pair, it is no negative and does not count.
    """
    same = (rows[:, None] == rows) | (columns[:, None] == columns)
    own = torch.eye(len(s), dtype=torch.bool, device=s.device)
    logits = (s / temperature).masked_fill(same & ~own, -torch.inf)
    target = torch.arange(len(s), device=s.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def draw_mismatches(
    s: Tensor, temperature: float, hard: float, generator: torch.Generator
) -> Tensor:
    """(B,) for every row of scores s (B, B) a column other than its own.

    A share `hard` is drawn from softmax(s / temperature), the rest evenly: hard ones alone can be
    so near the truth that matching never gets off the class prior, random ones alone are easy.
    """
    own = torch.eye(len(s), dtype=torch.bool, device=s.device)
    near = (s.detach() / temperature).masked_fill(own, -torch.inf).softmax(1)
    even = (~own).float()
    pick = torch.rand(len(s), 1, generator=generator, device=s.device) < hard
    return torch.multinomial(torch.where(pick, near, even), 1, generator=generator)[:, 0]


def matching_loss(true: Tensor, wrong: Tensor) -> Tensor:
    """Cross-entropy of the two-way head: logits (B, 2) of pairs, (n, 2) of mismatches."""
    target = torch.cat([torch.ones(len(true)), torch.zeros(len(wrong))]).long()
    return F.cross_entropy(torch.cat([true, wrong]), target.to(true.device))


def text_nll(logits: Tensor, ids: Tensor, text: Tensor) -> Tensor:
    """(B,) mean −log p of the words of a text, in nats: logits (B, L, V), ids and mask (B, L)."""
    nll = F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
    return (nll * text).sum(1) / text.sum(1)
