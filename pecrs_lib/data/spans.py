"""Where in a text an item is named: placing mentions, and keeping them in place.

Used by the readers. Corpora mark a mention by a placeholder in the text (`fill` puts the title
there) or list the titles beside the text (`locate` looks for them); `merge_consecutive` joins the
messages of one speaker, as the paper does before it counts utterances (section 4.1), and shifts
the spans along.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter

from pecrs_lib.data.schema import Mention, Utterance

_ARTICLE = re.compile(r"^(?:the|a|an)\s+", re.IGNORECASE)
_YEAR = re.compile(r"^(?P<title>.*\S)\s*\((?:(?P<year>(?:18|19|20)\d\d)[^()]*)?\)$")


def squeeze(text: str) -> str:
    """White space normalised: runs become one blank, none at the ends."""
    return " ".join(text.split())


def split_year(name: str) -> tuple[str, int | None]:
    """``("Up", 2009)`` for ``"Up  (2009)"`` or ``"Up (2009 film)"``; year None if there is none.

    The empty parentheses of ``"Akira ()"`` (both corpora have such names) go as well.
    """
    name = squeeze(name)
    found = _YEAR.match(name)
    if not found:
        return name, None
    return found["title"], int(found["year"]) if found["year"] else None


def fill(
    text: str, placeholder: re.Pattern[str], name: Callable[[re.Match[str]], tuple[str, str] | None]
) -> tuple[str, tuple[Mention, ...]]:
    """Replace placeholders by names.

    `name` turns a match into (item id, words to put there), or None to leave the match as text.
    Returns the new text and one Mention per replaced placeholder, spanning the words.
    """
    parts: list[str] = []
    mentions: list[Mention] = []
    length = done = 0
    for match in placeholder.finditer(text):
        named = name(match)
        if named is None:
            continue
        item, words = named
        before = text[done : match.start()]
        start = length + len(before)
        mentions.append(Mention(item, start, start + len(words)))
        parts += [before, words]
        length = start + len(words)
        done = match.end()
    return "".join([*parts, text[done:]]), tuple(mentions)


def locate(text: str, named: Sequence[tuple[str, str]]) -> tuple[Mention, ...]:
    """Find (item id, title) pairs in a text that is known to mention them, in any order.

    Longer titles choose first and no two spans overlap; equal titles take successive occurrences.
    The exact spelling is preferred, then other case, other punctuation and a missing article;
    titles of up to three letters ("It", "Up") are found in their exact spelling only. Returns
    located mentions in text order, then those the text does not spell out (no span).
    """
    found: list[tuple[int, int, str]] = []
    lost: list[tuple[int, str]] = []
    for i, (item, title) in sorted(enumerate(named), key=lambda entry: -len(entry[1][1])):
        for start, end in _occurrences(text, title):
            if all(end <= other[0] or other[1] <= start for other in found):
                found.append((start, end, item))
                break
        else:
            lost.append((i, item))
    placed = [Mention(item, start, end) for start, end, item in sorted(found)]
    return (*placed, *(Mention(item) for _, item in sorted(lost)))


def _occurrences(text: str, title: str) -> Iterator[tuple[int, int]]:
    """Spans where `title` is named in `text`, the surest spelling first."""
    if not title:
        return
    start = text.find(title)
    while start >= 0:
        end = start + len(title)
        if not (joined(text, start) or joined(text, end)):
            yield start, end
        start = text.find(title, start + 1)
    for name in dict.fromkeys((title, _ARTICLE.sub("", title))):
        words = re.findall(r"\w+", name)
        if sum(map(len, words)) > 3:
            loose = r"[\W_]*".join(map(re.escape, words))
            for match in re.finditer(rf"(?<!\w){loose}(?!\w)", text, re.IGNORECASE):
                yield match.span()


def joined(text: str, at: int) -> bool:
    """Whether a word goes on across position `at`."""
    return 0 < at < len(text) and f"{text[at - 1]}{text[at]}".isalnum()


def merge_consecutive(utterances: Iterable[Utterance]) -> tuple[Utterance, ...]:
    """Join neighbouring utterances of one speaker with a blank; spans move with their words."""
    merged: list[Utterance] = []
    for role, said in groupby(utterances, key=attrgetter("role")):
        parts: list[str] = []
        mentions: list[Mention] = []
        length = 0
        for utterance in said:
            blank = " " if length and utterance.text else ""
            mentions += shift(utterance.mentions, length + len(blank))
            parts += [blank, utterance.text]
            length += len(blank) + len(utterance.text)
        merged.append(Utterance(role, "".join(parts), tuple(mentions)))
    return tuple(merged)


def shift(mentions: Iterable[Mention], by: int) -> tuple[Mention, ...]:
    """Mentions moved `by` characters to the right; those without a span stay without."""
    return tuple(
        mention
        if mention.start is None or mention.end is None
        else replace(mention, start=mention.start + by, end=mention.end + by)
        for mention in mentions
    )
