"""The experiment on large catalogues, its result file, and what is drawn of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("faiss")

from experiments.large_catalogue import RESULT, Spread, recall
from pecrs_lib.figures.catalogue_figures import memory_table, search_figure, search_table


@pytest.fixture(scope="module")
def record():
    return json.loads(RESULT.read_text(encoding="utf-8"))


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_drawn_vectors_have_the_mean_and_the_covariance_of_the_real_ones(share):
    v = torch.randn(500, 6) @ torch.randn(6, 6) + torch.randn(6)
    drawn = Spread(v).draw(200_000, share, seed=0)
    tolerance = 0.02 * float(v.std())
    torch.testing.assert_close(drawn.mean(0), v.mean(0), atol=tolerance, rtol=0)
    of = torch.cov(v.T)
    torch.testing.assert_close(torch.cov(drawn.T), of, atol=0.03 * float(of.max()), rtol=0)
    assert torch.equal(drawn[:5], Spread(v).draw(200_000, share, seed=0)[:5])
    assert not torch.equal(drawn[:5], Spread(v).draw(200_000, share, seed=1)[:5])


def test_recall_by_hand():
    rows = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    found = torch.tensor([[3, 9, 0, 8], [4, 5, 6, 7]])
    assert recall(rows, rows, 4) == {"value": 100, "low": 100, "high": 100, "n": 2}
    assert recall(found, rows, 4)["value"] == 75 and recall(found, rows, 1)["value"] == 100
    assert recall(found[:, :1], rows, 1)["value"] == 50
    got = recall(found, rows, 4)
    assert (got["low"], got["high"]) == (50, 100)


def test_the_file_says_where_it_comes_from_and_holds_every_size(record):
    search = record["search"]
    assert {"commit", "hardware", "torch", "faiss", "films", "queries"} <= set(search)
    assert [size["N"] for size in search["sizes"]] == [10_000, 100_000, 1_000_000]
    table = search_table(record)
    assert (table["low"] <= table["recall@M"]).all() and (table["recall@M"] <= table["high"]).all()
    assert (table[table["way"] == "exact"]["recall@M"] == 100).all()
    assert (table["n"] == search["queries"]).all()
    assert set(table["M"]) == {100, 700}


def test_drawn_vectors_are_spread_like_real_ones(record):
    real, drawn = record["search"]["real"], record["search"]["drawn"]
    for name in ("nearest item, median", "effective dimensions", "spread of query to item"):
        assert drawn[name] == pytest.approx(real[name], rel=0.1), name


def test_on_disk_the_numbers_are_the_same_and_memory_does_not_grow_with_features(record):
    table = memory_table(record)
    assert table["same features"].all() and table["same vectors"].all()
    memory = table.pivot(index="N", columns="way", values="peak memory (MiB)")
    features = table.groupby("N")["features (MiB)"].first()
    grown = memory.iloc[-1] - memory.iloc[0]
    assert grown["in memory"] > 0.9 * (features.iloc[-1] - features.iloc[0])
    assert grown["on disk"] < 0.25 * grown["in memory"]


@pytest.mark.parametrize("M", [100, 700])
def test_the_figure_draws_the_table(record, M):
    table = search_table(record)
    table = table[table["M"] == M]
    figure = search_figure(record, M)
    for ax, column in zip(figure.axes, ("ms, single", "ms, batch"), strict=False):
        drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
        for way, rows in table.groupby("way"):
            np.testing.assert_array_equal(drawn[way], rows[column])
    assert "exact" not in figure.axes[2].get_legend_handles_labels()[1]
    with pytest.raises(ValueError, match="M = 3 was not measured"):
        search_figure(record, 3)
