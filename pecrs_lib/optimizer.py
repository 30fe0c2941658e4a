"""What moves the weights: AdamW with a rate for the adapters and one for the heads, and a schedule.

Comes after `model`, before `training` (section 4.1 of the paper).
"""

from __future__ import annotations

import torch

from pecrs_lib.model import PECRS


def learning_rate_factor(step: int, warmup: int, total: int) -> float:
    """Linear warm-up, then linear decay to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (total - step) / max(1, total - warmup))


def make_optimizer(model: PECRS, *, fused: bool | None = None) -> torch.optim.AdamW:
    """Over the adapters and token vectors, and over pooling and heads, as `model.config` says.

    Args:
        fused: all weights in one kernel; None: on a GPU, where a step of many small tensors is
            mostly the launching of kernels.
    """
    fused = model.device.type == "cuda" if fused is None else fused
    config = model.config
    rate, head_rate = config.learning_rate, config.head_learning_rate
    own = [p for p in model.backbone.parameters() if p.requires_grad]
    heads = [
        p for part in (model.items, model.queries, model.f, model.g) for p in part.parameters()
    ]
    return torch.optim.AdamW(
        [
            {"params": own, "lr": rate},
            {"params": heads, "lr": rate if head_rate is None else head_rate},  # 0 freezes them
        ],
        weight_decay=config.weight_decay,
        fused=fused or None,
    )
