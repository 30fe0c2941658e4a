"""A run of the reproduction carried out: trained, then measured on the test part once.

Comes after `runs` and `assessment`. The epoch is chosen on validation dialogues alone; the test
part is read after training. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from pecrs_lib.assessment import (
    Conversation,
    converse,
    item_vectors,
    predictions_of,
    rank_dialogues,
)
from pecrs_lib.baselines import fit_baselines
from pecrs_lib.data import Catalogue, Dialogue, Movie, describe
from pecrs_lib.evaluation import Predictions, predict
from pecrs_lib.items import FIELDS
from pecrs_lib.metrics import rouge
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import Ranked, encode_windows
from pecrs_lib.pruning import rank_among_mentioned
from pecrs_lib.runs import MAIN, Run, machine, rounded
from pecrs_lib.training import Trainer
from pecrs_lib.variants import AS_OFFICIAL
from pecrs_lib.warmstart import warm_start

Corpus = tuple[Catalogue, dict[str, list[Dialogue]]]
Bar = Callable[[Iterable[Any]], Iterable[Any]]
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
                progress=_bar("warm start", show),
            )  # fmt: skip
            trainer.save()
        trainer.fit()
    started = time.perf_counter()
    model = PECRS.from_pretrained(out / "best", backbone=run.config.backbone)
    model.to(trainer.accelerator.device)
    measured = measure(model, run, splits["test"], catalogue, cache, show=show)
    pruned = None
    if run.variant in (MAIN, AS_OFFICIAL):
        bar = _bar("pruned", show)
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


def _bar(description: str, show: bool) -> Bar:
    return lambda parts: tqdm(parts, desc=description, leave=False, disable=not show)


@contextmanager
def _clock(path: Path) -> Iterator[None]:
    """Add the seconds spent inside to those in a file, also when interrupted."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else 0.0
    started = time.perf_counter()
    try:
        yield
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{before + time.perf_counter() - started:.1f}\n", encoding="utf-8")


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
            path.write_text(f"{float(np.median(seconds)):.3f}\n", encoding="utf-8")


def measure(
    model: PECRS,
    run: Run,
    test: Sequence[Dialogue],
    catalogue: Catalogue,
    cache: Path | None = None,
    *,
    show: bool = True,
) -> dict[str, Any]:
    """Everything the tables need of a trained model, per data point and response.

    ``points`` and ``responses`` are columns; ``rank_within`` holds the ranks for every smaller
    M_inference, ``rank_without``, in main runs, those with an item field pruned (Table 6).
    """
    recipe = run.recipe
    smaller = [m for m in recipe.m_inference if m < model.config.candidates]

    def ranked(name: str, within: Sequence[int] = (), **texts: Any) -> Ranked:
        v = item_vectors(model, catalogue, cache_dir=cache, **texts)
        bar = _bar(name, show)
        return rank_dialogues(model, test, catalogue, v, within=within, progress=bar)

    def ranks(found: Ranked, rank: Any) -> list[int | None]:
        of = predictions_of(replace(found, rank=rank), test, catalogue)
        return ints(of.rank)

    full = ranked("test", smaller)
    found = predictions_of(full, test, catalogue)
    pruned = {}
    if run.variant == MAIN and recipe.prune:
        for field in FIELDS:
            others = ranked(f"without {field}", fields=[f for f in FIELDS if f != field])
            pruned[field] = ranks(others, others.rank)
    return {
        "points": points_of(found)
        | {
            "rank": ints(found.rank),
            "retrieval_rank": ranks(full, full.retrieval_rank),
            "top1": found.top1.tolist(),
        },
        "rank_within": {str(m): ranks(full, full.rank_within[m]) for m in smaller},
        "rank_without": pruned,
        "responses": {
            "dialogue": full.response_dialogue.tolist(),
            "turn": full.response_utterance.tolist(),
            "nll": rounded(full.nll.tolist()),
            "tokens": full.tokens.tolist(),
        },
        "replies": _replies(model, run, test, catalogue, cache, show),
    }


def _replies(
    model: PECRS,
    run: Run,
    test: Sequence[Dialogue],
    catalogue: Catalogue,
    cache: Path | None,
    show: bool,
) -> dict[str, Any] | None:
    answered = test[: run.recipe.replies]
    if not answered:
        return None
    v = item_vectors(model, catalogue, cache_dir=cache)
    bar = _bar("replies", show)
    told = converse(model, answered, catalogue, v, seed=run.seed, progress=bar)
    return reply_record(told)


def reply_record(told: Conversation) -> dict[str, Any]:
    """Metrics of the replies, and of each what the bootstrap needs; no words."""
    pairs = zip(told.replies, told.references, strict=True)
    scores = [rouge([reply.raw], [reference]) for reply, reference in pairs]
    return {
        "n": len(told.replies),
        "metrics": {k: round(v, 4) for k, v in told.metrics().items()},
        "dialogue": told.dialogue,
        "turn": told.turn,
        "rouge1": rounded([s["rouge1"] for s in scores], 1),
        "rouge2": rounded([s["rouge2"] for s in scores], 1),
        "says": [int(reply.recommended is not None) for reply in told.replies],
        "due": [int(due) for due in told.recommends],
    }


def ints(ranks: np.ndarray) -> list[int | None]:
    """Ranks for a file; None for a target outside the catalogue."""
    return [int(r) if np.isfinite(r) else None for r in ranks]


def points_of(found: Predictions) -> dict[str, list[Any]]:
    """Which points predictions are of, as columns for a file."""
    return {
        "dialogue": found.dialogue.tolist(),
        "turn": found.turn.tolist(),
        "item": found.item.tolist(),
        "novel": found.novel.astype(int).tolist(),
    }


def data_record(dataset: str, corpus: Corpus) -> dict[str, Any]:
    """What the tables need of the data: counts, genres, and the baselines' ranks on the test."""
    catalogue, splits = corpus
    systems = fit_baselines(splits["train"], catalogue)
    predictions = [predict(system, splits["test"], catalogue) for system in systems]
    everything = [d for part in splits.values() for d in part]
    return {
        "dataset": dataset,
        **machine(),
        "statistics": describe(everything, catalogue).to_json(),
        "n": {part: len(dialogues) for part, dialogues in splits.items()},
        "items": [movie.id for movie in catalogue],
        "genre": [movie.genres[0] if movie.genres else "" for movie in catalogue],
        "points": points_of(predictions[0]),
        "baselines": {p.name: {"rank": ints(p.rank), "top1": p.top1.tolist()} for p in predictions},
    }


def clear_accelerator() -> None:
    """Give back what a finished run held on the GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
