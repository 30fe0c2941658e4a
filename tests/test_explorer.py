"""The negative-sampling explorer: its training is the library's loss, and it can be stopped."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pecrs_lib.data import bundled
from pecrs_lib.widgets.explorer import (
    Cancelled,
    Outputs,
    Setting,
    Trained,
    nearest_run,
    ranks,
    recall,
    train_heads,
)


@pytest.fixture(scope="module")
def outputs() -> Outputs:
    """Items in 8 dimensions; queries point at their target, with noise."""
    g = torch.Generator().manual_seed(0)
    item = torch.randn(40, 8, generator=g)
    target = torch.randint(40, (160,), generator=g)
    query = item[target] @ torch.randn(8, 8, generator=g) + 0.3 * torch.randn(160, 8, generator=g)
    return Outputs(
        item, query[:100], target[:100], torch.arange(100), query[100:], target[100:],
        torch.arange(60) // 3, torch.arange(60) % 2 == 0, torch.zeros(60, 40),
    )  # fmt: skip


def test_heads_learn_and_seeds_repeat(outputs):
    a = train_heads(outputs, Setting(None, candidates=10), epochs=30, seed=1)
    b = train_heads(outputs, Setting(None, candidates=10), epochs=30, seed=1)
    assert torch.equal(a.distance, b.distance) and a.losses == b.losses
    before = train_heads(outputs, Setting(None, candidates=10), epochs=1, learning_rate=0.0)
    first, last = (recall(ranks(t, outputs, 40), outputs)["R@10"]["value"] for t in (before, a))
    assert last > first + 10
    assert np.mean(a.losses[-5:]) < np.mean(a.losses[:5])


@pytest.mark.parametrize("changes", [{}, {"share_over_batch": False}, {"popular": True}])
def test_every_switch_trains(outputs, changes):
    setting = Setting(4, candidates=10, **changes)
    assert len(train_heads(outputs, setting, epochs=2, batch=50).losses) == 4


def test_bad_settings_explain_themselves(outputs):
    assert Setting(None).problem(600) is None is Setting(599).problem(600)
    for changes, words in (
        ({"negatives": 40}, "more than the 39 other films"),
        ({"negatives": 0}, "nothing to tell"),
        ({"candidates": 41}, "between 1 and the 40"),
        ({"temperature": 0.0}, "positive"),
    ):
        with pytest.raises(ValueError, match=words):
            train_heads(outputs, Setting(**({"negatives": 4, "candidates": 10} | changes)))


def test_cancel_stops(outputs):
    seen = []

    def progress(share: float) -> bool:
        seen.append(share)
        return share > 0.3

    with pytest.raises(Cancelled):
        train_heads(outputs, Setting(4, candidates=10), epochs=10, progress=progress)
    assert 0.3 < seen[-1] < 0.5


def test_ranks_follow_the_rule(outputs):
    distance = torch.rand(60, 40, generator=torch.Generator().manual_seed(2))
    trained = Trained(distance, [], 0.1)
    by_distance = (distance < distance.gather(1, outputs.valid_target[:, None])).sum(1) + 1
    assert ranks(trained, outputs, 40).tolist() == by_distance.tolist(), "gains are 0: same order"
    assert ranks(trained, outputs, 1).tolist() == by_distance.tolist()


def test_intervals_contain_the_value(outputs):
    rank = ranks(train_heads(outputs, Setting(4, candidates=10), epochs=2), outputs, 10)
    for novel in (False, True):
        for cell in recall(rank, outputs, novel=novel).values():
            assert cell["low"] <= cell["value"] <= cell["high"]


def test_the_bundled_outputs_and_grid_belong_together(tmp_path):
    outputs = Outputs.load(bundled("explorer") / "outputs.safetensors")
    outputs.save(tmp_path / "again.safetensors")
    again = Outputs.load(tmp_path / "again.safetensors")
    assert torch.equal(again.valid_gain, outputs.valid_gain)
    grid = json.loads((bundled("results") / "explorer_grid.json").read_text(encoding="utf-8"))
    assert grid["train_points"] == len(outputs.query)
    assert grid["valid_points"] == len(outputs.valid_query)
    one = nearest_run(grid["runs"], Setting(20, popular=True, temperature=0.12))["setting"]
    assert one == {"negatives": 16, "temperature": 0.1, "share_over_batch": True, "popular": True}
    assert nearest_run(grid["runs"], Setting(None))["setting"]["negatives"] is None
