"""Words for simulated speakers: a context-free grammar, and the habits of a typist.

Serves `simulate`. A grammar maps a symbol to its alternatives; ``{symbol}`` inside one is expanded
in turn, and slots such as ``{film}`` come from the caller. ``{symbol:up}`` starts with a capital.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

Slots = Mapping[str, Callable[[], str]]

_SYMBOL = re.compile(r"\{([\w:]+)\}")
_PIECE = re.compile(r"\b(?:an?|the|his|her|their|two|three|four)\b(?: [\w'’-]+){2,7}", re.I)
_LOOSE = {
    "a", "an", "the", "of", "and", "or", "to", "in", "on", "at", "by", "for", "with", "from", "his",
    "her", "their", "its", "who", "that", "which", "while", "as", "into", "is", "are", "was", "has",
    "until", "when", "where", "but", "after", "before", "whose", "they", "he", "she", "must", "be",
}  # fmt: skip


def expand(
    text: str, grammar: Mapping[str, Sequence[str]], slots: Slots, rng: random.Random
) -> str:
    """`text` with every ``{symbol}`` replaced by one of its random derivations.

    Raises:
        KeyError: neither the grammar nor the slots know a symbol.
    """

    def one(match: re.Match[str]) -> str:
        name = match[1].removesuffix(":up")
        found = slots[name]() if name in slots else rng.choice(grammar[name])
        found = expand(found, grammar, slots, rng)
        return found[:1].upper() + found[1:] if match[1] != name else found

    return _SYMBOL.sub(one, text)


def pieces(plot: str) -> list[list[str]]:
    """Noun phrases of a plot as words, the way people recall a film; `recall` cuts them."""
    found = [match[0].split() for match in _PIECE.finditer(plot)]
    return [[words[0].lower(), *words[1:]] for words in found] or [plot.rstrip(".").split()]


def recall(options: Sequence[Sequence[str]], rng: random.Random) -> str:
    """One of the phrases, cut where memory ends, though not behind a loose word."""
    words = list(rng.choice(options))
    words = words[: rng.randint(min(3, len(words)), len(words))]
    while len(words) > 2 and words[-1].lower() in _LOOSE:
        words.pop()
    return " ".join(words)


def clause(plot: str) -> str:
    """The first sentence of a plot, to stand behind "it's about"."""
    first = re.split(r"(?<=[.;])\s", plot)[0].rstrip(".;")
    head, _, rest = first.partition(" ")
    small = head.lower() if head.lower() in _LOOSE | {"two", "three", "four", "one"} else head
    return f"{small} {rest}"


class Typist:
    """How one speaker types: capitals, full stops and slips, drawn once per conversation."""

    def __init__(self, noise: float, rng: random.Random) -> None:
        self.rng = rng
        self.slips = noise * rng.choice((0.0, 0.5, 1.0, 2.0))
        self.lower = rng.random() < 0.2
        self.bare = rng.random() < 0.3

    def type(self, text: str) -> str:
        """The text as this speaker would send it; ``@`` numbers stay whole."""
        words = " ".join(text.split()).split(" ")
        out = [w if "@" in w or not w else self._slip(w) for w in words]
        text = " ".join(w if "@" in w or not self.lower else w.lower() for w in out if w)
        if not self.lower:
            text = text[:1].upper() + text[1:]
        return text.rstrip(".") if self.bare else text

    def _slip(self, word: str) -> str:
        rng = self.rng
        if rng.random() >= self.slips:
            return word
        if word in _LOOSE:
            return ""  # small words get lost
        if len(word) < 3:
            return word
        k = rng.randrange(1, len(word) - 1)
        return rng.choice((
            word[:k] + word[k + 1 :],
            word[:k] + word[k] + word[k:],
            word[:k] + word[k + 1] + word[k] + word[k + 2 :],
            word.replace("'", ""),
        ))  # fmt: skip
