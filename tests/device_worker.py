"""What `test_devices` runs in several processes: ``torchrun … device_worker.py DIR``.

Each writes what it saw to ``DIR/RANK.json``. After ``fsdp``, weights are shared out. After ``die``
follows the command line, and the process with rank 1 kills itself in the middle of the third step.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import FullyShardedDataParallelPlugin

from pecrs_lib import training
from pecrs_lib.config import Config
from pecrs_lib.encoding import encode_items
from pecrs_lib.items import tokenize_items
from pecrs_lib.model import PECRS
from pecrs_lib.processes import ALONE
from pecrs_lib.protocol import rank_windows
from pecrs_lib.sharding import is_sharded
from pecrs_lib.training import Trainer
from tests.toys import toy_catalogue, toy_dialogues

CONFIG = Config(
    context_tokens=64, utterance_tokens=48, window=192, lora_rank=4, negatives=10,
    retrieval_negatives=10, epochs=2, batch_size=3, learning_rate=3e-3, candidates=12,
    warmup_epochs=0.5,
)  # fmt: skip
CASES = {
    "plain": {},
    "a process without a window": {"batch_size": 5},  # of six: five, then one
    "accumulation": {"batch_size": 2, "accumulation": 2},
    "a draw per turn and task": {"share_over_batch": False, "share_over_tasks": False},
    "items encoded anew": {"refresh_items": 2},
    "warm start": {"warm_start": 2, "query_pooling": True},
}
LOSSES = ("recall", "rerank", "gen")


def trainer(
    backbone: str, out: Path, checkpointing: bool = False, at_once: int | None = None, **changes
) -> Trainer:
    catalogue = toy_catalogue(24)
    dialogues = toy_dialogues(catalogue, 13, seed=0)
    model = PECRS.from_backbone(CONFIG.with_(backbone=backbone, **changes))
    return Trainer(
        model, catalogue, dialogues[:6], dialogues[6:], out, show=False,
        checkpointing=checkpointing, at_once=at_once,
    )  # fmt: skip


def record(run: Trainer, weights: bool = True) -> dict:
    """The losses of every step, the history, and a fingerprint of the trained weights."""
    steps = []
    if run.processes.first:
        run.on_step = lambda step, losses: steps.append([losses[name] for name in LOSSES])
    run.fit()
    if not weights:
        return {"steps": steps, "history": run.progress.history}
    digest = hashlib.sha256()
    for p in run.raw_model.parameters():
        if p.requires_grad:
            digest.update(p.detach().numpy().tobytes())
    return {"steps": steps, "history": run.progress.history, "weights": digest.hexdigest()}


def shared_out(run: Trainer) -> dict:
    """Items encoded and turns ranked by all processes together, and by this one alone."""
    model, both = run.raw_model, (run.processes, ALONE)
    tok = model.backbone.tokenizer
    tokens, _ = tokenize_items(run.catalogue, tok, item_tokens=40)
    features = [
        encode_items(tokens, model.backbone.item_output, dim=model.backbone.dim,
                     batch_tokens=70, processes=p).values
        for p in both
    ]  # fmt: skip
    v = model.encode_catalogue(run.features)
    ranked = [
        rank_windows(model, run.valid_windows, v, candidates=12, within=(5,), batch_tokens=150,
                     processes=p)
        for p in both
    ]  # fmt: skip
    names = [f.name for f in dataclasses.fields(ranked[0]) if f.name != "rank_within"]
    same = [np.array_equal(*(getattr(r, name) for r in ranked)) for name in names]
    same.append(np.array_equal(*(r.rank_within[5] for r in ranked)))
    return {
        "features equal": torch.equal(*features),
        "ranks equal": all(same),
        "points": len(ranked[0].rank),
    }


def main(folder: Path) -> None:
    backbone = str(folder / "lm")
    seen = {name: record(trainer(backbone, folder / name, **c)) for name, c in CASES.items()}
    seen["shared out"] = shared_out(trainer(backbone, folder / "plain"))
    resumed = trainer(backbone, folder / "interrupted")
    assert resumed.resume()
    seen["resumed"] = record(resumed)
    rank = resumed.processes.rank
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    resumed.accelerator.end_training()


def main_sharded(folder: Path) -> None:
    """Half an epoch and the rest, in two runs, with gradient checkpointing; then the end of one."""
    shard_on_cpu()
    backbone, out = str(folder / "lm"), folder / "sharded"
    part = trainer(backbone, out, checkpointing=True)
    refused = ""
    try:
        trainer(backbone, folder / "refused", warm_start=1)
    except ValueError as error:
        refused = str(error)
    epochs = part.epochs()
    next(epochs)
    weights = {n: p.to_local().numel() for n, p in part.raw_model.named_parameters()}
    again = trainer(backbone, out, checkpointing=True)
    assert again.resume() and again.progress.step == 2
    seen = {
        "resumed": record(again, weights=False),
        "local": sum(weights.values()),
        "all": sum(p.numel() for p in part.raw_model.parameters()),
        "refused": refused,
        "sharded": is_sharded(again.raw_model),
    }
    rank = again.processes.rank
    (folder / f"sharded-{rank}.json").write_text(json.dumps(seen))
    again.accelerator.end_training()


def shard_on_cpu() -> None:
    """`accelerate` reads an FSDP configuration on GPUs alone; this is what it does there."""
    from_launcher = training.connect

    def connect() -> Accelerator:
        accelerator = from_launcher()
        AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin()
        for state in (AcceleratorState, PartialState):
            state._shared_state["distributed_type"] = DistributedType.FSDP
        assert accelerator.is_fsdp2
        return accelerator

    training.connect = connect


def die_at_the_third_step() -> None:
    gradient = Trainer._gradient

    def gradient_or_death(self, parts):
        if self.processes.rank == 1 and self.progress.step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return gradient(self, parts)

    Trainer._gradient = gradient_or_death


if __name__ == "__main__":
    faulthandler.dump_traceback_later(270, exit=True)  # before the tests give up on the launcher
    if sys.argv[1] == "die":
        from pecrs_lib.cli import app

        die_at_the_third_step()
        app(sys.argv[2:])
    if sys.argv[1] == "fsdp":
        main_sharded(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
