"""Lists from counts, places in lists, and what they score, against tables written out."""

from __future__ import annotations

import numpy as np
import pytest

from pecrs_lib import next_item


def test_ranks_and_gains():
    lists = np.array([[4, 2, 7], [1, 2, 3], [5, 6, -1]])
    ranks = next_item.ranks_in(lists, np.array([4, 3, 9]))
    assert ranks.tolist() == [1, 3, np.inf]
    gains = next_item.gains(ranks, (1, 3))
    assert gains["HR@1"].tolist() == [1, 0, 0] and gains["HR@3"].tolist() == [1, 1, 0]
    assert gains["NDCG@3"].tolist() == [1, 0.5, 0]
    left = next_item.without(lists, [(2,), (1, 3, 8), ()])
    assert left.tolist() == [[4, 7, -1], [2, -1, -1], [5, 6, -1]]


def test_intervals_are_over_users():
    cell = next_item.with_interval(np.tile([[0.0, 1.0]], (5, 50)))
    assert cell["n"] == 100 and cell["value"] == 0.5
    assert 0.35 < cell["low"] < 0.45 < 0.55 < cell["high"] < 0.65  # five seeds are no more users
    none = next_item.with_interval(np.zeros((3, 60)), bounds=(-1, 1))
    assert (none["low"], none["high"]) == (-3 / 60, 3 / 60)  # no hit of 60 does not exclude one


def test_what_followed_the_last_item():
    train = [(0, 1, 2), (0, 1), (3, 4)]
    scores = next_item.last_item_scores(train, [(2, 0), (3,)], 5)
    assert next_item.best_items(scores, 2).tolist() == [[1, 2], [4, 0]]
    assert next_item.popularity(train, 5).tolist() == [2, 2, 1, 1, 1]


def test_counts_are_those_of_a_table():
    users, n = [(0, 3), (), (3, 1, 2)], 5
    slow = np.zeros((3, n))
    for u, taken in enumerate(users):
        slow[u, list(taken)] = 1
    np.testing.assert_array_equal(next_item.user_item(users, n).toarray(), slow)
    np.testing.assert_array_equal(next_item.popularity(users, n), slow.sum(0))
    past = [(1,), (0, 3), (4,)]
    together = slow.T @ slow
    np.fill_diagonal(together, 0)
    want = together[[1, 3, 4]] + slow.sum(0) / (slow.sum(0).max() + 1)
    np.testing.assert_allclose(next_item.last_item_scores(users, past, n), want)


@pytest.mark.filterwarnings("ignore")
def test_cornac_learns_what_comes_next():
    models = pytest.importorskip("cornac.models")
    model = models.SASRec(embedding_dim=16, n_epochs=60, batch_size=64, learning_rate=1e-2, seed=0)
    n = 30  # users walk through the items in steps of one
    walks = [tuple((j + np.arange(7)) % n) for j in np.random.default_rng(0).integers(n, size=40)]
    past, target = [walk[:-1] for walk in walks], np.array([walk[-1] for walk in walks])
    scores = next_item.sequence_scores(model, [walk[:-2] for walk in walks], past, n)
    ranks = next_item.ranks_in(next_item.best_items(scores), target)
    assert next_item.gains(ranks)["HR@5"].mean() > 0.5
