"""What the file of a run holds of the test part, and the file of the data beside it.

Comes after `runs` and `assessment`, before `running`, which calls it once a model is trained.
Numbers per data point and per response, and catalogue ids; no sentence of a corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from pecrs_lib.assessment import (
    Conversation,
    converse,
    item_vectors,
    predictions_of,
    rank_dialogues,
)
from pecrs_lib.baselines import Popularity, fit_baselines
from pecrs_lib.data import Catalogue, Dialogue, describe
from pecrs_lib.evaluation import Predictions, predict
from pecrs_lib.items import FIELDS
from pecrs_lib.metrics import rouge
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import Ranked
from pecrs_lib.reproduction.runs import MAIN, Run, machine, rounded

Corpus = tuple[Catalogue, dict[str, list[Dialogue]]]
Bar = Callable[[Iterable[Any]], Iterable[Any]]


def bar_of(description: str, show: bool) -> Bar:
    """What wraps the parts of some work, to show how far it is."""
    return lambda parts: tqdm(parts, desc=description, leave=False, disable=not show)


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
        bar = bar_of(name, show)
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
            "confidence": confidence_of(full, found),
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
    bar = bar_of("replies", show)
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


def confidence_of(ranked: Ranked, found: Predictions) -> list[float | None]:
    """How sure the model was of the film it ranked first, for every point of `found`; None where
    the catalogue has no target of the turn.
    """
    keys = zip(ranked.dialogue.tolist(), ranked.utterance.tolist(), strict=True)
    sure = dict(zip(keys, rounded(ranked.confidence.tolist(), 4), strict=True))
    turns = zip(found.dialogue.tolist(), found.turn.tolist(), strict=True)
    return [sure.get(turn) for turn in turns]


def points_of(found: Predictions) -> dict[str, list[Any]]:
    """Which points predictions are of, as columns for a file."""
    return {
        "dialogue": found.dialogue.tolist(),
        "turn": found.turn.tolist(),
        "item": found.item.tolist(),
        "novel": found.novel.astype(int).tolist(),
    }


def data_record(dataset: str, corpus: Corpus) -> dict[str, Any]:
    """What the tables need of the data: counts, genres, how often recommenders name each item in
    training, and the baselines' ranks on the test.
    """
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
        "popularity": Popularity().fit(splits["train"], catalogue).counts.astype(int).tolist(),
        "genre": [movie.genres[0] if movie.genres else "" for movie in catalogue],
        "points": points_of(predictions[0]),
        "baselines": {p.name: {"rank": ints(p.rank), "top1": p.top1.tolist()} for p in predictions},
    }
