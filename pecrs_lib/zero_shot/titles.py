"""From what a language model writes to the films of a catalogue.

Before `asking`, which asks the questions: a reply names films in words, and recall needs
catalogue rows (the paper's section 4.4, Table 7). The obvious test, "is the title a substring of
the reply?", is wrong both ways: "It", "Up" and "Her" are in nearly every reply, and "Star Wars:
The Empire Strikes Back" is not in the catalogue that says "The Empire Strikes Back (1980)". So a
list is read line by line (`entries`), each line is compared with the catalogue by exact title and
year, then by the names a film also goes by, then by spelling; running text is searched for whole
titles only (`TitleMatcher.in_text`). How often each way is right is measured on
`data/results/zero_shot_titles.csv`, labelled by hand.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from pecrs_lib.data import Catalogue, match_titles
from pecrs_lib.data.matching import MIN_FUZZY, normalise
from pecrs_lib.data.spans import split_year, squeeze

How = Literal["exact", "alias", "fuzzy", "ambiguous", "unmatched"]

# Other names, normalised, each for a film's title in the United States.
OTHER_NAMES: Mapping[str, str] = {
    "se7en": "seven",
    "harry potter and the philosophers stone": "harry potter and the sorcerers stone",
    "star wars": "star wars a new hope",
    "star wars a new hope": "star wars",
    "leon": "leon the professional",
    "the professional": "leon the professional",
    "lord of the rings": "the lord of the rings the fellowship of the ring",
    "borat": "borat cultural learnings of america for make benefit glorious nation of kazakhstan",
    "birdman": "birdman or the unexpected virtue of ignorance",
    "dr strangelove": "dr strangelove or how i learned to stop worrying and love the bomb",
    "the avengers": "marvels the avengers",
    "mad max 2 the road warrior": "the road warrior",
    "raiders of the lost ark": "indiana jones and the raiders of the lost ark",
    "indiana jones and the raiders of the lost ark": "raiders of the lost ark",
}

_ITEM = re.compile(r"^\s*(?:(?P<number>\d{1,3})[.):]|[-*•])\s+(?P<entry>\S.*)$")
_LEAK = re.compile(r"\[\|")  # a chat template that the model went on writing
_QUOTED = re.compile(r"^[\"“'‘*]+(?P<title>.+?)[\"”'’*,.]+(?=\s|$)")
_YEAR = re.compile(r"\s*\((?:18|19|20)\d\d[^()]*\)")
_SERIES = re.compile(r"\b(?:part|chapter|volume|vol|episode) (?=\d)")
_EPISODE = re.compile(r"\bepisode \d+ ")
_JOINED = re.compile(r"[A-Z0-9][\w'’]* (?:(?:of|in|for|to|with|at|on) )(?:(?:the|a|an) )?$")
NEAR = 100  # characters
_OPEN, _CLOSE = tuple("\"“‘'*"), tuple("\"”’'*,.!")
_WORD = re.compile(r"[^\W_]+(?:['’·.][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Title:
    """A film named in a reply: the words, and the catalogue row they mean.

    `row` is None when the catalogue has no such film ("unmatched") or several and nothing says
    which ("ambiguous"). `rows` holds those several, and otherwise every row of that name and year:
    catalogues have a film twice.
    """

    text: str
    row: int | None
    how: How
    rows: tuple[int, ...] = ()


def entries(reply: str) -> tuple[str, ...]:
    """The entries of the first list in a reply, numbered or with bullets; () without a list.

    ``"Sure!\\n1. Up (2009)\\n2. Her"`` → ``("Up (2009)", "Her")``. The list ends where the numbers
    start again, where another kind of line follows, or where the reply goes on in the model's chat
    template: small models write the next turns of the conversation themselves.
    """
    found: list[str] = []
    last = 0
    for line in _LEAK.split(reply)[0].splitlines():
        item = _ITEM.match(line)
        if item is None:
            if found and line.strip():
                break
            continue
        number = int(item["number"] or last + 1)
        if found and number <= last:
            break
        last = number
        found.append(squeeze(item["entry"]))
    return tuple(found)


def spellings(entry: str) -> tuple[str, ...]:
    """What may be the title in an entry, the most literal first.

    ``"The Farewell (2019) - Comedy"`` → ``("The Farewell (2019)",)``. Without a year to end it,
    a title may hold a dash ("Mission: Impossible - Fallout") or be followed by one, so both are
    returned; the same for words in parentheses.
    """
    entry = squeeze(entry)
    quoted = _QUOTED.match(entry)
    year = _YEAR.search(entry)
    if quoted and (year is None or quoted.end() <= year.start() + 1):
        title = quoted["title"]
        rest = entry[quoted.end() :]
        return (title + (f" {year[0].strip()}" if year and _YEAR.match(rest) else ""),)
    if year:
        return (entry[: year.end()],)
    bare = squeeze(re.sub(r"\([^()]*\)", " ", entry))
    cuts = [entry, bare, *(re.split(r"\s[-–—:]\s|,? (?:starring|directed by) ", bare)[:1])]
    return tuple(dict.fromkeys(cut for cut in cuts if cut))


def substring_hit(title: str, reply: str) -> bool:
    """The naive test: does the title, without its year, occur in the reply? Case is ignored.

    What "check if the ground-truth movie name is included in the generated response" (the paper's
    section 4.4) comes to. "It" is included in "with", "Her" in "there".
    """
    return split_year(title)[0].casefold() in reply.casefold()


class TitleMatcher:
    """Finds the films of one catalogue in replies.

    Args:
        catalogue: N films, with titles.
        popularity: (N,) settles titles that several films bear: the most popular of them is meant,
            unless the reply says a year. Without it, and where popularity ties, they stay
            ambiguous.
        threshold: least similarity that counts as a slip of spelling (see `match_titles`). On
            the labelled sample 90 finds more wrong films than right ones, 95 none of either.
        aliases: whether other names count: subtitles alone, "Part II" for "2", `OTHER_NAMES`.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        popularity: ArrayLike | None = None,
        threshold: float = 95.0,
        aliases: bool = True,
    ) -> None:
        known = None if popularity is None else np.asarray(popularity, dtype=float)
        if known is not None and known.shape != (len(catalogue),):
            raise ValueError(f"popularity must be ({len(catalogue)},), got {known.shape}")
        self.catalogue, self.popularity, self.threshold = catalogue, known, threshold
        self.alias = _aliases(catalogue) if aliases else {}
        self.whole: dict[str, list[int]] = defaultdict(list)  # normalised title -> rows
        for row, movie in enumerate(catalogue):
            self.whole[normalise(split_year(movie.title)[0])].append(row)
        self.longest: dict[str, int] = defaultdict(int)  # first word -> most words of a title
        for first, *others in (key.split() for key in self.whole if key):
            self.longest[first] = max(self.longest[first], 1 + len(others))

    def titles(self, named: Sequence[str]) -> list[Title]:
        """Look up entries of lists, one Title each."""
        options = {entry: spellings(entry) for entry in dict.fromkeys(named)}
        found: dict[str, Title] = {}
        for attempt in (self._exact, self._by_alias, self._by_spelling):
            left = [entry for entry in options if entry not in found]
            names = list(dict.fromkeys(name for entry in left for name in options[entry]))
            hits = attempt(names)
            for entry in left:
                for name in options[entry]:
                    if name in hits and entry not in found:
                        found[entry] = hits[name]
        return [found.get(e, Title(options[e][-1] if options[e] else e, None, "unmatched"))
                for e in named]  # fmt: skip

    def in_lists(self, replies: Sequence[str]) -> list[list[Title]]:
        """The films that each reply lists, in order; running text where it has no list.

        A film or a title named twice in one reply counts once.
        """
        listed = [entries(reply) for reply in replies]
        looked_up = iter(self.titles([entry for reply in listed for entry in reply]))
        titles = [[next(looked_up) for _ in reply] for reply in listed]
        return [
            _distinct(found or self.in_text(reply))
            for found, reply in zip(titles, replies, strict=True)
        ]

    def in_text(self, reply: str) -> list[Title]:
        """The catalogue films that running text names, in order of their first mention.

        Longer titles win over those inside them. A title must stand as whole words and begin and
        end with a capital or a digit, and one of a single word needs more, for "It" and "Her" open
        sentences: quotation marks, its year behind it, or a capital inside a sentence.
        """
        words = list(_WORD.finditer(reply))
        found: list[Title] = []
        at = 0
        while at < len(words):
            most = self.longest.get(normalise(words[at][0]).split()[0], 0)
            for n in range(min(most, len(words) - at), 0, -1):
                start, end = words[at].start(), words[at + n - 1].end()
                rows = self.whole.get(normalise(reply[start:end]))
                if rows and _looks_like_a_title(reply, start, end, n):
                    year = _YEAR.match(reply, end)
                    named = self._exact([reply[start : year.end() if year else end]])
                    found += named.values()
                    at += n - 1
                    break
            at += 1
        return _distinct(found)

    def _title(self, text: str, rows: Sequence[int], how: How) -> Title:
        """One film, or the most popular of several, or an ambiguous title."""
        best = list(rows)
        if len(rows) > 1 and self.popularity is not None:
            liked = self.popularity[best]
            best = [row for row, count in zip(best, liked, strict=True) if count == liked.max()]
        name = self.catalogue[best[0]].name
        if any(self.catalogue[row].name != name for row in best):
            return Title(text, None, "ambiguous", tuple(rows))
        same = tuple(row for row in rows if self.catalogue[row].name == name)
        return Title(text, best[0], how, same)

    def _exact(self, names: Sequence[str]) -> dict[str, Title]:
        matches = match_titles(names, self.catalogue, threshold=101)
        return {m.name: self._title(m.name, m.rows, "exact") for m in matches if m.rows}

    def _by_alias(self, names: Sequence[str]) -> dict[str, Title]:
        found = {}
        for name in names if self.alias else ():
            title, year = split_year(name)
            for key in _other_names(title):
                rows = [row for row in self.alias.get(key, ()) if self._fits(row, year)]
                if rows:
                    found[name] = self._title(name, rows, "alias")
                    break
        return found

    def _by_spelling(self, names: Sequence[str]) -> dict[str, Title]:
        matches = match_titles(names, self.catalogue, threshold=self.threshold)
        return {m.name: self._title(m.name, m.rows, "fuzzy") for m in matches if m.rows}

    def _fits(self, row: int, year: int | None) -> bool:
        own = split_year(self.catalogue[row].name)[1]
        return year is None or own is None or abs(own - year) <= 1


def _aliases(catalogue: Catalogue) -> dict[str, list[int]]:
    """Catalogue rows by every name a film also goes by; its title is one of them."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, movie in enumerate(catalogue):
        title = split_year(movie.title)[0]
        for key in dict.fromkeys((*_other_names(title), normalise(title))):
            rows[key].append(row)
    return rows


def _other_names(title: str) -> list[str]:
    """Normalised names that mean the same film as `title`, the surest first.

    A subtitle alone counts when it is two words and long enough to mean something.
    """
    key = normalise(title)
    names = [_SERIES.sub("", key), _EPISODE.sub("", key)]
    if key in OTHER_NAMES:
        names.append(OTHER_NAMES[key])
    tail = re.split(r":\s|\s[-–—]\s", title)[-1]
    subtitle = _EPISODE.sub("", normalise(tail))
    numbered = _SERIES.match(subtitle)  # "It: Chapter 2" is not "John Wick: Chapter 2"
    if tail != title and " " in subtitle and len(subtitle) >= MIN_FUZZY and not numbered:
        names.append(subtitle)
    return names


def _looks_like_a_title(text: str, start: int, end: int, words: int) -> bool:
    first, last = text[start], text[start:end].split()[-1][0]
    text = text[max(0, start - NEAR) : end + NEAR]  # what stands far away decides nothing
    start, end = min(start, NEAR), min(start, NEAR) + end - start
    if first.islower() or last.islower():
        return False
    if re.match(r"(?: |: | - )[A-Z0-9]", text[end:]) or _JOINED.search(text[:start]):
        return False  # a part of a longer name: "Home Alone 2", "The Lord of the Rings"
    before = text[:start].rstrip(" \"“‘'*")
    opens = not before or before[-1] in ".!?:;\n" or text[:start].rstrip(" ").endswith("\n")
    if words > 1:
        return True
    if re.search(r"[A-Z][\w'’]* $", text[:start]):
        return False
    quoted = text[start - 1 : start] in _OPEN and text[end : end + 1] in _CLOSE
    return quoted or _YEAR.match(text, end) is not None or not (opens or first.isdigit())


def _distinct(titles: Iterable[Title]) -> list[Title]:
    """Without repetitions: of a film, or of a title outside the catalogue."""
    first: dict[object, Title] = {}
    for title in titles:
        first.setdefault(title.row if title.row is not None else normalise(title.text), title)
    return list(first.values())
