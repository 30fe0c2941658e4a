"""A conversation typed as plain text, and the films it names.

Comes after `data`; used by `chat` and the command line. Readers of corpora are told which films a
text mentions; here they have to be found, and a film found wrongly misleads the model more than one
overlooked. So a title counts only where people mark it as one: by its year, by quotation marks, or
by capitals ("I loved Home Alone"; a single word only inside a sentence, "I loved Inception"), and
only if it is exactly the title of one item after `data.matching.normalise`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

from rapidfuzz import fuzz, process

from pecrs_lib.data import (
    Catalogue,
    DataError,
    Dialogue,
    Mention,
    Movie,
    Role,
    Utterance,
    match_titles,
)
from pecrs_lib.data.matching import TitleIndex, normalise
from pecrs_lib.data.schema import ROLES
from pecrs_lib.data.spans import merge_consecutive

LONGEST = 12  # words of a title that are tried in front of a year
LONGEST_TITLE = 200  # characters; with its year, the longest of ReDial has 79
_LINE = re.compile(rf"\s*({'|'.join(ROLES)})\s*:\s*(.*)", re.IGNORECASE)
_YEAR = re.compile(r"\((?:18|19|20)\d\d\)")
_QUOTED = re.compile(r"[\"“”„«»]([^\"“”„«»]+)[\"“”„«»]|(?<!\w)['‘]([^'‘’]+)['’](?!\w)")
_CAPITAL = r"(?:[A-Z0-9][\w'’-]*)"
_SMALL = r"(?:of|the|and|a|an|in|to|on|at|for|from|with|is|my|by|vs|&)"
_RUN = re.compile(rf"(?<!\w){_CAPITAL}(?:[:,]?\s(?:{_SMALL}\s)*{_CAPITAL})*")
_WORD = re.compile(r"\S+")


def read_transcript(text: str, catalogue: Catalogue, name: str) -> Dialogue:
    """Lines of ``seeker: …`` and ``recommender: …`` (or ``user:`` and ``system:``).

    Neighbouring lines of one speaker are one utterance. Raises DataError, with `name` and the
    line, for a line without a speaker and for a text without any line.
    """
    utterances = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        found = _LINE.match(line)
        if not found:
            raise DataError(
                f"a line begins with 'seeker:' or 'recommender:', got {line.strip()[:40]!r}",
                path=name,
                line=number,
            )
        utterances.append(say_as(ROLES[found[1].lower()], found[2].strip(), catalogue))
    if not utterances:
        raise DataError("no line 'seeker: …' or 'recommender: …'", path=name)
    return Dialogue(name, merge_consecutive(utterances))


def say_as(role: Role, text: str, catalogue: Catalogue) -> Utterance:
    """An utterance with the items that its text names."""
    return Utterance(role, text, find_items(text, catalogue))


def find_items(
    text: str, catalogue: Catalogue, index: TitleIndex | None = None
) -> tuple[Mention, ...]:
    """Mentions in text order; of overlapping titles the longest.

    Args:
        index: of the catalogue, for callers that look often; else it is made here.
    """
    written = {span for span in _candidates(text) if span[1] - span[0] <= LONGEST_TITLE}
    spans = sorted(written, key=lambda span: (span[0] - span[1], span))
    words = [text[start:end] for start, end in spans]
    matches = match_titles(words, catalogue, threshold=101, index=index)
    found: list[Mention] = []
    taken = bytearray(len(text))
    for (start, end), match in zip(spans, matches, strict=True):
        if match.row is not None and not any(taken[start:end]):
            taken[start:end] = b"\1" * (end - start)
            found.append(Mention(catalogue[match.row].id, start, end))
    return tuple(sorted(found, key=lambda mention: mention.start or 0))


def near_misses(text: str, catalogue: Catalogue, k: int = 3) -> dict[str, list[Movie]]:
    """Words that may mean a film but are not its title as `find_items` wants it.

    They come with up to k items of the nearest spelling. What stands in quotation marks or before a
    year is listed even when nothing is near (an unknown film); a run of capitals only when
    something is: it may be a person, or no name at all. A title without capitals ("toy story") is
    listed if it has two words besides an article. It is no mention, for ordinary words are titles,
    too: seekers of the bundled dialogues want "something for date night", none means Date Night.
    """
    for mention in find_items(text, catalogue):  # what is known is no candidate
        start, end = mention.start or 0, mention.end or 0
        text = text[:start] + "." * (end - start) + text[end:]
    keys = {row: normalise(movie.title) for row, movie in enumerate(catalogue)}
    found: dict[str, list[Movie]] = {}
    taken: list[tuple[int, int]] = []
    marked = [*_years(text), *_quotes(text)]
    for start, end in [*marked, *_capitals(text), *_uncapitalised(text, set(keys.values()))]:
        if any(start < b and a < end for a, b in taken):
            continue
        sure = (start, end) in marked
        words = normalise(_YEAR.sub("", text[start:end]))
        if not any(map(str.isalnum, words)):  # the place of a known film, in quotation marks
            continue
        least = 60.0 if sure else 80.0
        similar = process.extract(words, keys, scorer=fuzz.ratio, score_cutoff=least, limit=k)
        if similar or sure:
            taken.append((start, end))
            found[text[start:end]] = [catalogue[row] for _, _, row in similar]
    return found


def _years(text: str) -> Iterator[tuple[int, int]]:
    """Spans of capitals that end in a year."""
    for year in _YEAR.finditer(text):
        runs = _RUN.finditer(text, max(0, year.start() - LONGEST_TITLE), year.start())
        before = [run for run in runs if run.end() + 1 >= year.start()]
        if before:
            yield before[-1].start(), year.end()


def _capitals(text: str) -> Iterator[tuple[int, int]]:
    """Spans of capitals, then their parts between "and" and the like."""
    for run in _RUN.finditer(text):
        yield run.span()
        at = run.start()
        for part in re.split(r"((?:,|\s(?:and|or))\s)", run[0]):
            yield at, at + len(part)
            at += len(part)


def _uncapitalised(text: str, titles: Set[str]) -> list[tuple[int, int]]:
    """Spans of words that are one of some normalised titles, the longest first."""
    words = [word.span() for word in re.finditer(r"[\w'’&-]+", text)]
    spans = (
        (words[i][0], words[last][1])
        for i in range(len(words))
        for last in range(i + 1, min(len(words), i + LONGEST))
    )
    found = [(a, b) for a, b in spans if (name := normalise(text[a:b])) in titles and _two(name)]
    return sorted(found, key=lambda span: span[0] - span[1])


def _two(name: str) -> bool:
    return len(name.split()) - name.startswith(("the ", "a ", "an ")) >= 2


def _quotes(text: str) -> Iterator[tuple[int, int]]:
    for quoted in _QUOTED.finditer(text):
        yield quoted.span(1 if quoted[1] else 2)


def _candidates(text: str) -> Iterator[tuple[int, int]]:
    """Spans that are written like a title."""
    for year in _YEAR.finditer(text):
        near = _WORD.finditer(text, max(0, year.start() - LONGEST_TITLE), year.start())
        starts = [at for word in near if (at := word.start()) == 0 or text[at - 1].isspace()]
        yield from ((start, year.end()) for start in starts[-LONGEST:])
    yield from _quotes(text)
    for run in _RUN.finditer(text):
        words = [word.span() for word in re.finditer(r"[\w'’-]+", run[0])]
        before = text[max(0, run.start() - LONGEST_TITLE) : run.start()].rstrip()
        inside = bool(re.search(r"[\w,;:—-]$", before[-1:]))  # a sentence
        for i, (first, end) in enumerate(words):
            name = run[0][first:end]  # one word: not one that any sentence could begin with
            if len(name) > 3 and name[0].isupper() and (inside or i > 0):
                yield run.start() + first, run.start() + end
            for _, last in words[i + 1 : i + LONGEST]:
                yield run.start() + first, run.start() + last
