"""Five recommenders without a neural network: what any model must beat, and often does not.

Beside `model.py` in the flow: same input (a dialogue up to a turn), same output (a score per
catalogue item), judged by `evaluation.py`. The paper compares with neural systems only; on
INSPIRED `MentionedThenPopular` is above every row of its Table 2 at every k.

Each is fitted on training dialogues and scores a `Dialogue` that holds only what was said before
the turn. A mention of an item that the catalogue lacks is ignored, in training and in the history:
it can be neither recommended nor counted. Higher scores are better and only their order has a
meaning; where the main signal ties, the films recommended more often in training come first, and
what still ties is left to the evaluation's rule (catalogue order).
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

import bm25s
import numpy as np
from numpy.typing import NDArray

from pecrs_lib.data import Catalogue, Dialogue, Movie

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

logging.getLogger("bm25s").setLevel(logging.WARNING)  # importing it asks for everything


class Recommender(Protocol):
    """All that `evaluation.predict` needs: a name for the tables, and scores."""

    @property
    def name(self) -> str: ...

    def scores(self, history: Dialogue) -> Floats:
        """(N,) scores, higher is better, given the utterances before the turn to recommend at."""
        ...


@dataclass
class Random:
    """A random order. The floor: R@k is k / N of the points, whatever was said.

    The order depends on the seed, the dialogue's id and the turn, not on which was asked first.
    """

    seed: int = 0
    name: ClassVar[str] = "Random"

    def fit(self, dialogues: Sequence[Dialogue], catalogue: Catalogue) -> Self:
        self.size = len(catalogue)
        return self

    def scores(self, history: Dialogue) -> Floats:
        key = zlib.crc32(history.id.encode())  # not hash(): Python salts it per process
        return np.random.default_rng([self.seed, key, len(history)]).random(self.size)


@dataclass
class Popularity:
    """How often recommenders mention the item in training, every mention counted."""

    counts: Floats = field(init=False, repr=False)  # (N,)
    name: ClassVar[str] = "Popularity"

    def fit(self, dialogues: Sequence[Dialogue], catalogue: Catalogue) -> Self:
        said = [u for d in dialogues for u in d.utterances if u.role == "recommender"]
        rows = [catalogue.row[m.item] for u in said for m in u.mentions if m.item in catalogue]
        counts = np.bincount(np.array(rows, dtype=np.int64), minlength=len(catalogue))
        self.counts = counts.astype(np.float64)
        return self

    def scores(self, history: Dialogue) -> Floats:
        return self.counts.copy()


@dataclass
class MentionedThenPopular:
    """The films this dialogue has named, by either speaker, latest first; then the popular ones.

    No recommender in the everyday sense, but a test of the data: people keep talking about a film,
    and each time the recommender says its name counts as a recommendation.
    """

    name: ClassVar[str] = "Mentioned, then popular"

    def fit(self, dialogues: Sequence[Dialogue], catalogue: Catalogue) -> Self:
        self.catalogue = catalogue
        self.popularity = Popularity().fit(dialogues, catalogue).counts
        return self

    def scores(self, history: Dialogue) -> Floats:
        rows = _mentioned(history, self.catalogue)
        latest = np.zeros(len(self.catalogue))  # (N,): 0 = never, larger = later
        np.maximum.at(latest, rows, np.arange(1, len(rows) + 1))
        return _then(latest, self.popularity)


@dataclass
class CoOccurrence:
    """Films that share training dialogues with the films mentioned here.

    The score of j is Σ_i c(i, j) over the distinct films i mentioned so far, where c(i, j) is the
    number of training dialogues in which both are mentioned, by anyone; c(i, i) = 0. Chosen over
    c(i, j) / c(i) and c(i, j) / √(c(i) c(j)) on INSPIRED's training dialogues by cross-validation.
    """

    name: ClassVar[str] = "Co-occurrence"

    def fit(self, dialogues: Sequence[Dialogue], catalogue: Catalogue) -> Self:
        self.catalogue = catalogue
        self.popularity = Popularity().fit(dialogues, catalogue).counts
        baskets = [np.unique(_mentioned(d, catalogue)) for d in dialogues]
        size = np.array([len(basket) for basket in baskets], dtype=np.int64)
        items = np.concatenate([np.empty(0, np.int64), *baskets])  # (E,) one entry per membership
        # Pair every entry with every entry of its dialogue: the pairs of entry e are the `width[e]`
        # entries from `start[e]` on. ReDial has 0.3 M pairs; a dense (N, N) table has 48 M cells.
        width = np.repeat(size, size)  # (E,)
        start = np.repeat(np.cumsum(size) - size, size)  # (E,)
        within = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)
        left = np.repeat(items, width)
        right = items[np.repeat(start, width) + within]
        n = len(catalogue)
        pairs, counts = np.unique((left * n + right)[left != right], return_counts=True)
        self.others, self.counts = pairs % n, counts * 1.0
        self.first = np.searchsorted(pairs // n, np.arange(n + 1))  # (N + 1,) row i: [i], [i + 1]
        return self

    def together(self, history: Dialogue) -> Floats:
        """(N,) Σ_i c(i, j), without the tie-break."""
        rows = np.unique(_mentioned(history, self.catalogue))
        pick = [np.arange(self.first[i], self.first[i + 1]) for i in rows]
        cells = np.concatenate([np.empty(0, np.int64), *pick])
        found = np.bincount(self.others[cells], self.counts[cells], len(self.catalogue))
        return found.astype(np.float64)

    def scores(self, history: Dialogue) -> Floats:
        return _then(self.together(history), self.popularity)


@dataclass
class BM25:
    """Lexical search: item texts are the documents, all the words of the history the query.

    Okapi BM25 as in Lucene, k1 = 1.5, b = 0.75, English stop words dropped: the defaults of
    ``bm25s``. Item texts come from the catalogue alone; training serves popularity only, which
    ranks the items without a word in common with the history. A catalogue in which no item has a
    word raises ValueError.
    """

    name: ClassVar[str] = "BM25"

    def fit(self, dialogues: Sequence[Dialogue], catalogue: Catalogue) -> Self:
        self.popularity = Popularity().fit(dialogues, catalogue).counts
        documents = [_words(_text(movie)) for movie in catalogue]
        if not any(documents):
            raise ValueError(f"none of the {len(catalogue)} items has a word to search for")
        self.index = bm25s.BM25(k1=1.5, b=0.75, method="lucene", dtype="float64")
        self.index.index(documents, show_progress=False)
        return self

    def scores(self, history: Dialogue) -> Floats:
        query = _words(" ".join(utterance.text for utterance in history.utterances))
        lexical = self.index.get_scores(query) if query else np.zeros(len(self.popularity))
        return _then(lexical, self.popularity)


BASELINES = (Random, Popularity, MentionedThenPopular, CoOccurrence, BM25)


def fit_baselines(
    train: Sequence[Dialogue], catalogue: Catalogue, seed: int = 0
) -> list[Random | Popularity | MentionedThenPopular | CoOccurrence | BM25]:
    """The five of `BASELINES` in the order of the tables, fitted; `seed` is that of `Random`."""
    unfitted = (Random(seed), *(baseline() for baseline in BASELINES[1:]))
    return [baseline.fit(train, catalogue) for baseline in unfitted]


def _mentioned(dialogue: Dialogue, catalogue: Catalogue) -> Ints:
    """Catalogue rows of all mentions in the order of the dialogue, repeats included."""
    mentions = (mention for u in dialogue.utterances for mention in u.mentions)
    rows = [catalogue.row[mention.item] for mention in mentions if mention.item in catalogue]
    return np.array(rows, dtype=np.int64)


def _then(first: Floats, second: Floats) -> Floats:
    """(N,) scores in the order of `first`, ties in the order of `second`; ties in both stay ties.

    Dense ranks, not ``first + ε · second``: no ε is small enough for every pair of floats.
    """
    major = np.unique(first, return_inverse=True)[1]
    values, minor = np.unique(second, return_inverse=True)
    return (major * len(values) + minor).astype(np.float64)


def _text(movie: Movie) -> str:
    parts = (movie.title, *movie.actors, *movie.directors, *movie.genres, movie.plot)
    return " ".join(parts)


def _words(text: str) -> list[str]:
    return list(bm25s.tokenize([text], return_ids=False, show_progress=False)[0])
