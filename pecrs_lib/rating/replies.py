"""What systems said in the same contexts: the files that a human evaluation starts from.

After `assessment`, before `judgements`, which asks people about them. One JSON object a line::

    {"dialogue": "d1", "turn": 3, "history": [{"role": "seeker", "text": "I liked Up (2009)"}],
     "replies": {"PECRS": "Then see Brave (2012)!"}}

`turn` counts the utterances of the dialogue from 0; `history` is what people said before it. A file
with the replies of one system may come from anywhere; with those of two it is a study (`pair`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pecrs_lib.data.files import Field, json_records
from pecrs_lib.data.jsonl import write_bytes
from pecrs_lib.data.schema import Dialogue, Utterance

if TYPE_CHECKING:  # loads transformers, which asking does not need
    from pecrs_lib.assessment import Conversation


@dataclass(frozen=True, slots=True)
class Context:
    """A place where systems were asked to speak.

    Attributes:
        dialogue, turn: which utterance they replaced; together unique in a file.
        history: the utterances before it, as text.
        replies: what each system said there, by its name; a system may say nothing ("").
    """

    dialogue: str
    turn: int
    history: tuple[Utterance, ...]
    replies: dict[str, str]

    @property
    def key(self) -> tuple[str, int]:
        return self.dialogue, self.turn


def replies_of(
    conversation: Conversation, dialogues: Sequence[Dialogue], system: str
) -> list[Context]:
    """The replies of `assessment.converse`, beside what was said before each of `dialogues`."""
    turns = zip(conversation.dialogue, conversation.turn, conversation.replies, strict=True)
    return [
        Context(
            dialogues[d].id,
            t,
            tuple(Utterance(u.role, u.text) for u in dialogues[d].utterances[:t]),
            {system: reply.text},
        )
        for d, t, reply in turns
    ]


def one_line(name: str, what: str) -> None:
    """Raise ValueError unless a name can stand in a file of lines: one line, not blank."""
    if name.splitlines() != [name] or not name.strip():
        raise ValueError(f"{what} must be one line of text, got {name!r}")


def read_replies(path: str | Path) -> list[Context]:
    """Read a file of replies or a study, gzipped if it ends in ``.gz``.

    Raises:
        DataError: not the format, a context twice, or a line with other systems than the first.
    """
    contexts: list[Context] = []
    lines: dict[tuple[str, int], int | None] = {}
    for record in json_records(path):
        context = _context(record)
        if context.key in lines:
            raise record.error(
                f"turn {context.turn} of dialogue {context.dialogue!r} stands in line "
                f"{lines[context.key]} already"
            )
        lines[context.key] = record.line
        contexts.append(context)
        if context.replies.keys() != contexts[0].replies.keys():
            raise record.get("replies").error(
                f"of {_names(context)}, but the first line has replies of {_names(contexts[0])}"
            )
    return contexts


def _names(context: Context) -> str:
    return " and ".join(map(repr, sorted(context.replies)))


def _context(record: Field) -> Context:
    record.only("dialogue", "turn", "history", "replies")
    dialogue, turn = record.get("dialogue"), record.get("turn")
    if turn.integer() < 0:
        raise turn.error(f"turns count from 0, got {turn.value}")
    history = []
    for said in record.get("history").each():
        said.only("role", "text")
        history.append(Utterance(said.get("role").role(), said.get("text").text()))
    replies = record.get("replies")
    if not isinstance(replies.value, dict) or not replies.value:
        raise replies.error("an object {system: reply} is expected")
    name = dialogue.identifier()
    systems = {system: replies.get(system).text() for system in replies.value}
    try:
        one_line(name, "an id")
        for system in systems:
            one_line(system, "the name of a system")
    except ValueError as error:
        raise record.error(str(error)) from error
    return Context(name, turn.integer(), tuple(history), systems)


def write_replies(contexts: Sequence[Context], path: str | Path) -> None:
    """Write contexts so that `read_replies` returns equal ones; gzipped if it ends in ``.gz``."""
    lines = (json.dumps(_plain(context), ensure_ascii=False) + "\n" for context in contexts)
    write_bytes("".join(lines).encode(), path)


def _plain(context: Context) -> dict[str, object]:
    return {
        "dialogue": context.dialogue,
        "turn": context.turn,
        "history": [{"role": u.role, "text": u.text} for u in context.history],
        "replies": context.replies,
    }


def pair(a: Sequence[Context], b: Sequence[Context], n: int, seed: int = 0) -> list[Context]:
    """A study: n contexts drawn at random, each with the replies of both systems.

    Equal seeds draw the same contexts whatever the order of the files; fewer are the first of more.

    Raises:
        ValueError: a side does not hold one system, both hold the same, contexts or their histories
            differ, or there are fewer than n.
    """
    names = [{system for context in side for system in context.replies} for side in (a, b)]
    if any(len(found) != 1 for found in names):
        raise ValueError(f"replies of one system each are needed, got {names[0]} and {names[1]}")
    if names[0] == names[1]:
        raise ValueError(f"both replies are those of {names[0].pop()!r}: two systems are needed")
    other = {context.key: context for context in b}
    lacking = [c.key for c in a if c.key not in other] or list(other.keys() - {c.key for c in a})
    if lacking:
        dialogue, turn = min(lacking)
        raise ValueError(
            f"{len(lacking)} contexts have a reply of one system only, the first is turn {turn} of "
            f"dialogue {dialogue!r}"
        )
    for context in a:
        if context.history != other[context.key].history:
            raise ValueError(
                f"the systems read different histories before turn {context.turn} of dialogue "
                f"{context.dialogue!r}"
            )
    if not 1 <= n <= len(a):
        raise ValueError(f"n must be between 1 and the {len(a)} contexts there are, got {n}")
    drawn = shuffled(a, "sample", seed)[:n]
    return [Context(c.dialogue, c.turn, c.history, c.replies | other[c.key].replies) for c in drawn]


def shuffled(contexts: Sequence[Context], *salt: str | int) -> list[Context]:
    """A random order that depends on the salt and on nothing else.

    By SHA-256 of salt and key, since a rater may go on under another version of Python or NumPy,
    and their generators do not promise equal permutations.
    """

    def place(context: Context) -> bytes:
        return hashlib.sha256(json.dumps([*salt, *context.key]).encode()).digest()

    return sorted(contexts, key=place)


def fingerprint(study: Sequence[Context]) -> str:
    """12 hexadecimal digits that tell one study from another, whatever the order of its lines."""
    lines = sorted(json.dumps(_plain(context), sort_keys=True) for context in study)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
