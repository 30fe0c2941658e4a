"""Heads start as the identity and do not stay it; statistics are those of the sample."""

from __future__ import annotations

import pytest
import torch

from pecrs_lib.heads import Head, QueryEncoder, Standardise, causal_pool, mlp
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
    h, w = torch.randn(3, 7, D, dtype=torch.float64), torch.randn(D, dtype=torch.float64)
    got = causal_pool(h, w)
    for t in range(7):
        slow = pool(h[:, : t + 1], w, torch.ones(3, t + 1, dtype=torch.bool))
        torch.testing.assert_close(got[:, t], slow, atol=1e-12, rtol=1e-9)
    changed = h.clone()
    changed[:, 4:] = 100.0
    torch.testing.assert_close(causal_pool(changed, w / 50)[:, :4], causal_pool(h, w / 50)[:, :4])


def test_pooling_does_not_fail_where_the_last_token_outweighs_all_others():
    h = torch.zeros(1, 3, D)
    h[0, 2] = 200.0
    out = causal_pool(h, torch.ones(D))
    assert torch.isfinite(out).all() and torch.equal(out[0, 2], h[0, 2])


def test_without_pooling_a_query_is_the_output_at_rec():
    hidden, row, column = torch.randn(2, 5, D), torch.tensor([0, 1]), torch.tensor([3, 1])
    assert torch.equal(QueryEncoder(D, pooling=False)(hidden, row, column), hidden[row, column])
    both = QueryEncoder(D, pooling=True)(hidden, row, column)
    assert torch.allclose(both[1], hidden[1, 1] + hidden[1, :2].mean(0))
