"""A run of the reproduction carried out: trained, then measured on the test part once.

Comes after `runs` and `assessment`. The epoch is chosen on validation dialogues alone; the test
part is read after training. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pecrs_lib.data import Catalogue, Dialogue, Movie
from pecrs_lib.data.storage import write_whole
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import encode_windows
from pecrs_lib.reproduction.measuring import Corpus, bar_of, measure
from pecrs_lib.reproduction.pruning import rank_among_mentioned
from pecrs_lib.reproduction.runs import MAIN, Run, machine, rounded
from pecrs_lib.reproduction.variants import AS_OFFICIAL
from pecrs_lib.training import Trainer
from pecrs_lib.warmstart import warm_start

CLOCK = "seconds.json"  # spent on training, over all interruptions
BATCH = "seconds_per_batch.json"  # kept, if the run is interrupted after training


def carry_out(run: Run, corpus: Corpus, work: Path, *, show: bool = True) -> dict[str, Any]:
    """Train, or go on, and measure: the record of a run.

    Args:
        corpus: of `load_corpus` or `load_folder`.
        work: checkpoints go to a folder of the run in it; item features are shared by all runs.
    """
    where = machine()
    catalogue, whole = corpus
    train = some(whole["train"], max(1, round(run.share * len(whole["train"]))), run.seed)
    splits = {**whole, "train": train}  # the warm start sees no more than this either
    if run.titles_only:
        catalogue = Catalogue(tuple(Movie(m.id, m.title, m.year) for m in catalogue))
    cache = work / "cache"
    out = work / run.name
    recipe = run.recipe
    trainer = _trainer(run, catalogue, splits, out, cache, show)
    per_batch = out / BATCH
    with _clock(out / CLOCK), _steps_timed(trainer, per_batch):
        if not trainer.resume() and run.config.warm_start:
            trainer.progress.warm_start = warm_start(
                trainer.raw_model, encode_windows(splits["train"], catalogue, trainer.raw_model),
                trainer.features, catalogue, epochs=run.config.warm_start,
                read_lm=recipe.read_lm or not run.config.query_pooling,
                progress=bar_of("warm start", show),
            )  # fmt: skip
            trainer.save()
        trainer.fit()
    started = time.perf_counter()
    model = PECRS.from_pretrained(out / "best", backbone=run.config.backbone)
    model.to(trainer.accelerator.device)
    measured = measure(model, run, splits["test"], catalogue, cache, show=show)
    pruned = None
    if run.variant in (MAIN, AS_OFFICIAL):
        bar = bar_of("pruned", show)
        pruned = rank_among_mentioned(model, catalogue, whole, cache_dir=cache, progress=bar)
    history = trainer.progress.history
    return {
        "dataset": run.dataset,
        "preset": run.preset,
        "backbone": run.model,
        "variant": run.variant,
        "seed": run.seed,
        **where,
        "config": run.settings,
        "seconds": {
            "train": json.loads((out / CLOCK).read_text(encoding="utf-8")),
            "test": round(time.perf_counter() - started, 1),
        },
        "seconds_per_batch": json.loads(per_batch.read_text()) if per_batch.exists() else None,
        "n": {
            "items": len(catalogue),
            "train": min(recipe.dialogues or len(splits["train"]), len(splits["train"])),
            "warm start": len(splits["train"]) if run.config.warm_start else 0,
            "valid": min(recipe.valid or len(splits["valid"]), len(splits["valid"])),
            "test": len(splits["test"]),
            "points": len(measured["points"]["item"]),
        },
        "parameters": model.parameter_table(),
        "warm_start": rounded(trainer.progress.warm_start, 4),
        "best_epoch": trainer.progress.best_epoch,
        "history": [{k: rounded([v], 4)[0] for k, v in row.items()} for row in history],
        **measured,
        "pruned": pruned,
    }


def _trainer(
    run: Run,
    catalogue: Catalogue,
    splits: dict[str, list[Dialogue]],
    out: Path,
    cache: Path,
    show: bool,
) -> Trainer:
    train = some(splits["train"], run.recipe.dialogues, run.seed)
    valid = some(splits["valid"], run.recipe.valid, 0)
    model = PECRS.from_backbone(run.config)
    return Trainer(model, catalogue, train, valid, out, cache_dir=cache, show=show)


def some(dialogues: Sequence[Dialogue], n: int | None, seed: int) -> list[Dialogue]:
    """`n` dialogues drawn at random, in their order; all if there are no more."""
    if n is None or n >= len(dialogues):
        return list(dialogues)
    drawn = np.random.default_rng(seed).permutation(len(dialogues))[:n]
    return [dialogues[k] for k in sorted(drawn)]


@contextmanager
def _clock(path: Path) -> Iterator[None]:
    """Add the seconds spent inside to those in a file, also when interrupted."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else 0.0
    started = time.perf_counter()
    try:
        yield
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{before + time.perf_counter() - started:.1f}\n")


@contextmanager
def _steps_timed(trainer: Trainer, path: Path) -> Iterator[None]:
    """Write the median seconds of the steps trained inside to a file, validation left out."""
    marks: list[tuple[int, float]] = []  # number of a step, when it was done
    trainer.on_step = lambda step, _: marks.append((step, time.perf_counter()))
    try:
        yield
    finally:
        pairs = pairwise(marks)
        seconds = [
            after - before for (k, before), (_, after) in pairs if k % trainer.steps_per_epoch
        ]
        if seconds:
            write_whole(path, f"{float(np.median(seconds)):.3f}\n")
