"""Dialogues and films as plain text for a language model, and whether a test is among the text.

Comes before `pretrain`. Dialogues are written as `context` writes them, titles included.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from pecrs_lib.context import SPEAKER
from pecrs_lib.data.schema import Catalogue, Dialogue, Utterance
from pecrs_lib.items import item_fields

EOS = "<|endoftext|>"
SPOKEN = re.compile("|".join(SPEAKER.values()))


def dialogue_text(
    dialogue: Dialogue, keywords: Callable[[str], Sequence[str]] | None = None
) -> str:
    """A dialogue as the model will read it: films named, speaker, text, end of utterance.

    The films stand in front in brackets, as their vectors will in `context`; so the language model
    learns which film comes next before it learns how to say so.

    Args:
        keywords: item id -> words about it that stand before its name. Drawn anew for every
            mention, they make the output at the bracket, where PECRS asks for a film, a guess at
            what the film is about.
    """
    return "".join(
        f"{_films(u, keywords)}{SPEAKER[u.role]} {_plain(u.text)}{EOS}" for u in dialogue.utterances
    )


def _films(u: Utterance, keywords: Callable[[str], Sequence[str]] | None) -> str:
    named = {_plain(u.text[m.start : m.end]): m.item for m in u.mentions if m.start is not None}
    about = [
        ", ".join([*(keywords(item) if keywords else ()), name]) for name, item in named.items()
    ]
    return f"[{'; '.join(about) if keywords else ', '.join(about)}] " if named else ""


def _plain(text: str) -> str:
    return " ".join(text.replace(EOS, " ").split())


def item_documents(catalogue: Catalogue) -> list[str]:
    """Item texts as documents, a field a line."""
    return ["\n".join(part for part in item_fields(m) if part) + EOS for m in catalogue]


def leaked(train: Sequence[str], kept_out: Sequence[str]) -> list[int]:
    """Rows of `kept_out` that stand in the training text, whole or in part.

    A document does if a training document is its copy or shares two utterances of ten words or
    more with it. One may be shared by chance: crowd workers say a sentence in one dialogue after
    the other.
    """
    copies, said_in = set(train), dict[str, set[int]]()
    for row, document in enumerate(train):
        for said in _long_utterances(document):
            said_in.setdefault(said, set()).add(row)
    found = []
    for row, document in enumerate(kept_out):
        places = Counter(k for said in _long_utterances(document) for k in said_in.get(said, ()))
        if document in copies or max(places.values(), default=0) >= 2:
            found.append(row)
    return found


def _long_utterances(document: str) -> set[str]:
    words = [SPOKEN.split(piece)[-1].lower().split() for piece in document.split(EOS)]
    return {" ".join(said) for said in words if len(said) >= 10}
