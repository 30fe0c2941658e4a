"""The configuration refuses what cannot work, and the allocator hint what it cannot do."""

from __future__ import annotations

import math
import sys

import pytest

from pecrs_lib.config import PAPER_SMALL, PRESETS, Config
from pecrs_lib.memory import keep_freed_memory


def test_the_presets_are_those_of_the_paper():
    assert (PAPER_SMALL.alpha, PAPER_SMALL.beta, PAPER_SMALL.gamma) == (0.15, 0.85, 1.0)
    assert (PAPER_SMALL.negatives, PAPER_SMALL.candidates) == (150, 700)
    assert (PAPER_SMALL.context_tokens, PAPER_SMALL.response_tokens) == (256, 64)
    assert (PAPER_SMALL.learning_rate, PAPER_SMALL.warmup_epochs) == (3e-5, 1.0)
    assert set(PRESETS) == {"tiny", "paper-small", "paper-medium"}


def test_a_config_survives_the_round_trip_and_names_unknown_fields():
    config = Config(negatives=None, seed=3)
    assert Config.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="unknown configuration fields: nonsense"):
        Config.from_dict({"nonsense": 1})
    with pytest.raises(TypeError):
        config.with_(nonsense=1)


@pytest.mark.parametrize(
    "field, value",
    [
        ("epochs", 0), ("negatives", 0), ("temperature", 0.0), ("alpha", -1.0), ("window", 300),
        ("dtype", "float8"), ("batch_size", 0), ("retrieval_negatives", 0), ("alpha", math.nan),
        ("temperature", math.inf), ("learning_rate", 0.0), ("learning_rate", -1.0),
        ("head_learning_rate", -1e-3), ("warm_start", -3), ("refresh_items", -1), ("patience", 0),
        ("lora_alpha", 0),
    ],
)  # fmt: skip
def test_values_that_cannot_work_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field.split("_")[0]):
        Config(**{field: value})


def test_freed_memory_is_kept_where_the_allocator_can(monkeypatch):
    assert keep_freed_memory() in (True, False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
