"""Negatives: never a positive, never twice, shared where they should be, and repeatable."""

from __future__ import annotations

import pytest
import torch

from pecrs_lib.negatives import draw_negatives

N = 20
POSITIVE = torch.tensor([3, 7, 7, 0, 19])
GROUP = torch.tensor([10, 10, 42, 11, 42])  # turns {0, 1}, {2, 4}, {3}
EMPTY = torch.empty(0, dtype=torch.int64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(m: int | None, seed: int = 0, **options) -> torch.Tensor:
    return draw_negatives(N, POSITIVE, GROUP, m, generator=rng(seed), **options)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("m", [1, 5, 16, None])
def test_never_a_positive_of_the_batch_and_never_twice(share, m):
    for seed in range(20):
        drawn = draw(m, seed, share_over_batch=share)
        assert drawn.shape == (5, 16 if m is None else m) and drawn.dtype == torch.int64
        assert drawn.min() >= 0 and drawn.max() < N
        assert not torch.isin(drawn, POSITIVE).any()
        assert all(len(row.unique()) == len(row) for row in drawn)


def test_one_draw_for_the_batch_or_one_for_each_turn():
    shared, own = draw(8), draw(8, share_over_batch=False)
    assert (shared == shared[0]).all()
    for turn in (10, 42, 11):  # points of a turn always share
        rows = own[turn == GROUP]
        assert (rows == rows[0]).all()
    assert not torch.equal(own[0], own[2]) and not torch.equal(own[0], own[3])


@pytest.mark.parametrize("share", [True, False])
def test_none_is_the_whole_rest(share):
    rest = [j for j in range(N) if j not in POSITIVE.tolist()]
    for row in draw(None, share_over_batch=share):
        assert row.tolist() == rest


@pytest.mark.parametrize("share", [True, False])
def test_the_same_seed_draws_the_same(share):
    a, b, c = (draw(8, seed, share_over_batch=share) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    generator, state = rng(), torch.random.get_rng_state()
    draw_negatives(N, POSITIVE, GROUP, 8, generator=generator, share_over_batch=share)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is left alone"


@pytest.mark.parametrize("share", [True, False])
def test_every_item_is_drawn_equally_often(share):
    draws, one, generator = 4000, POSITIVE[:1], rng()
    if share:  # a batch a draw
        drawn = torch.cat([
            draw_negatives(N, one, one, 4, generator=generator) for _ in range(draws)
        ])  # fmt: skip
    else:  # one batch of many turns
        many, turns = one.expand(draws), torch.arange(draws)
        drawn = draw_negatives(N, many, turns, 4, generator=generator, share_over_batch=False)
    count = drawn.flatten().bincount(minlength=N)
    assert count[3] == 0
    p = 4 / (N - 1)
    sigma = (draws * p * (1 - p)) ** 0.5
    others = torch.cat([count[:3], count[4:]])
    assert ((others - draws * p).abs() < 5 * sigma).all()


@pytest.mark.parametrize("share", [True, False])
def test_weights_are_respected(share):
    weight = torch.ones(N)
    weight[[1, 2]] = 0  # never
    weight[[5, 6]] = 10  # often
    weight[7] = 100  # a positive stays out, however popular
    before = weight.clone()
    drawn = torch.stack([draw(3, s, share_over_batch=share, weight=weight) for s in range(300)])
    count = drawn.flatten().bincount(minlength=N)
    assert count[[0, 1, 2, 3, 7, 19]].sum() == 0
    ordinary = [j for j in range(N) if j not in (0, 1, 2, 3, 5, 6, 7, 19)]
    assert count[[5, 6]].min() > 3 * count[ordinary].max()
    assert torch.equal(weight, before)


def test_asking_for_too_many_names_the_numbers():
    assert draw(16).shape == (5, 16)
    with pytest.raises(ValueError, match="17 negatives asked for, but only 16 of 20"):
        draw(17)
    weight = torch.zeros(N)
    weight[[4, 5, 7]] = 1
    with pytest.raises(ValueError, match="3 negatives asked for, but only 2 of 20"):
        draw(3, weight=weight, share_over_batch=False)
    assert sorted(draw(2, weight=weight)[0].tolist()) == [4, 5]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("m", [3, None])
def test_a_batch_that_recommends_nothing(share, m):
    drawn = draw_negatives(N, EMPTY, EMPTY, m, generator=rng(), share_over_batch=share)
    assert drawn.shape == (0, N if m is None else m)
