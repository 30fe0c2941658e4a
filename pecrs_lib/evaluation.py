"""Which points are measured, where each system ranks their targets, and how sure the numbers are.

The end of the flow before `figures.py`; knows no model, only scores over the catalogue. Recall@k
and Unique are those of the paper's section 4.1, taken over the *whole* catalogue. Two additions
stand in every table: the points whose target nobody had mentioned before ("novel"), since repeating
a film is not recommending it, and 95 % bootstrap intervals over dialogues, since the points of
one dialogue are not independent.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pecrs_lib.baselines import Recommender
from pecrs_lib.data import Catalogue, DataError, Dialogue
from pecrs_lib.data.storage import whole_file
from pecrs_lib.metrics import bootstrap_means, recall_at_k, rule_of_three, unique_items

Targets = Literal["all", "novel"]
Floats = NDArray[np.float64]
_BOUNDS = (0.025, 0.975)  # of a 95 % percentile interval


@dataclass(frozen=True, slots=True)
class Point:
    """A recommender's utterance `turn` of dialogue `dialogue` (both 0-based) mentions `item`.

    `novel`: neither speaker had mentioned it in an earlier utterance.
    """

    dialogue: int
    turn: int
    item: str
    novel: bool


def recommendation_points(dialogues: Sequence[Dialogue]) -> list[Point]:
    """One point per mention in a recommender's utterance, in the order of the dialogues.

    As the paper makes them (280 on INSPIRED's test set): an item named twice in one utterance is
    two points.
    """
    # DEVIATION: the official code has no point for the first utterance of a dialogue (279 points).
    return [
        Point(d, turn, mention.item, mention.item not in before)
        for d, dialogue in enumerate(dialogues)
        for turn, utterance in enumerate(dialogue.utterances)
        if utterance.role == "recommender" and utterance.mentions
        for before in [dialogue.mentioned_before(turn)]
        for mention in utterance.mentions
    ]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one system did on each of P points; row p of every array is point p."""

    name: str
    dialogue: NDArray[np.int64]  # (P,) index of the dialogue, the unit of the bootstrap
    turn: NDArray[np.int64]  # (P,)
    item: NDArray[np.str_]  # (P,) id of the target
    novel: NDArray[np.bool_]  # (P,)
    rank: Floats  # (P,) of the target, 1 = best, inf = not in the catalogue
    top1: NDArray[np.int64]  # (P,) catalogue row of the item ranked first, -1 = none

    def __post_init__(self) -> None:
        shapes = {f.name: getattr(self, f.name).shape for f in fields(self) if f.name != "name"}
        if len(set(shapes.values())) != 1 or self.rank.ndim != 1:
            raise ValueError(f"predictions of {self.name!r} need (P,) arrays, got {shapes}")
        if not (self.rank >= 1).all():  # false for NaN as well
            raise ValueError(f"ranks of {self.name!r} start at 1, got {self.rank.min()}")

    @classmethod
    def at(cls, name: str, points: Sequence[Point], rank: ArrayLike, top1: ArrayLike) -> Self:
        """From the points and, in their order, ranks and what is ranked first, (P,) each."""
        return cls(
            name=name,
            dialogue=np.array([point.dialogue for point in points], dtype=np.int64),
            turn=np.array([point.turn for point in points], dtype=np.int64),
            item=np.array([point.item for point in points], dtype=np.str_),
            novel=np.array([point.novel for point in points], dtype=np.bool_),
            rank=np.asarray(rank, dtype=np.float64),
            top1=np.asarray(top1, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.rank)

    def of(self, targets: Targets) -> Self:
        """Only the points of a target set; ``"all"`` or ``"novel"``, else ValueError."""
        if targets not in ("all", "novel"):
            raise ValueError(f"targets must be 'all' or 'novel', got {targets!r}")
        keep = self.novel | (targets == "all")
        arrays = (getattr(self, f.name)[keep] for f in fields(self)[1:])
        return type(self)(self.name, *arrays)

    def same_points(self, other: Predictions) -> bool:
        """Whether both were measured on the same targets of the same turns."""
        names = ("dialogue", "turn", "item", "novel")
        return all(np.array_equal(getattr(self, n), getattr(other, n)) for n in names)

    def save(self, path: str | Path, catalogue: Catalogue | None = None) -> None:
        """Write an ``.npz`` file: plain arrays, no pickles, and, if given, the items ranked."""
        arrays: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        if catalogue is not None:
            arrays["catalogue"] = _named(catalogue)
        with whole_file(Path(path)) as partial, partial.open("wb") as file:  # no ".npz" appended
            np.savez_compressed(file, **(arrays | {"item": self.item.astype(np.str_)}))

    @classmethod
    def load(cls, path: str | Path, catalogue: Catalogue | None = None) -> Self:
        """Read what `save` wrote; a damaged file and wrong fields raise DataError with the path.

        So do, if a catalogue is given, ranks over other items, or a file that does not say.
        """
        try:
            with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                values = {name: file[name] for name in file.files}
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, AttributeError) as error:
            raise DataError(f"not saved predictions: {error}", path=path) from error
        over = str(values.pop("catalogue", "items it does not name (an older file: save it anew)"))
        if set(values) != {f.name for f in fields(cls)}:
            raise DataError(f"not saved predictions, its arrays are {[*values]}", path=path)
        if catalogue is not None and over != _named(catalogue):
            raise DataError(f"ranks over {over}, here over {_named(catalogue)}", path=path)
        return cls(**{**values, "name": str(values["name"])})


def _named(catalogue: Catalogue) -> str:
    """What tells the items of a catalogue from others, in any order."""
    ids = json.dumps(sorted(catalogue.row)).encode()
    return f"{len(catalogue)} items with ids {hashlib.sha256(ids).hexdigest()[:12]}"


def ranks_from_scores(scores: Floats, targets: NDArray[np.int64]) -> Floats:
    """Rank of a target among all N items: scores (P, N), catalogue rows (P,) → (P,), 1 = best.

    Ties are broken by catalogue order: of equal scores the lower row comes first, the order in
    which a stable sort lists them. It needs no randomness and never favours the target, unlike
    "count the strictly better", which gives a constant score R@1 = 100 %. Its price: a catalogue in
    another order moves the targets that tie (on INSPIRED popularity's R@50 by 0.4 points).

    A target row of -1, not in the catalogue, has rank inf. NaN scores, an empty catalogue and rows
    outside [-1, N) raise ValueError.
    """
    if scores.ndim != 2 or targets.shape != scores.shape[:1] or not scores.shape[1]:
        raise ValueError(f"(P, N) scores and (P,) rows: got {scores.shape}, {targets.shape}")
    if np.isnan(scores).any():
        p, j = np.argwhere(np.isnan(scores))[0]
        raise ValueError(f"the score of point {p} and item row {j} is NaN")
    known = targets >= 0
    if (targets < -1).any() or (targets >= scores.shape[1]).any():
        raise ValueError(f"target rows must be in [-1, {scores.shape[1]}), got {targets}")
    own = np.take_along_axis(scores, np.where(known, targets, 0)[:, None], axis=1)  # (P, 1)
    earlier = np.arange(scores.shape[1]) < targets[:, None]  # (P, N)
    ahead = (scores > own).sum(axis=1) + ((scores == own) & earlier).sum(axis=1)  # (P,)
    return np.where(known, ahead + 1.0, np.inf)


def predict(
    system: Recommender, dialogues: Sequence[Dialogue], catalogue: Catalogue
) -> Predictions:
    """Rank the target of every recommendation point with any object that has `name` and `scores`.

    `scores` is called once per turn with points, with the utterances before that turn and nothing
    else, and must return (N,) without NaN (ValueError otherwise).
    """
    points = recommendation_points(dialogues)
    ranks, firsts = [np.empty(0)], [np.empty(0, np.int64)]
    for (d, turn), group in groupby(points, key=lambda point: (point.dialogue, point.turn)):
        history = Dialogue(dialogues[d].id, dialogues[d].utterances[:turn])
        scores = np.asarray(system.scores(history))
        if scores.shape != (len(catalogue),):
            raise ValueError(
                f"{system.name!r} gave scores of shape {scores.shape} for turn {turn} of dialogue "
                f"{dialogues[d].id!r} and {len(catalogue)} items"
            )
        targets = np.array([catalogue.row.get(point.item, -1) for point in group])
        ranks.append(ranks_from_scores(np.tile(scores, (len(targets), 1)), targets))
        firsts.append(np.full(len(targets), scores.argmax()))  # the lowest row of a tie
    return Predictions.at(system.name, points, np.concatenate(ranks), np.concatenate(firsts))


def recall_table(
    predictions: Sequence[Predictions],
    k: Sequence[int] = (1, 10, 50),
    samples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Recall@k with 95 % intervals and Unique: a row per system and target set.

    Columns ``system``, ``targets`` ("all" or "novel"), ``n`` (points), then per k ``R@k``,
    ``R@k_low``, ``R@k_high`` in percent, then ``Unique``, the distinct top-1 items. An interval
    spans the 2.5 % and 97.5 % quantiles over `samples` resamples of the dialogues that have a point
    in the set; where none or all of the points hit, it is that of `rule_of_three`. All systems see
    the same resamples. A set without points has n = 0 and NaN recalls.
    """
    rows: list[dict[str, Any]] = []
    for system, targets in ((p, t) for p in predictions for t in ("all", "novel")):
        points = system.of(targets)  # type: ignore[arg-type]  # mypy widens the literals to str
        row: dict[str, Any] = {"system": system.name, "targets": targets, "n": len(points)}
        hits = points.rank[:, None] <= np.array(k)  # (P, K); False for inf
        means = bootstrap_means(points.dialogue, hits, samples, seed)  # (samples, K)
        low, high = 100 * np.quantile(means, _BOUNDS, axis=0)  # (K,), (K,)
        for i, cut in enumerate(k):
            value = recall_at_k(points.rank, cut) if len(points) else np.nan
            if value in (0, 100):
                low[i], high[i] = rule_of_three(value, len(points), 0, 100)
            row |= {f"R@{cut}": value, f"R@{cut}_low": low[i], f"R@{cut}_high": high[i]}
        rows.append(row | {"Unique": unique_items(points.top1)})
    return pd.DataFrame(rows)


def as_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """`recall_table` as plain values for a JSON file, one dict per row.

    Each ``R@k`` becomes ``{"value": …, "low": …, "high": …}``; NaN becomes None, for JSON has none.
    """
    recalls = [str(name) for name in table.columns if f"{name}_low" in table.columns]
    others = [str(name) for name in table.columns if not str(name).startswith("R@")]
    records: list[dict[str, Any]] = []
    for row in table.to_dict(orient="records"):
        plain = {name: None if pd.isna(value) else value for name, value in row.items()}
        record = {name: plain[name] for name in others}
        for name in recalls:
            low, high = plain[f"{name}_low"], plain[f"{name}_high"]
            record[name] = {"value": plain[name], "low": low, "high": high}
        records.append(record)
    return records


@dataclass(frozen=True)
class PairedDifference:
    """Recall@k of one system minus that of another on the same points, in percentage points."""

    k: int
    n: int  # points
    difference: float
    low: float
    high: float
    p_value: float  # two-sided, of no difference


def paired_bootstrap(
    a: Predictions,
    b: Predictions,
    k: int,
    targets: Targets = "all",
    samples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Does `a` recall more than `b`? Both are resampled together, so what they share cancels.

    The interval is the 95 % percentile interval over dialogues, or where ranks differ but none
    crosses k, that of `rule_of_three`; zero to zero means equal ranks. The p-value is twice the
    share of resamples on the far side of zero (zero counts as both sides), (1 + count) /
    (1 + samples), at most 1: so it is never 0, and 1 for equal systems. Different points or none
    raise ValueError.
    """
    a, b = a.of(targets), b.of(targets)
    if not a.same_points(b):
        raise ValueError(f"{a.name!r} and {b.name!r} were not measured on the same points")
    if not len(a):
        raise ValueError(f"no {targets} points to compare {a.name!r} and {b.name!r} on")
    gain = (a.rank <= k).astype(float) - (b.rank <= k)  # (P,) in {-1, 0, 1}
    means = bootstrap_means(a.dialogue, gain[:, None], samples, seed)[:, 0]  # (samples,)
    low, high = 100 * np.quantile(means, _BOUNDS)
    if not gain.any() and not np.array_equal(a.rank, b.rank):
        low, high = rule_of_three(0, len(a), -100, 100)
    tail = 1 + min(int((means <= 0).sum()), int((means >= 0).sum()))
    difference = recall_at_k(a.rank, k) - recall_at_k(b.rank, k)
    p_value = min(1.0, 2 * tail / (1 + samples))
    return PairedDifference(k, len(a), difference, float(low), float(high), p_value)
