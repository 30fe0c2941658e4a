"""The losses of the paper as functions of tensors: Eq 3, 4, 5, 7 and 8.

No model, tokenizer or device in here; local names are the equations' names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def angular_distance(a: Tensor, b: Tensor) -> Tensor:
    """√(2(1 − cos(a, b))) of section 3.3: the chord between two directions, up to 2.

    Below 1e-3 it stays 1e-3: there the slope grows without bound.

    Shapes broadcast over all but the last axis, (…, D) × (…, D) -> (…).
    """
    cos = (F.normalize(a, dim=-1) * F.normalize(b, dim=-1)).sum(-1)
    return chord(cos)


def pairwise_angular_distance(a: Tensor, b: Tensor) -> Tensor:
    """The same for every pair, by one matrix product: (…, P, D) × (…, M, D) -> (…, P, M)."""
    return chord(F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).transpose(-1, -2))


def pairwise_dot_product_distance(a: Tensor, b: Tensor) -> Tensor:
    """−a·b / D for every pair: (…, P, D) × (…, M, D) -> (…, P, M).

    What the official code trains by, with a factor. While the numbers in a and b have spread 1 it
    is about −cos(a, b), so a temperature means what it means for angular distances. Unlike these it
    falls without bound as vectors grow longer.
    """
    return -(a @ b.transpose(-1, -2)) / a.shape[-1]


def chord(cos: Tensor) -> Tensor:
    """The angular distance of two directions by the cosine of their angle; any shape."""
    # the slope is infinite at distance 0; below 1e-3 the distance stays put and pulls no more
    return torch.sqrt((2 - 2 * cos).clamp_min(1e-6))


def retrieval_loss(distance: Tensor, temperature: float, data_points: int) -> Tensor:
    """Eq 3 and 4: noise-contrastive loss of P queries, each against its item and M negatives.

    DEVIATION: read literally, Eq 3 puts the angular *distance* in the exponent, which would pull
    queries towards negatives. Nearer must be more similar, so the distance enters with a minus
    sign, and divided by a temperature, because it spans only [0, 2].

    Args:
        distance: (P, 1 + M) from f(d_t) to v_p in column 0, then to the negatives v'_j; inf where
            a negative is the point's own item again, which then adds nothing.
        data_points: |D|, all data points of the batch; those that recommend nothing add 0.

    Returns:
        (): the sum over points divided by |D|.
    """
    log_E = F.log_softmax(-distance / temperature, dim=1)
    return -log_E[:, 0].sum() / max(data_points, 1)


def rerank_loss(r: Tensor, data_points: int) -> Tensor:
    """Eq 5: cross-entropy of the scores (P, 1 + M) with the recommended item in column 0.

    The paper shuffles r and Y jointly, against a bias of position; candidates here have no
    position and cannot see each other, so shuffling changes nothing (tests/test_packing.py).

    Args:
        r: (P, 1 + M) scores of the points that recommend; -inf where a negative is the point's own
            item again, which then adds nothing.
        data_points: |D|, all data points of the batch; those that recommend nothing add 0.
    """
    Y = torch.zeros(len(r), dtype=torch.int64, device=r.device)
    return F.cross_entropy(r, Y, reduction="sum") / max(data_points, 1)


def response_loss(nll: Tensor, response_of: Tensor, responses: int) -> Tensor:
    """Eq 7: the mean over responses of the mean over their tokens.

    Args:
        nll: (R,) −log p of each response token.
        response_of: (R,) the response it belongs to, 0 … responses − 1.
        responses: |D|.
    """
    zeros = nll.new_zeros(responses)
    total = zeros.index_add(0, response_of, nll)
    n = zeros.index_add(0, response_of, torch.ones_like(nll))
    return (total / n.clamp_min(1)).sum() / max(responses, 1)


def joint_loss(
    L_recall: Tensor,
    L_rerank: Tensor,
    L_gen: Tensor,
    *,
    alpha: float,
    beta: float,
    gamma: float,
) -> Tensor:
    """Eq 8."""
    return alpha * L_recall + beta * L_rerank + gamma * L_gen
