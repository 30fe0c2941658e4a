"""Joining dialogues with a catalogue of other ids, by title and year.

Between the readers and everything else: ReDial's dialogues speak of ``75796``, the paper's item
texts of another number, INSPIRED of ``Frozen 2 (2019)``. A name matches when the titles agree
after `normalise` and the years differ by at most one; what is left is compared by spelling. A
wrong match is worse than none (it puts a film into the ground truth), so short titles match
exactly only, numbers must agree ("Saw 2" is not "Saw 3"), and a title that several films bear is
reported as ambiguous unless the year decides. The paper authors' items for ReDial have no years
and 235 titles of several films, 14 % of the mentions: for such catalogues the caller may hand in
a rule, `choose`, and the report counts what it chose separately.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal, get_args

from rapidfuzz import fuzz, process

from pecrs_lib.data.files import number
from pecrs_lib.data.schema import Catalogue, Dialogue, Movie
from pecrs_lib.data.spans import split_year

Outcome = Literal["exact", "fuzzy", "chosen", "ambiguous", "unmatched"]
Choose = Callable[[str, Sequence[Movie]], Movie | None]
MIN_FUZZY = 7  # letters and digits; below, one slip makes another film: Her/Hero, Alien/Aliens
_MATCHED: tuple[Outcome, ...] = ("exact", "fuzzy", "chosen")
_ROMAN = {"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8", "ix": "9"}


@dataclass(frozen=True)
class Match:
    """What became of one name: `rows` holds one catalogue row (matched), several, or none."""

    name: str
    outcome: Outcome
    rows: tuple[int, ...] = ()
    score: float = 100.0  # spelling similarity, 0 to 100
    item: str = ""  # the id in the dialogues, when there are dialogues
    mentions: int = 0  # how often they mention it

    @property
    def row(self) -> int | None:
        return self.rows[0] if self.outcome in _MATCHED else None


@dataclass(frozen=True)
class MatchReport:
    """One `Match` per item of the dialogues, most mentioned first."""

    matches: tuple[Match, ...]

    def of(self, outcome: Outcome) -> tuple[Match, ...]:
        return tuple(match for match in self.matches if match.outcome == outcome)

    def mentions(self, *outcomes: Outcome) -> int:
        return sum(m.mentions for m in self.matches if not outcomes or m.outcome in outcomes)

    @property
    def rate(self) -> float:
        """Share of mentions that found their item; 1 for dialogues without mentions."""
        total = self.mentions()
        return self.mentions(*_MATCHED) / total if total else 1.0

    def summary(self, examples: int = 5) -> str:
        """A few lines of text: counts per outcome, most mentioned names of each but exact."""
        lines = [f"{self.rate:.1%} of {number(self.mentions(), 'mention')} matched"]
        for outcome in get_args(Outcome):
            found = self.of(outcome)
            if not found:
                continue
            names = "; ".join(match.name or match.item for match in found[:examples])
            tail = f" ({names})" if outcome != "exact" else ""
            lines.append(
                f"{outcome:>9}: {number(len(found), 'item')}, "
                f"{number(self.mentions(outcome), 'mention')}{tail}"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, for ``json.dump``."""
        return {
            outcome: {
                "items": len(self.of(outcome)),
                "mentions": self.mentions(outcome),
                "matches": [asdict(m) for m in self.of(outcome)] if outcome != "exact" else [],
            }
            for outcome in get_args(Outcome)
        } | {"rate": self.rate}


@lru_cache(maxsize=1 << 14)  # bounded: a server reads what strangers write
def normalise(title: str) -> str:
    """A title without what people vary: case, accents, punctuation, ``&``, a moved article.

    ``"Matrix,  The"`` → ``"the matrix"``; ``"Amélie!"`` → ``"amelie"``; ``"Rocky II"`` →
    ``"rocky 2"``. A title of symbols only stays as it is, in lower case.
    """
    plain = unicodedata.normalize("NFKD", title.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    plain = re.sub(r"['’`´]", "", plain.replace("&", " and "))
    plain = re.sub(r"^(.*),\s*(the|a|an)\s*$", r"\2 \1", plain)
    words = re.findall(r"[^\W_]+", plain)
    return " ".join(_ROMAN.get(word, word) for word in words) or title.casefold().strip()


def match_titles(
    names: Sequence[str],
    catalogue: Catalogue,
    threshold: float = 90.0,
    choose: Choose | None = None,
    index: TitleIndex | None = None,
) -> list[Match]:
    """Look up names ("Up (2009)", "Matrix, The", "jumanjii") in a catalogue, one Match each.

    `threshold` is the least similarity (rapidfuzz ratio of normalised titles, 0 to 100) that
    counts as a slip of spelling; above 100 switches spelling off. Where no year confirms the
    match, half of the slip is allowed ("Little Women" is not "The Little Woman"). `choose` gets an
    ambiguous name and the films it may mean, and returns one of them or None; `most_detailed` is
    such a rule. `index` is the catalogue's, for callers that look up often.
    """
    index = index or TitleIndex(catalogue)
    matches = [index.match(name, threshold) for name in names]
    return [_settle(match, catalogue, choose) if choose else match for match in matches]


def most_detailed(name: str, movies: Sequence[Movie]) -> Movie | None:
    """The film with most people and fields filled in, if one leads: the better known one, mostly.

    A rule for `choose`. It guesses: "Psycho (1960)" may become a remake where years are missing.
    """
    detail = [sum(map(bool, (m.directors, m.actors, m.genres, m.plot, m.year))) for m in movies]
    best = [movie for movie, score in zip(movies, detail, strict=True) if score == max(detail)]
    return best[0] if len(best) == 1 else None


def _settle(match: Match, catalogue: Catalogue, choose: Choose) -> Match:
    if match.outcome != "ambiguous":
        return match
    movie = choose(match.name, [catalogue[row] for row in match.rows])
    if movie is None:
        return match
    return replace(match, outcome="chosen", rows=(catalogue.row[movie.id],))


class TitleIndex:
    """Catalogue rows by normalised title, with the article and without."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.titles: list[str] = []
        self.years: list[int | None] = []
        self.full: dict[str, list[int]] = defaultdict(list)
        self.bare: dict[str, list[int]] = defaultdict(list)
        for row, movie in enumerate(catalogue):
            title, year = split_year(movie.name)
            self.titles.append(title.casefold())
            self.years.append(year)
            self.full[normalise(title)].append(row)
            self.bare[_bare(normalise(title))].append(row)
        self.keys = [key for key in self.bare if len(key.replace(" ", "")) >= MIN_FUZZY]

    def match(self, name: str, threshold: float) -> Match:
        title, year = split_year(name)
        key = normalise(title)
        same = self.full.get(key, [])
        typed = [row for row in same if self.titles[row] == title.casefold()]  # "Sing", not "Sing!"
        for rows in (typed, same, self.bare.get(_bare(key))):
            if rows and (near := self._near(rows, year)):
                return Match(name, "exact" if len(near) == 1 else "ambiguous", near)
        return self._by_spelling(name, _bare(key), year, threshold)

    def _near(self, rows: Iterable[int], year: int | None) -> tuple[int, ...]:
        """The rows whose year fits best: the same, one off, or unknown on either side."""
        if year is None:
            return tuple(rows)
        for accept in ((year,), (year - 1, year + 1), (None,)):
            if near := tuple(row for row in rows if self.years[row] in accept):
                return near
        return ()

    def _by_spelling(self, name: str, key: str, year: int | None, threshold: float) -> Match:
        if threshold > 100 or len(key.replace(" ", "")) < MIN_FUZZY:
            return Match(name, "unmatched", score=0.0)
        similar = process.extract(
            key, self.keys, scorer=fuzz.ratio, score_cutoff=threshold, limit=10
        )
        best = 0.0
        rows: dict[int, None] = {}  # a dict keeps order and drops copies
        for other, score, _ in similar:  # best first
            if score < best or _numbers(other) != _numbers(key):
                continue
            near = self._near(self.bare[other], year)
            if score < (threshold + 100) / 2:
                near = tuple(row for row in near if year is not None and self.years[row])
            if near:
                best, rows = score, rows | dict.fromkeys(near)
        if not rows:
            return Match(name, "unmatched", score=0.0)
        return Match(name, "fuzzy" if len(rows) == 1 else "ambiguous", tuple(rows), round(best, 1))


def _bare(key: str) -> str:
    return re.sub(r"^(?:the|a|an) (?=.)", "", key)


def _numbers(key: str) -> list[str]:
    return re.findall(r"\d+", key)


def match_catalogue(
    dialogues: Iterable[Dialogue],
    catalogue: Catalogue,
    name_of: Callable[[str], str | None] | None = None,
    threshold: float = 90.0,
    choose: Choose | None = None,
) -> tuple[list[Dialogue], MatchReport]:
    """Give the mentions of `dialogues` the ids of `catalogue`.

    The name of an item is ``name_of(id)``: ``str`` for INSPIRED, whose ids are names, or the
    ``get`` of a dictionary. Without it, it is the words that its mentions span: the most frequent
    spelling with a year, else the most frequent.

    Every mention stays, with its span. Those ambiguous or unmatched keep their id; if that id
    happens to be another film's in `catalogue`, it becomes ``"unmatched:<id>"``.
    """
    dialogues = list(dialogues)
    counts: Counter[str] = Counter()
    spellings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for utterance in (u for dialogue in dialogues for u in dialogue.utterances):
        for mention in utterance.mentions:
            counts[mention.item] += 1
            if mention.start is not None:
                spellings[mention.item][utterance.text[mention.start : mention.end]] += 1
    items = sorted(counts, key=lambda item: (-counts[item], item))
    names = [(name_of(item) if name_of else _common(spellings[item])) or "" for item in items]
    found = match_titles(names, catalogue, threshold, choose)
    matches = tuple(
        replace(match, item=item, mentions=counts[item])
        for item, match in zip(items, found, strict=True)
    )
    new_id = {match.item: _new_id(match, catalogue) for match in matches}
    keyed = [
        replace(
            dialogue,
            utterances=tuple(
                replace(u, mentions=tuple(replace(m, item=new_id[m.item]) for m in u.mentions))
                for u in dialogue.utterances
            ),
        )
        for dialogue in dialogues
    ]
    return keyed, MatchReport(matches)


def _new_id(match: Match, catalogue: Catalogue) -> str:
    if match.row is not None:
        return catalogue[match.row].id
    return f"unmatched:{match.item}" if match.item in catalogue else match.item


def _common(spellings: Counter[str]) -> str:
    """The most frequent spelling, one with a year first; ties go by alphabet."""
    order = sorted(spellings, key=lambda s: (split_year(s)[1] is None, -spellings[s], s))
    return order[0] if order else ""
