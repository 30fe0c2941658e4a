"""What language models recommend, and how surely their replies are read.

After `asking`: three findings that recall alone hides (films the conversation has named
already, popular films, titles outside the catalogue), each with an interval over dialogues, for
language models and for anything else that makes lists; and precision and recall of the
`TitleMatcher` on fragments of replies labelled by hand.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from pecrs_lib.baselines import Recommender
from pecrs_lib.data import Catalogue, DataError, Dialogue
from pecrs_lib.metrics import bootstrap_means
from pecrs_lib.zero_shot.asking import Turn
from pecrs_lib.zero_shot.titles import TitleMatcher, substring_hit

Lists = Mapping[Turn, Sequence[int]]  # catalogue rows, best first; -1 = outside the catalogue


@dataclass(frozen=True)
class Share:
    """A share of list places in percent, with its 95 % interval over dialogues."""

    value: float
    low: float
    high: float
    n: int  # places


def top_lists(
    system: Recommender, dialogues: Sequence[Dialogue], turns: Sequence[Turn], k: int
) -> dict[Turn, list[int]]:
    """The first `k` films of a system at each turn, best first; ties in catalogue order."""
    found = {}
    for d, t in turns:
        scores = system.scores(Dialogue(dialogues[d].id, dialogues[d].utterances[:t]))
        found[d, t] = np.argsort(-scores, kind="stable")[:k].tolist()
    return found


def head(counts: ArrayLike, share: float = 0.05) -> set[int]:
    """Rows of the most recommended `share` of a catalogue of N films, by their counts (N,)."""
    known = np.asarray(counts, dtype=float)
    if not 0 < share <= 1:
        raise ValueError(f"a share of the catalogue is in (0, 1], got {share}")
    order = np.argsort(-known, kind="stable")
    return set(order[: max(1, round(share * len(known)))].tolist())


def repeated(lists: Lists, dialogues: Sequence[Dialogue], catalogue: Catalogue, k: int) -> Share:
    """Of the first `k` places, those with a film that the dialogue has named before."""

    def named(turn: Turn, row: int) -> bool:
        return row >= 0 and catalogue[row].id in dialogues[turn[0]].mentioned_before(turn[1])

    return _share(lists, k, named)


def popular(lists: Lists, rows: set[int], k: int) -> Share:
    """Of the catalogue films on the first `k` places, those in `rows`, such as the `head`."""
    inside = {turn: [row for row in listed[:k] if row >= 0] for turn, listed in lists.items()}
    return _share(inside, k, _in(rows))


def outside(lists: Lists, k: int) -> Share:
    """Of the first `k` places, those with a title that the catalogue does not have."""
    return _share(lists, k, lambda _, row: row < 0)


def popularity_bands(
    lists: Lists, counts: ArrayLike, k: int, edges: Sequence[float] = (0.01, 0.05, 0.2)
) -> dict[str, Share]:
    """Where the first `k` places come from, from the most popular films down to none of ours.

    The catalogue, ordered by `counts` (N,), is cut after each share in `edges`; what no catalogue
    film fills is the last band. The values add up to 100.
    """
    known = np.asarray(counts, dtype=float)
    if not all(a < b for a, b in pairwise((0, *edges, 1))):
        raise ValueError(f"edges must rise between 0 and 1, got {tuple(edges)}")
    cuts = [round(edge * len(known)) for edge in edges]
    parts = np.split(np.argsort(-known, kind="stable"), cuts)
    ends = [f"{100 * edge:g}" for edge in edges]
    names = [f"top {ends[0]} %", *(f"{a} to {b} %" for a, b in pairwise(ends)), "the rest"]
    found = {
        name: _share(lists, k, _in(set(part.tolist())))
        for name, part in zip(names, parts, strict=True)
    }
    return found | {"not in the catalogue": outside(lists, k)}


def _in(rows: set[int]) -> Callable[[Turn, int], bool]:
    return lambda _, row: row in rows


def _share(
    lists: Lists, k: int, holds: Callable[[Turn, int], bool], samples: int = 2000, seed: int = 0
) -> Share:
    places = [(turn, row) for turn, listed in lists.items() for row in listed[:k]]
    if not places:
        return Share(float("nan"), float("nan"), float("nan"), 0)
    values = np.array([holds(turn, row) for turn, row in places], dtype=float)  # (P,)
    groups = np.array([turn[0] for turn, _ in places], dtype=np.int64)  # (P,)
    means = bootstrap_means(groups, values[:, None], samples, seed)[:, 0]
    low, high = 100 * np.quantile(means, (0.025, 0.975))
    return Share(100 * float(values.mean()), float(low), float(high), len(places))


@dataclass(frozen=True, slots=True)
class Labelled:
    """A fragment of a reply, and the catalogue films it names according to a person.

    `films` are names with years; a tuple inside it holds films that are equally right.
    """

    sample: str
    fragment: str
    films: tuple[tuple[str, ...], ...]


def read_labels(path: str | Path) -> list[Labelled]:
    """Read ``sample,model,fragment,films``; ``;`` separates films, ``|`` those equally right."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = {"sample", "fragment", "films"} - set(reader.fieldnames or ())
        if missing:
            raise DataError(f"columns missing: {sorted(missing)}", path=path, line=1)
        return [
            Labelled(
                row["sample"],
                row["fragment"],
                tuple(tuple(film.split("|")) for film in row["films"].split(";") if film),
            )
            for row in reader
        ]


@dataclass(frozen=True)
class Agreement:
    """How found films agree with labelled ones; rates in percent, NaN for 0/0."""

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        found = self.right + self.wrong
        return 100 * self.right / found if found else float("nan")

    @property
    def recall(self) -> float:
        there = self.right + self.missed
        return 100 * self.right / there if there else float("nan")


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of `hits` in `n` independent trials, in percent (Wilson, 1927).

    Unlike a bootstrap's it has a width where all or none of the trials hit. NaN for no trials.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"0 <= hits <= n is needed, got {hits} of {n}")
    if not n:
        return math.nan, math.nan
    share, extra = hits / n, z * z / n
    middle = (share + extra / 2) / (1 + extra)
    half = z * math.sqrt(share * (1 - share) / n + extra / (4 * n)) / (1 + extra)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def agreement(find: Callable[[Labelled], Sequence[str]], labelled: Sequence[Labelled]) -> Agreement:
    """Count films that `find` names rightly, wrongly and not at all, over all fragments."""
    right = wrong = missed = 0
    for label in labelled:
        found = list(dict.fromkeys(find(label)))
        hit = [film for film in found if any(film in equal for equal in label.films)]
        reached = sum(any(film in equal for film in found) for equal in label.films)
        right, wrong = right + reached, wrong + len(found) - len(hit)
        missed += len(label.films) - reached
    return Agreement(right, wrong, missed)


def found_by(matcher: TitleMatcher) -> Callable[[Labelled], list[str]]:
    """The names that a matcher finds in a fragment: of a list entry, or in running text."""

    def find(label: Labelled) -> list[str]:
        running = label.sample.startswith("text")
        read = matcher.in_text if running else lambda entry: matcher.titles([entry])
        return [matcher.catalogue[t.row].name for t in read(label.fragment) if t.row is not None]

    return find


def found_by_substring(catalogue: Catalogue) -> Callable[[Labelled], list[str]]:
    """The names of all films whose title is a substring of the fragment: the naive test."""
    return lambda label: [m.name for m in catalogue if substring_hit(m.title, label.fragment)]
