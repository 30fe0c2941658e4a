"""The single stage of training: three losses, one loop, on accelerate (section 3.6).

Comes after `model` and `batches`; validation goes through `protocol`. Every random choice of step s
(negatives, adapter dropout) is drawn from a generator seeded with (seed, s), and the order of an
epoch from (seed, epoch), so a run that was interrupted goes on exactly as it would have, also with
another number of processes: `batch_size` is that of all of them together, and negatives are drawn
for all at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import DistributedType
from tqdm.auto import tqdm

from pecrs_lib.batches import epoch_batches, fingerprint, passes
from pecrs_lib.calibration import calibrate
from pecrs_lib.checkpoint import (
    Progress,
    load_checkpoint,
    refuse_nonfinite,
    replace_folder,
    save_checkpoint,
    write_record,
)
from pecrs_lib.context import Window
from pecrs_lib.data.schema import Catalogue, Dialogue
from pecrs_lib.devices import (
    ProcessLostError,
    connect,
    interrupts_held,
    lost_processes_named,
    processes_of,
    recompute_layers,
)
from pecrs_lib.items import ItemFeatures
from pecrs_lib.memory import keep_freed_memory
from pecrs_lib.model import PECRS
from pecrs_lib.optimizer import learning_rate_factor, make_optimizer
from pecrs_lib.protocol import encode_windows, rank_windows
from pecrs_lib.sharding import is_sharded, refuse_sharded, trained_whole, whole, whole_state
from pecrs_lib.warmstart import warm_start

VALIDATION_K = (1, 10, 50)


class Trainer:
    """Trains a PECRS model; resumable, and usable in a notebook epoch by epoch.

    Args:
        model: from `PECRS.from_backbone`.
        catalogue: the items.
        train, valid: dialogues; validation chooses the checkpoint and is never trained on.
        out: folder of the run; `out/best` holds the best model, `out/last` the state to resume.
        cache_dir: where item features are kept; `out/cache` when None.
        show: progress bars, of the first process.
        on_step: called with (step, losses) after every step, in the first process alone.
        checkpointing: compute activations twice, keep none (`recompute_layers`).
        at_once: windows in one pass of a process, for less memory (`batches.passes`).
    """

    def __init__(
        self,
        model: PECRS,
        catalogue: Catalogue,
        train: Sequence[Dialogue],
        valid: Sequence[Dialogue],
        out: str | Path,
        *,
        cache_dir: Path | None = None,
        show: bool = True,
        on_step: Callable[[int, dict[str, float]], None] | None = None,
        checkpointing: bool = False,
        at_once: int | None = None,
    ) -> None:
        self.config = model.config
        self.catalogue = catalogue
        self.out = Path(out)
        self.checkpointing, self.at_once = checkpointing, at_once
        self.accelerator = connect()
        self.processes = processes_of(self.accelerator)
        self.show = show and self.processes.first
        self.on_step = on_step if self.processes.first else None
        if self.accelerator.distributed_type == DistributedType.FSDP:
            refuse_sharded(self.config)
        model.to(self.accelerator.device)
        if model.device.type == "cpu":
            keep_freed_memory()
        self.train_ids = [dialogue.id for dialogue in train]
        self.train_windows = encode_windows(train, catalogue, model)
        self.valid_windows = encode_windows(valid, catalogue, model)
        if not any(t.items for w in self.train_windows for t in w.turns):
            raise ValueError(
                "the training dialogues hold no recommender turn that mentions a catalogue item; "
                "do their item ids match those of the catalogue?"
            )
        self.cache_dir = cache_dir or self.out / "cache"
        self.features = self._encode_items(model)
        self.fresh = not model.queries.standardise.fitted
        if self.fresh:  # a trained model keeps the statistics it learned by
            calibrate(model, self.train_windows, self.features)
        optimizer = make_optimizer(model)
        useful = sum(bool(w.turns) for w in self.train_windows)
        batches = math.ceil(useful / self.config.batch_size)
        self.steps_per_epoch = math.ceil(batches / self.config.accumulation)
        total = self.steps_per_epoch * self.config.epochs
        warmup = max(1, round(self.config.warmup_epochs * self.steps_per_epoch))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, warmup, total)
        )
        self.raw_model = model
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.schedule = schedule
        self.progress = Progress()
        self.data = fingerprint([*self.train_windows, *self.valid_windows], len(catalogue))

    def _bar(self, name: str) -> Any:
        """Wraps an iterable into a progress bar, for whoever watches."""
        return partial(tqdm, desc=name, leave=False, disable=not self.show)

    def _encode_items(self, model: PECRS) -> ItemFeatures:
        model.eval()  # items are read without dropout, also in the middle of an epoch
        with lost_processes_named(self.processes):
            features = model.item_features(
                self.catalogue, cache_dir=self.cache_dir, adapted=self.config.refresh_items > 0,
                progress=self._bar("items"), processes=self.processes,
            )  # fmt: skip
        return features.to(self.accelerator.device)

    # -- the loop -------------------------------------------------------------------------------

    def fit(self) -> pd.DataFrame:
        """Train to the end, or to the point of early stopping; returns the history."""
        list(self.epochs())
        return self.history()

    def epochs(self) -> Iterator[dict[str, float]]:
        """Train epoch by epoch, yielding each row of the history once its checkpoint is saved.

        Ctrl-C in the middle saves the state under `out/last` and is raised again.

        Raises:
            FloatingPointError: a loss or gradient is no number; see `out/nonfinite.json`.
            ProcessLostError: another process of the run ended; the first one has saved what it
                has, or, where weights are shared out, the epochs before.
        """
        if self.config.warm_start and self.fresh and not self.progress.warm_start:
            with lost_processes_named(self.processes):
                self.progress.warm_start = warm_start(
                    self.raw_model, self.train_windows, self.features, self.catalogue,
                    epochs=self.config.warm_start, processes=self.processes,
                    progress=self._bar("warm start"),
                )  # fmt: skip
        while self.progress.epoch < self.config.epochs and not self.finished_early:
            try:
                with lost_processes_named(self.processes):
                    self._train_epoch()
                    row = self._validate()
            except (KeyboardInterrupt, ProcessLostError):
                self.save_alone()
                raise
            with interrupts_held():
                self.progress.history.append(row)
                self.progress.epoch += 1
                self.progress.running = [0.0] * 4
                if row["score"] > self.progress.best:
                    self.progress.best, self.progress.best_epoch = row["score"], int(row["epoch"])
                    with trained_whole(self.raw_model):
                        if self.processes.first:
                            replace_folder(self.out / "best", self.raw_model.save_pretrained)
                self.save()
            self.processes.wait()  # whoever goes on may read what was saved
            yield row

    @property
    def finished_early(self) -> bool:
        """No better validation score for `patience` epochs."""
        patience = self.config.patience
        waited = self.progress.epoch - self.progress.best_epoch
        return patience is not None and self.progress.epoch > 0 and waited >= patience

    def _train_epoch(self) -> None:
        config, state = self.config, self.progress
        branch_tokens = config.negatives or len(self.catalogue)
        batches = epoch_batches(
            self.train_windows, config.batch_size, config.seed, state.epoch, branch_tokens
        )
        start = state.step - state.epoch * self.steps_per_epoch
        bar = tqdm(
            total=self.steps_per_epoch, initial=start, disable=not self.show, leave=False,
            desc=f"epoch {state.epoch + 1}/{config.epochs}", unit="step",
        )  # fmt: skip
        with bar:
            for first in range(start * config.accumulation, len(batches), config.accumulation):
                losses = self._gradient(batches[first : first + config.accumulation])
                with interrupts_held():
                    self.optimizer.step()
                    self.schedule.step()
                    state.step += 1
                    for k, value in enumerate((1.0, *losses.values())):
                        state.running[k] += value
                bar.set_postfix({name: f"{value:.3f}" for name, value in losses.items()})
                bar.update()
                if self.on_step is not None:
                    self.on_step(state.step, losses)

    def _gradient(self, parts: Sequence[Sequence[Window]]) -> dict[str, float]:
        """The clipped gradient of one or more batches; returns their mean losses."""
        config, step, whose = self.config, self.progress.step, (self.train_ids, self.out)
        if config.refresh_items and step and step % config.refresh_items == 0:
            self.features = self._encode_items(self.raw_model)
        self.model.train()
        if self.checkpointing:
            recompute_layers(self.raw_model.backbone.lm.get_base_model())
        generator = torch.Generator().manual_seed(seed := config.seed * 1_000_003 + step)
        self.optimizer.zero_grad()
        total = torch.zeros(3)
        with torch.random.fork_rng():
            torch.manual_seed(seed + 500_009 * self.processes.rank)  # dropout: each its own
            how = (len(self.catalogue), config, generator, self.processes, self.at_once)
            for one in passes(parts, *how):
                # several processes put gradients together once, after the last pass
                with nullcontext() if one.last else self.accelerator.no_sync(self.model):
                    losses = self.model(one.batch.to(self.accelerator.device), self.features)
                    loss = losses.joint(config)
                    refuse_nonfinite(loss.item(), "loss", step, [one.windows], *whose)
                    self.accelerator.backward(loss * one.weight)
                three = torch.stack([losses.recall, losses.rerank, losses.gen]).detach()
                total += one.weight * three.float().cpu()
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = self.accelerator.clip_grad_norm_(trained, config.clip)
        refuse_nonfinite(float(norm), "gradient", step, parts, *whose)
        total = self.processes.sum(total) / self.processes.count
        return dict(zip(("recall", "rerank", "gen"), total.tolist(), strict=True))

    def _validate(self) -> dict[str, float]:
        if self.config.refresh_items:
            self.features = self._encode_items(self.raw_model)
        with whole(self.raw_model):
            v = self.raw_model.eval().encode_catalogue(self.features)
            ranked = rank_windows(
                self.raw_model, self.valid_windows, v, candidates=self.config.candidates,
                response_tokens=self.config.response_tokens, progress=self._bar("validation"),
                processes=self.processes,
            )  # fmt: skip
        n, *sums = self.progress.running
        means = zip(("recall", "rerank", "gen"), (s / max(n, 1) for s in sums), strict=True)
        row = {"epoch": self.progress.epoch + 1.0, **dict(means), **ranked.scores(VALIDATION_K)}
        row["score"] = float(np.mean([row[f"R@{k}"] for k in VALIDATION_K]))
        return row

    def history(self) -> pd.DataFrame:
        """Losses, validation recall (percent) and perplexity, a row per epoch."""
        return pd.DataFrame(self.progress.history)

    # -- checkpoints ----------------------------------------------------------------------------

    def save(self) -> None:
        """Write state, history and settings; all processes come here if weights are shared out."""
        with trained_whole(self.raw_model):
            state = whole_state(self.optimizer)
            if not self.processes.first:
                return
            parts = (self.raw_model, state, self.schedule, self.progress, self.data)
            save_checkpoint(self.out / "last", *parts)
        write_record(self.out, self.history(), self.config, self.data)

    def save_alone(self) -> bool:
        """`save` where no other process is needed for it; False where weights are shared out."""
        if is_sharded(self.raw_model):
            return False
        self.save()
        return True

    def resume(self) -> bool:
        """Go on from `out/last`; False when there is nothing to resume.

        On CPU the run ends in the same bits as without the interruption; with `refresh_items` only
        if it stopped between epochs, since item features are not saved but encoded anew.

        Raises:
            CheckpointError: the checkpoint is damaged or belongs to another run.
        """
        parts = (self.raw_model, self.optimizer, self.schedule, self.data)
        progress = load_checkpoint(self.out / "last", *parts)
        if progress is None:
            return False
        self.progress = progress
        if self.config.refresh_items:
            self.features = self._encode_items(self.raw_model)
        return True
