"""Negatives: the whole catalogue, never twice, shared where they should be, and repeatable."""

from __future__ import annotations

import pytest
import torch

from pecrs_lib.negatives import draw_negatives, own_item

N = 20
GROUP = torch.tensor([10, 10, 42, 11, 42])  # turns {0, 1}, {2, 4}, {3}
EMPTY = torch.empty(0, dtype=torch.int64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(m: int | None, seed: int = 0, **options) -> torch.Tensor:
    return draw_negatives(N, GROUP, m, generator=rng(seed), **options)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("m", [1, 5, N, None])
def test_rows_of_the_catalogue_and_never_one_twice(share, m):
    for seed in range(20):
        drawn = draw(m, seed, share_over_batch=share)
        assert drawn.shape == (5, m or N) and drawn.dtype == torch.int64
        assert drawn.min() >= 0 and drawn.max() < N
        assert all(len(row.unique()) == len(row) for row in drawn)


def test_one_draw_for_the_batch_or_one_for_each_turn():
    shared, own = draw(8), draw(8, share_over_batch=False)
    assert (shared == shared[0]).all()
    for turn in (10, 42, 11):  # points of a turn always share
        rows = own[turn == GROUP]
        assert (rows == rows[0]).all()
    assert not torch.equal(own[0], own[2]) and not torch.equal(own[0], own[3])


@pytest.mark.parametrize("share", [True, False])
def test_none_is_everything(share):
    for row in draw(None, share_over_batch=share):
        assert row.tolist() == list(range(N))
    weight = torch.ones(N)
    weight[[0, 4, 19]] = 0
    for row in draw(None, share_over_batch=share, weight=weight):
        assert row.tolist() == [j for j in range(N) if j not in (0, 4, 19)]


@pytest.mark.parametrize("share", [True, False])
def test_the_same_seed_draws_the_same(share):
    a, b, c = (draw(8, seed, share_over_batch=share) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    state = torch.random.get_rng_state()
    draw(8, share_over_batch=share)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is left alone"


@pytest.mark.parametrize("share", [True, False])
def test_every_item_is_drawn_equally_often(share):
    draws, generator = 4000, rng()
    if share:  # a batch a draw
        one = GROUP[:1]
        drawn = torch.cat([draw_negatives(N, one, 4, generator=generator) for _ in range(draws)])
    else:  # one batch of many turns
        turns = torch.arange(draws)
        drawn = draw_negatives(N, turns, 4, generator=generator, share_over_batch=False)
    count = drawn.flatten().bincount(minlength=N)
    p = 4 / N
    sigma = (draws * p * (1 - p)) ** 0.5
    assert ((count - draws * p).abs() < 5 * sigma).all()


@pytest.mark.parametrize("share", [True, False])
def test_weights_are_respected(share):
    weight = torch.ones(N)
    weight[[1, 2]] = 0  # never
    weight[[5, 6]] = 10  # often
    before = weight.clone()
    drawn = torch.stack([draw(3, s, share_over_batch=share, weight=weight) for s in range(300)])
    count = drawn.flatten().bincount(minlength=N)
    assert count[[1, 2]].sum() == 0
    ordinary = [j for j in range(N) if j not in (1, 2, 5, 6)]
    assert count[ordinary].min() > 0
    assert count[[5, 6]].min() > 3 * count[ordinary].max()
    assert torch.equal(weight, before)


def test_asking_for_too_many_names_the_numbers():
    assert draw(20).shape == (5, 20)
    with pytest.raises(ValueError, match="21 negatives asked for, but only 20 of 20"):
        draw(21)
    weight = torch.zeros(N)
    weight[[4, 5]] = 1
    with pytest.raises(ValueError, match="3 negatives asked for, but only 2 of 20"):
        draw(3, weight=weight, share_over_batch=False)
    assert sorted(draw(2, weight=weight)[0].tolist()) == [4, 5]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("m", [3, None])
def test_a_batch_that_recommends_nothing(share, m):
    drawn = draw_negatives(N, EMPTY, m, generator=rng(), share_over_batch=share)
    assert drawn.shape == (0, N if m is None else m) and drawn.dtype == torch.int64


def test_own_item_by_hand():
    candidate = torch.tensor([[3, 1, 3, 5], [7, 3, 1, 5], [5, 3, 1, 5]])
    assert own_item(candidate).tolist() == [
        [False, False, True, False],  # column 0 is the item itself
        [False, False, False, False],  # another point's item is a negative like any other
        [False, False, False, True],
    ]
    assert own_item(candidate[:, :1]).tolist() == [[False]] * 3, "no negatives"
    assert own_item(candidate[:0]).shape == (0, 4)
    everything = torch.cat([torch.tensor([[4], [0]]), draw(None)[:2]], 1)
    assert own_item(everything).nonzero().tolist() == [[0, 5], [1, 1]], "each hits itself once"
