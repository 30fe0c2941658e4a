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
    dtype, on_cpu = query.dtype, query.device.type == "cpu"
    if on_cpu and dtype in (torch.bfloat16, torch.float16):  # whose kernel for these is slower
        query, key, value = query.float(), key.float(), value.float()
        attention_mask = attention_mask.float()
    S, T = attention_mask.shape[-1], query.shape[2] - alone
    first, last = query.split([T, alone], 2)
    (key, own_key), (value, own_value) = (x.split([S, alone], 2) for x in (key, value))
    upper, lower = attention_mask.split([T, alone], 2)
    parts = []
    if T:
        parts.append(
            nn.functional.scaled_dot_product_attention(
                first, key, value, attn_mask=upper, scale=scale
            )
        )
    what = last, key, value, own_key, own_value, lower, scale
    if on_cpu and query.dtype != torch.float64:
        parts.append(_Merged.apply(*what))
    elif torch.is_grad_enabled() and query.requires_grad:  # the weights, of every layer, are large
        parts.append(checkpoint(_alone, *what, use_reentrant=False))
    else:
        parts.append(_alone(*what))
    return torch.cat(parts, 2).transpose(1, 2).to(dtype), None


def _alone(
    q: Tensor, key: Tensor, value: Tensor, own_key: Tensor, own_value: Tensor,
    mask: Tensor, scale: float,
) -> Tensor:  # fmt: skip
    """(B, H, C, d) for queries that see S shared keys and each its own: a softmax over S + 1."""
    own = (q * own_key).sum(-1, keepdim=True) * scale
    weight = torch.cat([(q * scale) @ key.transpose(-1, -2) + mask, own], -1)
    weight = weight.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)
    return weight[..., :-1] @ value + weight[..., -1:] * own_value


class _Merged(torch.autograd.Function):
    """The same as `_alone` by torch's fused attention for CPUs: half the time, none of the memory.

    With o the output over the shared keys, l its log-sum-exp and e the own logit, the whole is
    (1 - p) o + p v for p = σ(e - l). Backward needs l's gradient, which the fused kernel does not
    take; but it uses o only in Σ_d ∂o · o, to which l's gradient adds. So o is moved along ∂o.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, key: Tensor, value: Tensor, own_key: Tensor, own_value: Tensor,
        mask: Tensor, scale: float,
    ) -> Tensor:  # fmt: skip
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, key, value, 0.0, False, attn_mask=mask, scale=scale
        )
        own = (q * own_key).sum(-1, dtype=lse.dtype) * scale
        p = torch.sigmoid(own - lse)[..., None]
        ctx.save_for_backward(q, key, value, own_key, own_value, mask, out, lse, p)
        ctx.scale = scale
        return torch.lerp(out, own_value, p.to(out.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, key, value, own_key, own_value, mask, out, lse, p = ctx.saved_tensors
        (g,), scale = grads, ctx.scale
        at = ((own_value - out) * g).sum(-1, keepdim=True, dtype=p.dtype) * p * (1 - p)
        to_out = (g * (1 - p)).to(g.dtype)
        size = to_out.square().sum(-1, keepdim=True, dtype=p.dtype).clamp_min(1e-30)
        moved = out + (to_out * (at / size)).to(out.dtype)
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            to_out, q, key, value, moved, lse, 0.0, False, attn_mask=mask, scale=scale
        )
        at = (at * scale).to(q.dtype)
        return dq + at * own_key, dk, dv, at * q, (p * g).to(g.dtype), None, None


AttentionInterface.register(NAME, branch_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
