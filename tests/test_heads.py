"""Heads start as the identity and do not stay it; statistics are those of the sample."""

from __future__ import annotations

import math

import pytest
import torch

from pecrs_lib.heads import (
    RECENT,
    Head,
    QueryEncoder,
    Standardise,
    causal_pool,
    mlp,
    repetition_offset,
)
from pecrs_lib.items import pool

D = 8


def sample(n: int = 500) -> torch.Tensor:
    """(n, D) as a language model gives them: one direction common to all, spreads far apart."""
    return 40 + torch.randn(n, D) * torch.logspace(-2, 2, D)


# -- f and h_item ---------------------------------------------------------------------------------


def test_mlp_is_linear_relu_linear():
    head, x = mlp(D, 3), torch.randn(4, 2, D)
    assert sum(p.numel() for p in head.parameters()) == D * D + D + 3 * D + 3
    slow = (x @ head[0].weight.T + head[0].bias).clamp_min(0) @ head[2].weight.T + head[2].bias
    torch.testing.assert_close(head(x), slow, atol=1e-6, rtol=1e-5)
    assert mlp(D, 3, 5)[0].out_features == mlp(D, 3, 5)[2].in_features == 5


def test_a_head_starts_as_the_identity_and_adds_its_mlp():
    head, x = Head(D), 3 * torch.randn(4, 2, D)
    assert torch.equal(head(x), x)
    with torch.no_grad():
        for p in head.parameters():
            p.add_(torch.randn(p.shape))
    torch.testing.assert_close(head(x) - x, head.mlp(x), atol=1e-4, rtol=1e-5)
    assert (head(x) - x).abs().max() > 1


def test_a_head_is_trained_away_from_the_identity():
    """Both layers move, although the first has no slope while the second is zero."""
    head, x = Head(D), torch.randn(256, D)
    target = x.flip(-1).relu()
    before = {n: p.detach().clone() for n, p in head.named_parameters()}
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    losses = []
    for _ in range(200):
        loss = (head(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    for name, p in head.named_parameters():
        assert (p - before[name]).abs().max() > 1e-2, name


# -- standardisation ------------------------------------------------------------------------------


def test_before_it_is_fitted_it_changes_nothing():
    x = sample()
    assert torch.equal(Standardise(D)(x), x)


def test_a_fitted_sample_has_mean_0_and_spread_1():
    x, s = sample(), Standardise(D)
    s.fit(x)
    z = s(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(D), atol=1e-3, rtol=0)  # 40 over 0.01
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(D), atol=1e-3, rtol=0)
    other = sample(7).view(1, 7, D)  # statistics belong to the sample, not to what comes later
    slow = (other - x.mean(0)) / x.std(0, correction=0)
    torch.testing.assert_close(s(other), slow, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 500])
def test_a_constant_dimension_becomes_zero(n):
    x, s = sample(n), Standardise(D)
    x[:, 2] = 7.0
    s.fit(x)
    z = s(x)
    assert torch.isfinite(z).all() and (z[:, 2] == 0).all()
    further = s(x + 1)
    assert torch.isfinite(further).all() and (further[:, 2] > 0).all()


def test_statistics_are_kept_but_not_trained():
    x, s = sample(), Standardise(D)
    s.fit(x)
    assert not list(s.parameters()) and set(s.state_dict()) == {"mean", "std"}
    again = Standardise(D)
    again.load_state_dict(s.state_dict())
    assert torch.equal(again(x), s(x))
    z = torch.zeros(D, requires_grad=True)
    s(z).sum().backward()
    torch.testing.assert_close(z.grad, 1 / s.std)


# -- what f reads of a turn -----------------------------------------------------------------------


def test_causal_pooling_is_the_pooling_of_every_prefix():
    x, w = torch.randn(3, 7, D, dtype=torch.float64), torch.randn(D, dtype=torch.float64)
    got = causal_pool(x, (x @ w).exp())
    for t in range(7):
        slow = pool(x[:, : t + 1], w, torch.ones(3, t + 1, dtype=torch.bool))
        torch.testing.assert_close(got[:, t], slow, atol=1e-12, rtol=1e-9)
    changed = x.clone()
    changed[:, 4:] = 100.0
    torch.testing.assert_close(
        causal_pool(changed, torch.ones(3, 7))[:, :4],
        x.cumsum(1)[:, :4] / torch.arange(1, 5)[:, None],
    )
    assert not causal_pool(x, torch.zeros(3, 7)).any()


def test_pooling_bags_is_pooling_in_order():
    encoder, x = QueryEncoder(D, True), torch.randn(5, D)
    torch.nn.init.normal_(encoder.gate[-1].weight)
    read = torch.randint(5, (3, 12))
    row, column = torch.randint(3, (8,)), torch.randint(12, (8,))
    count = torch.stack(
        [torch.bincount(read[b, : t + 1], minlength=5) for b, t in zip(row, column, strict=True)]
    )
    torch.testing.assert_close(
        encoder.pool_bags(x, count), encoder.pool(x[read], row, column), atol=1e-5, rtol=1e-4
    )


def test_without_pooling_a_query_is_the_output_at_rec():
    x, hidden = torch.randn(2, 2, 5, D)
    row, column = torch.tensor([0, 1]), torch.tensor([3, 1])
    d = hidden[row, column]
    assert torch.equal(QueryEncoder(D, False)(d, x, row, column), d)
    both = QueryEncoder(D, True)(d, x, row, column)
    means = torch.stack([x[0, :4].mean(0), x[1, :2].mean(0)])
    spread = (means.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    want = 0.1 * d + (means - means.mean(1, keepdim=True)) / spread
    torch.testing.assert_close(both, want)
    nothing = torch.empty(0, dtype=torch.int64)
    assert QueryEncoder(D, True)(d[:0], x, nothing, nothing).shape == (0, D)


def test_how_much_repetition_counts_is_found_by_a_loop_too():
    g = torch.Generator().manual_seed(1)
    item = torch.randint(-1, 6, (4, 9), generator=g)
    row, column = torch.randint(4, (20,), generator=g), torch.randint(9, (20,), generator=g)
    repetition = torch.randn(20, 2, generator=g)
    got = repetition_offset(item, row, column, torch.arange(7), repetition)
    for p, (b, t) in enumerate(zip(row.tolist(), column.tolist(), strict=True)):
        want = torch.zeros(7)
        for j in set(item[b, : t + 1].tolist()) - {-1}:
            since = [t - k for k in range(t + 1) if item[b, k] == j]
            recent = sum(math.exp(-s / RECENT) for s in since)
            want[j] = repetition[p, 0] + repetition[p, 1] * recent
        torch.testing.assert_close(got[p], want)
    nothing = torch.empty(0, dtype=torch.int64)
    assert repetition_offset(item, nothing, nothing, torch.arange(7), repetition[0]).shape == (0, 7)
    some = torch.tensor([3, 0])  # although higher rows than these are named
    assert torch.equal(repetition_offset(item, row, column, some, repetition), got[:, some])
    assert repetition_offset(item, row, column, nothing, repetition).shape == (20, 0)


def test_films_named_before_are_nearer_or_farther_by_learned_numbers():
    item, every = torch.tensor([[-1, 2, -1, 0]]), torch.arange(4)
    at = torch.tensor([0]), torch.tensor([2])
    encoder = QueryEncoder(D, True)
    assert encoder.offset(item, *at, every).tolist() == [[0.0] * 4], "it starts at 0"
    with torch.no_grad():
        encoder.repetition.copy_(torch.tensor([0.25, 0.5]))
    want = torch.tensor([[0, 0, 0.25 + 0.5 * math.exp(-1 / RECENT), 0]])
    torch.testing.assert_close(encoder.offset(item, *at, every), want)
    assert QueryEncoder(D, False).offset(item, *at, every) == 0


def test_at_inference_they_count_as_often_as_configured():
    item, every = torch.tensor([[-1, 2, -1, 0]]), torch.arange(4)
    at = torch.tensor([0]), torch.tensor([2])
    encoder = QueryEncoder(D, True, repetition_scale=1.5)
    with torch.no_grad():
        encoder.repetition.copy_(torch.tensor([0.25, 0.5]))
    learned = encoder.offset(item, *at, every)
    torch.testing.assert_close(encoder.eval().offset(item, *at, every), 1.5 * learned)


def test_the_gate_learns_which_vectors_to_keep():
    """Half of the vectors are noise, told by their first number; the mean of the rest is due."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 12, D, generator=g)
    keep = torch.rand(64, 12, generator=g) < 0.5
    keep[:, 0] = True
    x[..., 0] = torch.where(keep, 2.0, -2.0)
    mean = (x * keep[..., None]).sum(1) / keep.sum(1, keepdim=True)
    want = torch.nn.functional.layer_norm(mean, (D,))
    row, column = torch.arange(64), torch.full((64,), 11)
    encoder = QueryEncoder(D, True)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        loss = (encoder.pool(x, row, column) - want).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]


def test_far_apart_weights_leave_finite_gradients():
    encoder, x = QueryEncoder(D, True), torch.randn(2, 40, D)
    with torch.no_grad():
        encoder.gate[-1].weight.normal_().mul_(1000)
    out = encoder.pool(x, torch.tensor([0, 1]), torch.tensor([30, 39]))
    out.pow(2).sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in encoder.gate.parameters())
