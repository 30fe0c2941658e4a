"""What may be wrong with what can be read: empty dialogues, odd mentions, lists that are none.

Beside `describe`, which counts what is there. What cannot be meant (a span that leaves its text)
the readers refuse; what is found here may be meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from rapidfuzz import fuzz

from pecrs_lib.data.matching import normalise
from pecrs_lib.data.schema import Catalogue, Dialogue, Mention, Movie
from pecrs_lib.data.spans import joined, split_year

LEAST_LIKE = 50.0  # of 100: the best part of the title against the words, or the other way round
PLACES = 3  # that are named


@dataclass
class Doubt:
    """Something that may be wrong: what, how often, and the first places."""

    what: str
    n: int
    places: list[str]

    def __str__(self) -> str:
        more = "; …" if self.n > len(self.places) else ""
        return f"{self.what}: {self.n:,} ({'; '.join(self.places)}{more})"


def doubts(dialogues: Iterable[Dialogue], catalogue: Catalogue | None = None) -> list[Doubt]:
    """What may be wrong, in a fixed order; without `catalogue` nothing is known of titles."""
    found: dict[str, Doubt] = {}
    everywhere = chain(
        *(_of_dialogue(dialogue, catalogue) for dialogue in dialogues),
        *(_of_movie(movie) for movie in catalogue or ()),
    )
    for what, place in everywhere:
        doubt = found.setdefault(what, Doubt(what, 0, []))
        doubt.n += 1
        if doubt.n <= PLACES:
            doubt.places.append(place)
    return [found[what] for what in sorted(found)]


def _of_movie(movie: Movie) -> Iterator[tuple[str, str]]:
    for genre in movie.genres:
        if "," in genre or ";" in genre:
            yield "genres that look like several ('|' separates them)", f"{movie.id!r}, {genre!r}"


def _of_dialogue(dialogue: Dialogue, catalogue: Catalogue | None) -> Iterator[tuple[str, str]]:
    here = f"dialogue {dialogue.id!r}"
    if not dialogue.utterances:
        yield "dialogues without an utterance", here
    elif "recommender" not in {u.role for u in dialogue.utterances}:
        yield "dialogues in which no recommender speaks", here
    for number, utterance in enumerate(dialogue.utterances, start=1):
        place = f"{here}, utterance {number}"
        if not utterance.text.strip():
            yield "utterances without text", place
        for mention in utterance.mentions:
            yield from _of_mention(utterance.text, mention, place, catalogue)


def _of_mention(
    text: str, mention: Mention, place: str, catalogue: Catalogue | None
) -> Iterator[tuple[str, str]]:
    if mention.start is None or mention.end is None:
        return
    words = text[mention.start : mention.end]
    place = f"{place}, {words!r}"
    if joined(text, mention.start) or joined(text, mention.end):
        yield "mentions that begin or end inside a word", place
    if catalogue is not None and mention.item in catalogue:
        title = catalogue[catalogue.row[mention.item]].title
        said = normalise(split_year(words)[0])
        if fuzz.partial_ratio(said, normalise(title)) < LEAST_LIKE:
            yield "mentions in words unlike the title", f"{place} for {title!r}"
