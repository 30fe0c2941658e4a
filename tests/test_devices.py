"""Several processes do what one does, nothing is done twice, and all end when one of them dies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from pecrs_lib import training
from pecrs_lib.batches import loss_weight, make_batch, passes
from pecrs_lib.config import Config
from pecrs_lib.data import bundled, load_corpus, write_catalogue, write_jsonl
from pecrs_lib.devices import recompute_layers
from pecrs_lib.model import PECRS
from pecrs_lib.optimizer import make_optimizer
from pecrs_lib.processes import ALONE, Processes
from pecrs_lib.training import Trainer
from tests.device_worker import CASES, record, trainer
from tests.toys import save_tiny_backbone

ROOT = Path(__file__).resolve().parents[1]
WORKER = str(ROOT / "tests" / "device_worker.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
    "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
    "--main_process_port", "0",
]  # fmt: skip


def launch(*arguments, timeout=300):
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes ran all cases, and went on from a run that one process began."""
    folder = tmp_path_factory.mktemp("devices")
    save_tiny_backbone(folder / "lm", "gpt2")
    interrupted = trainer(str(folder / "lm"), folder / "interrupted")

    def stop(step, losses):
        if step == 3:  # in the middle of the second epoch
            raise KeyboardInterrupt

    interrupted.on_step = stop
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit()
    done = launch(*TORCHRUN, WORKER, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def seen(folder):
    """Of each of the two processes."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """A case by one process."""
    out = tmp_path_factory.mktemp("alone")
    made = {}

    def of(name):
        if name not in made:
            made[name] = record(trainer(str(folder / "lm"), out / name, **CASES[name]))
        return made[name]

    return of


def assert_same(history, other):
    assert len(history) == len(other) > 0
    for a, b in zip(history, other, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_losses_of_one(seen, alone, name):
    one, two = alone(name), seen[0][name]
    assert len(one["steps"]) == len(two["steps"]) >= 4
    torch.testing.assert_close(
        torch.tensor(two["steps"]), torch.tensor(one["steps"]), rtol=0, atol=1e-4
    )
    assert_same(two["history"], one["history"])
    assert one["steps"][0] != pytest.approx(one["steps"][-1], abs=1e-2), "nothing was learned"


@pytest.mark.parametrize("name", CASES)
def test_processes_end_with_the_same_weights_and_the_first_alone_reports(seen, name):
    assert seen[0][name]["weights"] == seen[1][name]["weights"]
    assert seen[0][name]["history"] == seen[1][name]["history"]
    assert seen[1][name]["steps"] == []


def test_items_and_turns_are_shared_out_and_come_back_in_order(seen):
    for one in seen:
        assert one["shared out"]["features equal"] and one["shared out"]["ranks equal"]
        assert one["shared out"]["points"] > 10


def test_two_processes_go_on_where_one_stopped(seen, alone):
    whole = alone("plain")
    assert_same(seen[0]["resumed"]["history"], whole["history"])
    [last] = seen[0]["resumed"]["steps"]  # of four
    assert last == pytest.approx(whole["steps"][3], abs=1e-4)


def test_a_dead_process_ends_the_run_and_one_process_goes_on(folder, catalogue, dialogues):
    out = folder / "killed"
    write_catalogue(catalogue, folder / "films.csv")
    write_jsonl(dialogues[:6], folder / "train.jsonl")
    write_jsonl(dialogues[6:], folder / "valid.jsonl")
    settings = "context_tokens=64 utterance_tokens=48 window=192 candidates=12 lora_rank=4"
    started = time.monotonic()
    ended = launch(
        *ACCELERATE, WORKER, "die", "train", "--format", "jsonl", "--out", out,
        "--train", folder / "train.jsonl", "--valid", folder / "valid.jsonl",
        "--catalogue", folder / "films.csv", "--backbone", folder / "lm",
        "--preset", "paper-small", "--negatives", "5", "--batch-size", "3", "--epochs", "2",
        *(part for s in settings.split() for part in ("--set", s)),
    )  # fmt: skip
    assert time.monotonic() - started < 120
    assert ended.returncode != 0
    said = [line for line in ended.stderr.splitlines() if line.startswith("pecrs: ")]
    assert len(said) == 1 and ("another process" in said[0] or "interrupted" in said[0]), said
    assert ended.stderr.count("loading the language model") == 1  # by the first alone

    config = Config.from_dict(json.loads((out / "run.json").read_text())["config"])

    def go_on(where):
        model = PECRS.from_backbone(config)
        run = Trainer(model, catalogue, dialogues[:6], dialogues[6:], where, show=False)
        return run, run.resume()

    again, resumed = go_on(out)
    assert resumed and again.progress.step == 2
    again.fit()
    whole, resumed = go_on(folder / "whole")
    assert not resumed
    whole.fit()
    assert_same(again.progress.history, whole.progress.history)


def test_two_processes_evaluate_as_one(tmp_path):
    """The same document, said once: no point counted twice, no reply of another seed."""
    write_jsonl(load_corpus()[1]["test"][:2], tmp_path / "test.jsonl")
    command = [
        "evaluate", "--checkpoint", bundled("checkpoints/minireel"), "--format", "jsonl",
        "--test", tmp_path / "test.jsonl", "--train", tmp_path / "test.jsonl", "--json",
        "--catalogue", bundled("minireel") / "films.jsonl",
    ]  # fmt: skip
    alone = launch("-m", "pecrs_lib", *command)
    both = launch(*TORCHRUN, "-m", "pecrs_lib", *command)
    assert alone.returncode == both.returncode == 0, both.stderr
    one, two = json.loads(alone.stdout), json.loads(both.stdout)
    assert two["n_points"] > 2 and len(two["rows"]) == 12
    perplexity = [document["text"].pop("perplexity") for document in (one, two)]
    assert perplexity[0] == pytest.approx(perplexity[1], rel=1e-5)
    assert one == two


@pytest.fixture(scope="module")
def sharded(folder):
    """What two processes saw that shared out the weights, as the configuration for 7 B says."""
    done = launch(
        *ACCELERATE[:2], "--config_file", ROOT / "configs" / "fsdp_7b.yaml",
        "--num_processes", "2", "--main_process_port", "0",
        "--fsdp_transformer_layer_cls_to_wrap", "GPT2Block", WORKER, "fsdp", folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"sharded-{rank}.json").read_text()) for rank in (0, 1)]


def test_weights_shared_out_train_and_resume_as_whole_ones(sharded, alone):
    for seen in sharded:
        assert seen["sharded"] and 0.4 < seen["local"] / seen["all"] < 0.6
        assert "warm_start=0" in seen["refused"]
    one = alone("plain")
    steps = sharded[0]["resumed"]["steps"]  # of the second epoch
    torch.testing.assert_close(
        torch.tensor(steps), torch.tensor(one["steps"][2:]), rtol=0, atol=1e-4
    )
    assert_same(sharded[0]["resumed"]["history"], one["history"])


def test_one_process_reads_what_shared_out_weights_left(sharded, folder, alone, tmp_path):
    copy = shutil.copytree(folder / "sharded", tmp_path / "run")
    run = trainer(str(folder / "lm"), copy)
    assert run.resume() and run.progress.epoch == 2
    assert_same(run.progress.history, alone("plain")["history"])
    whole = trainer(str(folder / "lm"), tmp_path / "whole")
    whole.fit()
    # a shift of all scores changes no loss: the last bias of g follows rounding alone
    both = zip(run.raw_model.named_parameters(), whole.raw_model.parameters(), strict=True)
    for (name, a), b in both:
        if name != "g.2.bias":
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    moments = zip(
        run.optimizer.state_dict()["state"].values(),
        whole.optimizer.state_dict()["state"].values(), strict=True,
    )  # fmt: skip
    for a, b in moments:
        torch.testing.assert_close(a["exp_avg"], b["exp_avg"], rtol=1e-3, atol=1e-4)


def test_gradient_checkpointing_changes_no_loss_and_keeps_less(tiny_backbone, tmp_path):
    kept = {}
    losses = {}
    for checkpointing in (False, True):
        run = trainer(tiny_backbone, tmp_path / str(checkpointing), checkpointing, epochs=1)
        run.model.train()
        if checkpointing:
            recompute_layers(run.raw_model.backbone.lm.get_base_model())
        saved = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x
        )
        with hooks:
            batch = make_batch(
                run.train_windows[:3], 24, run.config, torch.Generator().manual_seed(7)
            )
            run.raw_model(batch, run.features)
        kept[checkpointing] = sum(saved)
        losses[checkpointing] = record(run)["steps"]
    assert kept[True] < 0.7 * kept[False]
    assert losses[True] == pytest.approx(np.array(losses[False]), abs=1e-6)


@pytest.mark.parametrize("at_once", [1, 2, 4])
@pytest.mark.parametrize("case", ["plain", "accumulation", "a draw per turn and task"])
def test_fewer_dialogues_at_once_change_no_loss(tiny_backbone, tmp_path, case, at_once):
    want = record(trainer(tiny_backbone, tmp_path / "all", **CASES[case]))["steps"]
    run = trainer(tiny_backbone, tmp_path / "few", at_once=at_once, **CASES[case])
    assert record(run)["steps"] == pytest.approx(np.array(want), abs=1e-5)


def test_passes_of_all_processes_add_up_to_the_batch(tiny_backbone, tmp_path):
    run = trainer(tiny_backbone, tmp_path)
    model, windows = run.raw_model, run.train_windows[:5]

    def total(processes, at_once):
        how = (24, run.config, torch.Generator().manual_seed(3), processes, at_once)
        made = list(passes([windows], *how))
        assert [one.last for one in made] == [False] * (len(made) - 1) + [True]
        with torch.no_grad():
            return sum(
                one.weight * model(one.batch, run.features).joint(run.config) for one in made
            )

    whole = total(ALONE, None)
    for count in (1, 2, 3):
        for at_once in (1, 2, 3, None):
            mean = sum(total(Processes(k, count), at_once) for k in range(count)) / count
            torch.testing.assert_close(mean, whole, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="at_once must be at least 1, got 0"):
        total(ALONE, 0)


def test_items_are_encoded_anew_without_dropout(tiny_backbone, tmp_path):
    run = trainer(tiny_backbone, tmp_path, refresh_items=1, lora_dropout=0.5)
    run.model.train()
    a, b = (run._encode_items(run.raw_model).values for _ in range(2))
    assert torch.equal(a, b)


def test_the_fused_optimizer_takes_the_same_steps(tiny_backbone, tmp_path, monkeypatch):
    plain = record(trainer(tiny_backbone, tmp_path / "plain"))["steps"]
    monkeypatch.setattr(training, "make_optimizer", partial(make_optimizer, fused=True))
    fused = trainer(tiny_backbone, tmp_path / "fused")
    assert fused.optimizer.param_groups[0]["fused"]
    assert record(fused)["steps"] == pytest.approx(np.array(plain), abs=1e-4)


@pytest.mark.parametrize(
    "flags, least, most",
    [
        ({"MIXED_PRECISION": "bf16"}, 1e-6, 0.05),
        ({"DYNAMO_BACKEND": "AOT_EAGER", "DYNAMO_USE_REGIONAL_COMPILATION": "true"}, 0, 1e-4),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of torch.compile
def test_flags_of_accelerate_launch_are_heard(
    tiny_backbone, tmp_path, monkeypatch, flags, least, most
):
    """Autocast and compiled layers: the same losses but for rounding, which autocast adds to."""
    plain = record(trainer(tiny_backbone, tmp_path / "plain"))["steps"]
    for name, value in flags.items():
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        with_flags = record(trainer(tiny_backbone, tmp_path / "flags"))["steps"]
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert least <= np.abs(np.array(with_flags) - plain).max() < most


def test_a_launcher_that_starts_one_process_for_two_is_named(monkeypatch, tiny_backbone, tmp_path):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    with pytest.raises(ValueError, match="--multi_gpu"):
        trainer(tiny_backbone, tmp_path)


@pytest.mark.parametrize("changes", [{}, CASES["a draw per turn and task"], {"negatives": None}])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_shares_hold_every_point_once_with_the_negatives_of_the_whole(
    tiny_backbone, tmp_path, changes, n
):
    run = trainer(tiny_backbone, tmp_path, **changes)
    windows = run.train_windows[:n]

    def batch_of(processes):
        generator = torch.Generator().manual_seed(7)
        return make_batch(windows, 24, run.config, generator, processes)

    def points(batch):
        rows = torch.cat([batch.candidate, batch.retrieval_negative], 1).tolist()
        where = zip(
            batch.dialogue[batch.point_response].tolist(),
            batch.utterance[batch.point_response].tolist(), rows, strict=True,
        )  # fmt: skip
        return list(where)

    shares = [batch_of(Processes(rank, 3)) for rank in range(3)]
    together = [p for batch in shares[: min(n, 3)] for p in points(batch)]  # the rest are idle
    assert sorted(together) == sorted(points(batch_of(ALONE)))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_unequal_shares_give_the_gradient_of_the_whole(tiny_backbone, tmp_path, n):
    run = trainer(tiny_backbone, tmp_path)
    windows, model = run.train_windows[:n], run.raw_model.train()
    trained = [p for p in model.parameters() if p.requires_grad]

    def gradient(processes):
        batch = make_batch(windows, 24, run.config, torch.Generator().manual_seed(7), processes)
        loss = model(batch, run.features).joint(run.config) * loss_weight(windows, processes)
        found = torch.autograd.grad(loss, trained, allow_unused=True)
        return [torch.zeros(()) if g is None else g for g in found]

    weights = [loss_weight(windows, Processes(rank, 3)) for rank in range(3)]
    assert sum(weights) == pytest.approx(3) and len(set(weights)) > 1
    parts = zip(*(gradient(Processes(rank, 3)) for rank in range(3)), strict=True)
    for whole, part in zip(gradient(ALONE), parts, strict=True):
        torch.testing.assert_close(sum(part) / 3, whole, rtol=1e-4, atol=1e-6)
