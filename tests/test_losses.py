"""Eq 3, 4, 5, 7, 8 by hand, by torch.nn.functional, and by slow loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pecrs_lib.losses import (
    angular_distance,
    joint_loss,
    pairwise_angular_distance,
    pairwise_dot_product_distance,
    rerank_loss,
    response_loss,
    retrieval_loss,
)

EXACT = {"atol": 1e-6, "rtol": 1e-6}


def close(a: Tensor, b: Tensor | float, **tolerance: float) -> None:
    expected = torch.as_tensor(b, dtype=a.dtype)
    torch.testing.assert_close(a, expected, **(tolerance or EXACT))


# -- angular distance -----------------------------------------------------------------------------


def test_distance_by_hand():
    a = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    b = torch.tensor([[5.0, 0.0], [0.0, 0.3], [-2.0, 0.0], [1.0, 1.0]])
    expected = [0.0, math.sqrt(2), 2.0, math.sqrt(2 - math.sqrt(2))]
    # 1e-3 is where the distance is held, so that its slope stays finite
    close(angular_distance(a, b)[0], 0.0, atol=1e-3, rtol=0.0)
    close(angular_distance(a, b)[1:], expected[1:])


def test_distance_is_the_chord_between_unit_vectors():
    a, b = torch.randn(5, 8), torch.randn(7, 8)
    slow = torch.tensor([[float((x / x.norm() - y / y.norm()).norm()) for y in b] for x in a])
    close(pairwise_angular_distance(a, b), slow)
    close(angular_distance(a[:, None], b), slow)
    close(pairwise_angular_distance(b, a), slow.T)
    close(pairwise_angular_distance(3 * a, 0.1 * b), slow)  # lengths do not count
    batch = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    assert pairwise_angular_distance(*batch).shape == (2, 3, 4)
    close(pairwise_angular_distance(*batch)[1], pairwise_angular_distance(batch[0][1], batch[1][1]))


def test_dot_product_distance_by_a_loop():
    a, b = torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    slow = [[[-sum(p * q for p, q in zip(x, y, strict=True)) / 8 for y in b[k]] for x in a[k]]
            for k in range(2)]  # fmt: skip
    close(pairwise_dot_product_distance(a, b), torch.tensor(slow))
    close(pairwise_dot_product_distance(3 * a, b), 3 * torch.tensor(slow))  # lengths count


def test_dot_product_distance_starts_as_the_negative_cosine():
    sign = torch.randn(6, 64).sign()  # of spread 1
    close(pairwise_dot_product_distance(sign, sign).diagonal(), -torch.ones(6))
    cos = F.cosine_similarity(sign[:, None], sign, dim=-1)
    close(pairwise_dot_product_distance(sign, sign), -cos)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_distance_to_oneself_has_a_finite_gradient(scale):
    a = (scale * torch.randn(6, 8)).requires_grad_()
    d = torch.cat([angular_distance(a, a), pairwise_angular_distance(a, a).diagonal()])
    assert (d <= 1.5e-3).all()
    d.sum().backward()
    assert torch.isfinite(a.grad).all()


def test_distance_gradient_is_right_elsewhere():
    a, b = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(angular_distance, (a.requires_grad_(), b.requires_grad_()))


# -- retrieval: Eq 3 and 4 ------------------------------------------------------------------------


def test_retrieval_by_hand():
    # exp(-d / τ): 1/2 against 1/4 and 1/4, so E = 1/2
    distance = torch.tensor([[math.log(2), math.log(4), math.log(4)]])
    close(retrieval_loss(distance, 1.0, 1), math.log(2))
    # τ = 1/2 squares them: 1/4 against 1/16 twice, E = 2/3
    close(retrieval_loss(distance, 0.5, 1), math.log(3 / 2))
    # nothing to tell them apart: log(1 + M)
    close(retrieval_loss(torch.full((2, 6), 1.3), 0.1, 2), math.log(6))


def test_retrieval_agrees_with_cross_entropy_and_with_a_loop():
    distance = 2 * torch.rand(5, 9)
    loss = retrieval_loss(distance, 0.1, 5)
    close(loss, F.cross_entropy(-distance / 0.1, torch.zeros(5, dtype=torch.int64)))
    total = 0.0
    for row in distance.double().tolist():
        D = [math.exp(-d / 0.1) for d in row]
        total += -math.log(D[0] / sum(D))
    close(loss, total / 5, atol=1e-5, rtol=1e-5)


def test_nearer_is_better():
    distance = torch.full((1, 4), 1.0, requires_grad=True)
    retrieval_loss(distance, 0.1, 1).backward()
    assert distance.grad[0, 0] > 0, "the recommended item is pulled in"
    assert (distance.grad[0, 1:] < 0).all(), "negatives are pushed away"
    nearer, farther = torch.tensor([[0.5, 1.0]]), torch.tensor([[1.5, 1.0]])
    assert retrieval_loss(nearer, 0.1, 1) < 0.01 < 4.9 < retrieval_loss(farther, 0.1, 1)


# -- re-ranking: Eq 5 -----------------------------------------------------------------------------


def test_rerank_by_hand_and_by_cross_entropy():
    r = torch.tensor([[math.log(3), 0.0, 0.0]])  # 3 against 1 and 1
    close(rerank_loss(r, 1), math.log(5 / 3))
    r = torch.randn(6, 11)
    close(rerank_loss(r, 6), F.cross_entropy(r, torch.zeros(6, dtype=torch.int64)))


def test_shuffling_candidates_changes_nothing():
    r = torch.randn(6, 11)
    negatives = torch.cat([r[:, :1], r[:, 1:][:, torch.randperm(10)]], 1)
    close(rerank_loss(negatives, 6), rerank_loss(r, 6))
    # the paper shuffles r and Y jointly
    order = torch.stack([torch.randperm(11) for _ in range(6)])
    shuffled, Y = r.gather(1, order), (order == 0).long().argmax(1)
    assert (Y > 0).any()
    close(F.cross_entropy(shuffled, Y), rerank_loss(r, 6))
    assert abs(float(rerank_loss(shuffled, 6) - rerank_loss(r, 6))) > 0.1, "without Y it does"


# -- what both are averaged over ------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", [lambda x, n: retrieval_loss(x, 0.1, n), rerank_loss], ids=["retrieval", "rerank"]
)
def test_points_without_an_item_add_nothing_but_count(loss):
    x = torch.rand(4, 6)
    close(loss(x, 4), sum(float(loss(x[k : k + 1], 1)) for k in range(4)) / 4, atol=1e-5, rtol=1e-5)
    close(loss(x, 10), loss(x, 4) * 4 / 10)  # six turns only talk


@pytest.mark.parametrize("width", [1, 6])
@pytest.mark.parametrize("data_points", [0, 3])
@pytest.mark.parametrize(
    "loss", [lambda x, n: retrieval_loss(x, 0.1, n), rerank_loss], ids=["retrieval", "rerank"]
)
def test_no_points_give_zero_and_a_path_for_gradients(loss, width, data_points):
    weight = torch.ones(2, requires_grad=True)
    value = loss(torch.zeros(0, width) * weight[0], data_points)
    assert value.shape == () and value == 0
    value.backward()
    assert (weight.grad == 0).all()


def test_rerank_accepts_a_batch_without_any_candidate():
    assert rerank_loss(torch.zeros(0, 0), 2) == 0  # what the model sees where nothing recommends


# -- response: Eq 7 and the sum: Eq 8 -------------------------------------------------------------


def test_response_by_hand():
    nll = torch.tensor([1.0, 2.0, 3.0, 10.0])
    response_of = torch.tensor([0, 0, 0, 1])
    # mean of 2 and 10; over tokens it would be 4
    close(response_loss(nll, response_of, 2), 6.0)
    close(response_loss(nll[[3, 1, 0, 2]], response_of[[3, 1, 0, 2]], 2), 6.0)
    # a response without tokens counts in |D| and adds 0
    close(response_loss(nll, response_of, 3), 4.0)
    assert response_loss(nll[:0], response_of[:0], 0) == 0


def test_response_agrees_with_a_loop_over_cross_entropies():
    length = [4, 1, 7]
    logits, label = torch.randn(12, 30), torch.randint(30, (12,))
    response_of = torch.repeat_interleave(torch.arange(3), torch.tensor(length))
    nll = F.cross_entropy(logits, label, reduction="none")
    pieces = zip(logits.split(length), label.split(length), strict=True)
    slow = sum(F.cross_entropy(x, y) for x, y in pieces) / 3
    close(response_loss(nll, response_of, 3), slow)


def test_joint_loss_is_the_weighted_sum():
    L = [torch.tensor(x, requires_grad=True) for x in (2.0, 3.0, 5.0)]
    total = joint_loss(*L, alpha=0.15, beta=0.85, gamma=1.0)
    close(total, 0.15 * 2 + 0.85 * 3 + 5)
    total.backward()
    close(torch.stack([x.grad for x in L]), [0.15, 0.85, 1.0])
