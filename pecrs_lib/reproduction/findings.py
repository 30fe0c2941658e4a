"""What there is to judge a claim with, and what a judge says of it.

Comes after `tables`, before `judges`, which find, and `claims`, which lists the paper's
claims. A judge is a function of all result files and of the runs on one data set.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pecrs_lib.data import DataError, bundled
from pecrs_lib.evaluation import Predictions
from pecrs_lib.reproduction.evidence import (
    FAILS,
    HOLDS,
    OPEN,
    Record,
    Results,
    gain,
    predictions,
    ranks_of,
    verdict,
)
from pecrs_lib.reproduction.runs import read_runs
from pecrs_lib.reproduction.tables import NAMES

MISSING, UNTESTED = "not run", "not tested here"
VERDICTS = (HOLDS, FAILS, OPEN, MISSING, UNTESTED)
JUDGED = VERDICTS[:3]
# result files beside those of the runs
OTHERS = ("zero_shot", "decoding", "fusion_inspired", "fusion_redial")


@dataclass(frozen=True)
class Files:
    """Every result file, and the runs by data set.

    Attributes:
        runs: of `runs.read_runs`.
        others: `OTHERS` that are there, by name.
        columns: name of a data set -> its results; with preset and backbone in the name where a
            data set has runs of several. Without runs, results are empty.
    """

    runs: Mapping[str, Record]
    others: Mapping[str, Record]
    columns: Mapping[str, Results]

    @classmethod
    def of(cls, runs: Mapping[str, Record], others: Mapping[str, Record] | None = None) -> Files:
        """Sort files into data sets; runs whose data file is missing are left out."""
        settings = dict.fromkeys(
            (r["dataset"], r["preset"], r["backbone"]) for r in runs.values() if "variant" in r
        )
        columns: dict[str, Results] = {}
        for dataset, name in NAMES.items():
            data = runs.get(f"{dataset}-data")
            mine = [s for s in settings if s[0] == dataset and data]
            for setting in mine:
                label = name if len(mine) == 1 else f"{name} ({', '.join(setting[1:])})"
                columns[label] = Results.of(runs, *setting)
            if not mine:
                columns[name] = Results(dataset, data or {}, {})
        return cls(runs, others or {}, columns)

    def names(self, records: Iterable[Record]) -> tuple[str, ...]:
        """Which files some records come from."""
        known = {id(record): f"runs/{name}.json" for name, record in self.runs.items()}
        return tuple(dict.fromkeys(known[id(r)] for r in records if id(r) in known))


def read_files(folder: Path | None = None, runs: Path | None = None) -> Files:
    """Read result files; default: the package's.

    Args:
        folder: of `OTHERS`.
        runs: of the runs; default: ``runs`` in `folder`.

    Raises:
        DataError: a file is damaged.
    """
    folder = bundled("results") if folder is None else folder
    others: dict[str, Any] = {}
    for name in OTHERS:
        path = folder / f"{name}.json"
        if path.exists():
            try:
                others[name] = json.loads(path.read_text(encoding="utf-8"))
            except json.JSONDecodeError as error:
                raise DataError(f"not a result file: {error}", path=path) from error
    return Files.of(read_runs(runs or folder / "runs"), others)


@dataclass(frozen=True)
class Finding:
    """What the files say of a claim.

    Attributes:
        verdict: one of `VERDICTS`.
        paper: the paper's number, NaN where it prints none.
        ours, low, high: ours and its 95 % interval, NaN where there is none.
        n: points it is taken over.
        seeds: how many runs of it.
        files: where it comes from.
        novel: the same on novel targets alone, where that makes sense.
        note: one sentence that a reader needs to take it rightly.
    """

    verdict: str
    paper: float = np.nan
    ours: float = np.nan
    low: float = np.nan
    high: float = np.nan
    n: int = 0
    seeds: int = 0
    files: tuple[str, ...] = ()
    novel: Record | None = None
    note: str = ""

    @property
    def has_interval(self) -> bool:
        return self.verdict in JUDGED and bool(np.isfinite(self.low))


Judge = Callable[[Files, Results], Finding | None]  # None: what it needs was not run


def finding(
    judged: str, paper: float, found: Record, files: tuple[str, ...], **more: Any
) -> Finding:
    """A row of `evidence.cell` or `evidence.gain` with its verdict."""
    numbers = {k: found[k] for k in ("ours", "low", "high", "n")}
    return Finding(judged, paper, **numbers, seeds=len(found["seeds"]), files=files, **more)


def recall_difference(
    files: Files,
    paper: float,
    of: Sequence[Record],
    against: Sequence[Record],
    *,
    ranks: Callable[[Record], Predictions] = ranks_of,
    ranks_against: Callable[[Record], Predictions] = ranks_of,
    k: int = 50,
    sized: bool = True,
    note: str = "",
) -> Finding | None:
    """Recall@k of some runs minus that of others, paired by seed; None where either is missing.

    Args:
        paper: its difference, or its sign alone where not `sized`.
    """
    if not of or not against:
        return None
    a, b = [ranks(r) for r in of], [ranks_against(r) for r in against]
    found = gain(a, b, k)
    judged = verdict(paper, found, sized=sized)
    printed = paper if sized else np.nan
    novel = gain(a, b, k, "novel")
    names = files.names([*of, *against])
    return finding(judged, printed, found, names, novel=novel, note=note)


def ranked(run: Record, ranks: Sequence[int | None]) -> Predictions:
    """Other ranks of a run, on its points."""
    return predictions(run["points"], ranks, run["points"]["top1"], "PECRS")


def same_seeds(a: Sequence[Record], b: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The runs of both whose seed the other has, too, in its order."""
    both = sorted({r["seed"] for r in a} & {r["seed"] for r in b})
    of, against = ({r["seed"]: r for r in runs} for runs in (a, b))
    return [of[seed] for seed in both], [against[seed] for seed in both]


def weakest(found: Mapping[str, Finding | None]) -> Finding | None:
    """Of several comparisons that a claim makes at once, the one that supports it least.

    So a claim holds only if all of them do, and does not if one does not.
    """
    known = {name: f for name, f in found.items() if f is not None}
    if not known:
        return None
    order = [FAILS, OPEN, UNTESTED, MISSING, HOLDS]
    name, least = min(
        known.items(), key=lambda pair: (order.index(pair[1].verdict), _ahead(pair[1]))
    )
    if len(known) == 1:
        return least
    counts = pd.Series([f.verdict for f in known.values()]).value_counts(sort=False)
    parts = ", ".join(f"{count} {judged}" for judged, count in counts.items())
    note = f"{len(known)} comparisons ({parts}); shown is the least favourable: {name}."
    return replace(least, note=f"{note} {least.note}".strip())


def _ahead(found: Finding) -> float:
    """How far on the claim's side of zero the less favourable bound is."""
    bounds = np.array([found.low, found.high])
    ahead = float((bounds if not found.paper < 0 else -bounds).min())
    return ahead if np.isfinite(ahead) else -np.inf
