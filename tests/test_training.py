"""The training loop: it learns, resumes bit for bit, and leaves the backbone alone."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from pecrs_lib.batches import epoch_batches
from pecrs_lib.checkpoint import CheckpointError
from pecrs_lib.config import Config
from pecrs_lib.data.storage import SUMS
from pecrs_lib.model import PECRS
from pecrs_lib.training import Trainer, learning_rate_factor
from tests.toys import toy_dialogues

CONFIG = Config(
    context_tokens=64, utterance_tokens=48, window=192, lora_rank=4, lora_dropout=0.1,
    negatives=10, epochs=3, batch_size=3, learning_rate=3e-3, candidates=12, warmup_epochs=0.5,
)  # fmt: skip


def trainer(backbone, catalogue, dialogues, out, **changes):
    model = PECRS.from_backbone(CONFIG.with_(backbone=backbone, **changes))
    return Trainer(model, catalogue, dialogues[:6], dialogues[6:], out, show=False)


def state_of(model):
    """Every weight once; `state_dict` would list tied ones under several names."""
    both = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach().clone() for name, value in both}


def test_resume_is_bit_identical(tiny_backbone, catalogue, dialogues, tmp_path):
    whole = trainer(tiny_backbone, catalogue, dialogues, tmp_path / "whole")
    whole.fit()

    part = trainer(tiny_backbone, catalogue, dialogues, tmp_path / "part")
    seen = []

    def stop(step, losses):
        seen.append(step)
        if step == 3:  # in the middle of the second epoch
            raise KeyboardInterrupt

    part.on_step = stop
    with pytest.raises(KeyboardInterrupt):
        part.fit()
    again = trainer(tiny_backbone, catalogue, dialogues, tmp_path / "part")
    assert again.resume() and again.progress.step == 3
    again.fit()
    for name, value in state_of(whole.raw_model).items():
        assert torch.equal(value, state_of(again.raw_model)[name]), name
    assert whole.progress.history == again.progress.history


@pytest.mark.parametrize(("rate", "moves"), [(0.0, False), (None, True)])
def test_a_head_rate_of_zero_freezes_the_heads(
    rate, moves, tiny_backbone, catalogue, dialogues, tmp_path
):
    run = trainer(tiny_backbone, catalogue, dialogues, tmp_path, head_learning_rate=rate, epochs=1)
    before = state_of(run.raw_model)
    run.fit()
    moved = {n for n, value in state_of(run.raw_model).items() if not torch.equal(value, before[n])}
    assert any("lora_" in name for name in moved)
    assert any(name.startswith(("f.", "g.", "items.", "queries.")) for name in moved) == moves


def test_a_checkpoint_older_than_a_setting_resumes(tiny_backbone, catalogue, dialogues, tmp_path):
    run = trainer(tiny_backbone, catalogue, dialogues, tmp_path, epochs=1)
    run.fit()
    path = tmp_path / "last" / "pecrs.json"
    record = json.loads(path.read_text())
    del record["config"]["item_pooling"], record["config"]["item_head"]
    path.write_text(json.dumps(record))
    (tmp_path / "last" / SUMS).unlink()  # older ones have none
    assert trainer(tiny_backbone, catalogue, dialogues, tmp_path, epochs=1).resume()
    other = trainer(tiny_backbone, catalogue, dialogues, tmp_path, epochs=1, item_head=False)
    with pytest.raises(CheckpointError):
        other.resume()


def test_ctrl_c_between_weights_and_step_count_waits(tiny_backbone, catalogue, dialogues, tmp_path):
    run = trainer(tiny_backbone, catalogue, dialogues, tmp_path)
    step = run.optimizer.step

    def step_and_interrupt(*args, **kwargs):
        step(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGINT)

    run.optimizer.step = step_and_interrupt
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run.fit()
    finally:
        signal.signal(signal.SIGINT, before)
    again = trainer(tiny_backbone, catalogue, dialogues, tmp_path)
    assert again.resume() and again.progress.step == run.progress.step == 1
    for name, value in state_of(run.raw_model).items():
        assert torch.equal(value, state_of(again.raw_model)[name]), name


def test_accumulating_a_batch_with_itself_changes_no_gradient(
    tiny_backbone, catalogue, dialogues, tmp_path
):
    run = trainer(
        tiny_backbone,
        catalogue,
        dialogues,
        tmp_path,
        negatives=None,
        accumulation=2,
        clip=1e9,
        lora_dropout=0.0,
    )
    batch = run.train_windows[:2]

    def gradient(parts):
        run._gradient(parts)
        trained = [p for p in run.raw_model.parameters() if p.requires_grad]
        return [p.grad.clone() for p in trained if p.grad is not None]

    for once, twice in zip(gradient([batch]), gradient([batch, batch]), strict=True):
        torch.testing.assert_close(once, twice)


def test_frozen_weights_do_not_move_and_the_rest_does(
    tiny_backbone, catalogue, dialogues, tmp_path
):
    run = trainer(tiny_backbone, catalogue, dialogues, tmp_path)
    before = state_of(run.raw_model)
    run.fit()
    trained = {n for n, p in run.raw_model.named_parameters() if p.requires_grad}
    for name, value in state_of(run.raw_model).items():
        if name in trained:
            assert not torch.equal(value, before[name]), f"{name} was not trained"
        else:
            assert torch.equal(value, before[name]), f"{name} moved"


def test_it_can_learn_by_heart(tiny_backbone, catalogue, dialogues, tmp_path):
    run = trainer(
        tiny_backbone, catalogue, dialogues, tmp_path, epochs=25, negatives=None, batch_size=6,
        learning_rate=1e-2, warmup_epochs=1,
    )  # fmt: skip
    history = run.fit()
    assert history["recall"].iloc[-1] < 0.5 * history["recall"].iloc[0]
    assert history["gen"].iloc[-1] < 0.9 * history["gen"].iloc[0]  # by adapters alone


def test_resume_refuses_other_data_and_other_settings(
    tiny_backbone, catalogue, dialogues, tmp_path
):
    run = trainer(tiny_backbone, catalogue, dialogues, tmp_path)
    assert not run.resume()
    run.save()
    with pytest.raises(CheckpointError, match="training data"):
        trainer(tiny_backbone, catalogue, toy_dialogues(catalogue, 8, seed=5), tmp_path).resume()
    with pytest.raises(CheckpointError, match="other settings"):
        trainer(tiny_backbone, catalogue, dialogues, tmp_path, negatives=4).resume()
    (tmp_path / "last" / "training.pt").write_bytes(b"half a fi")
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        trainer(tiny_backbone, catalogue, dialogues, tmp_path).resume()


def test_refreshed_item_features_follow_the_adapters(tiny_backbone, catalogue, dialogues, tmp_path):
    frozen = trainer(tiny_backbone, catalogue, dialogues, tmp_path / "a")
    live = trainer(tiny_backbone, catalogue, dialogues, tmp_path / "b", refresh_items=1)
    first_frozen, first_live = frozen.features.values.clone(), live.features.values.clone()
    frozen.fit(), live.fit()
    assert torch.equal(frozen.features.values, first_frozen)
    assert not torch.equal(live.features.values, first_live)


def test_an_epoch_holds_every_window_with_a_turn_once(
    tiny_backbone, catalogue, dialogues, tmp_path
):
    run = trainer(tiny_backbone, catalogue, dialogues, tmp_path)
    batches = epoch_batches(run.train_windows, 2, seed=0, epoch=0)
    seen = sorted(w.dialogue for b in batches for w in b)
    assert seen == sorted(w.dialogue for w in run.train_windows if w.turns)
    other = epoch_batches(run.train_windows, 2, seed=0, epoch=1)
    assert [w.dialogue for b in batches for w in b] != [w.dialogue for b in other for w in b]


def test_warm_up_rises_then_falls_to_zero():
    rates = [learning_rate_factor(s, 4, 12) for s in range(13)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and rates[4] == 1.0
    assert rates[4:] == sorted(rates[4:], reverse=True) and rates[12] == 0
