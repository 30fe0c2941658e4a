"""Attention that does only what `packing.visible` asks for: the square of the trunk, not of all.

Comes after `packing`, before `backbone`, which loads every LM with it. Hundreds of candidates hang
off a trunk, each a branch of one token that sees the trunk and itself. A mask over everything would
compute, and throw away, what every candidate thinks of every other. Here the candidates' keys are
left out of the mask: **a key beyond the mask's width belongs to the query in its place, alone.** So
C candidates behind S shared tokens cost C (S + 1), linear in C.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "pecrs_branches"


def branch_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a layer, in the form `transformers` asks for.

    Args:
        query: (B, H, T_query, d).
        key, value: (B, H_kv, T_key, d), those in a cache first.
        attention_mask: additive, (B, 1, T_query, S). The T_key - S keys behind the S shared ones
            are those of the last T_key - S queries, each seen by its own query only.

    Returns:
        (B, T_query, H, d), and None for the weights.
    """
    alone = 0 if attention_mask is None else key.shape[2] - attention_mask.shape[-1]
    if alone <= 0:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
    assert attention_mask is not None
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    S, T = attention_mask.shape[-1], query.shape[2] - alone
    shared = key[:, :, :S], value[:, :, :S]
    parts = []
    if T:
        parts.append(
            nn.functional.scaled_dot_product_attention(
                query[:, :, :T], *shared, attn_mask=attention_mask[:, :, :T], scale=scale
            )
        )
    last = (
        query[:, :, T:], *shared, key[:, :, S:], value[:, :, S:], attention_mask[:, :, T:], scale,
    )  # fmt: skip
    # the weights (B, H, C, S) of every layer would be most of a step's memory: made again backward
    again = torch.is_grad_enabled() and query.requires_grad
    parts.append(checkpoint(_alone, *last, use_reentrant=False) if again else _alone(*last))
    return torch.cat(parts, 2).transpose(1, 2), None


def _alone(
    q: Tensor, key: Tensor, value: Tensor, own_key: Tensor, own_value: Tensor,
    mask: Tensor, scale: float,
) -> Tensor:  # fmt: skip
    """(B, H, C, d) for queries that see S shared keys and each its own: a softmax over S + 1."""
    own = (q * own_key).sum(-1, keepdim=True) * scale
    weight = torch.cat([(q * scale) @ key.transpose(-1, -2) + mask, own], -1)
    weight = weight.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)
    return weight[..., :-1] @ value + weight[..., -1:] * own_value


AttentionInterface.register(NAME, branch_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
