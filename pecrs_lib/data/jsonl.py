"""Bring your own dialogues: this package's JSON-lines format, read, written and checked.

A reader of the first step of the flow. One dialogue per line::

    {"id": "d1", "utterances": [{"role": "seeker", "text": "I liked Up (2009)",
                                 "mentions": [{"item": "m1", "start": 8, "end": 17}]}]}

`start` and `end` are a Python slice of the text. A mention the text does not spell out is the item
id alone (``"mentions": ["m1"]``); no mentions may be written as no field. Ids may be integers and
become strings; roles are ``seeker`` (or ``user``) and ``recommender`` (or ``system``), in capitals
or not. Everything else raises DataError with file, line and field.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pecrs_lib.data.files import Field, json_records
from pecrs_lib.data.schema import Catalogue, DataError, Dialogue, Mention, Utterance
from pecrs_lib.data.storage import write_whole


def read_jsonl(path: str | Path) -> list[Dialogue]:
    """Read dialogues from a ``.jsonl`` or ``.jsonl.gz`` file; ids must be unique in it."""
    dialogues = []
    lines: dict[str, int | None] = {}  # dialogue id -> its line
    for record in json_records(path):
        record.only("id", "utterances")
        name = record.get("id").identifier()
        if name in lines:
            raise record.get("id").error(f"{name!r} is the id of line {lines[name]} already")
        lines[name] = record.line
        utterances = tuple(_utterance(field) for field in record.get("utterances").each())
        dialogues.append(Dialogue(name, utterances))
    return dialogues


def _utterance(field: Field) -> Utterance:
    field.only("role", "text", "mentions")
    role = field.get("role").role()
    mentions = field.get("mentions").each() if field.has("mentions") else []
    text = field.get("text").text()
    read = tuple(_mention(mention, len(text)) for mention in mentions)
    try:
        return Utterance(role, text, read)
    except DataError as error:  # what is left to go wrong: order and overlap of the spans
        raise field.get("mentions").error(str(error)) from error


def _mention(field: Field, length: int) -> Mention:
    if not isinstance(field.value, dict):
        return Mention(field.identifier())
    field.only("item", "start", "end")
    item = field.get("item").identifier()
    if not field.has("start") and not field.has("end"):
        return Mention(item)
    start, end = field.get("start").integer(), field.get("end").integer()
    if not 0 <= start < end <= length:
        raise field.error(f"[{start}, {end}) is no slice of a text of {length} characters")
    return Mention(item, start, end)


def write_jsonl(dialogues: Iterable[Dialogue], path: str | Path) -> None:
    """Write dialogues so that `read_jsonl` returns equal ones; gzipped if `path` ends in ``.gz``.

    Nothing is written if an id occurs twice or a text cannot be encoded (DataError).
    """
    write_bytes(jsonl_bytes(dialogues, path), path)


def jsonl_bytes(dialogues: Iterable[Dialogue], path: str | Path | None = None) -> bytes:
    """The content of a file of dialogues; `path` is named in errors, which are `write_jsonl`'s."""
    lines: list[bytes] = []
    seen: set[str] = set()
    for dialogue in dialogues:
        if dialogue.id in seen:
            raise DataError(f"dialogue id {dialogue.id!r} occurs twice", path=path)
        seen.add(dialogue.id)
        line = json.dumps(_plain(dialogue), ensure_ascii=False) + "\n"
        try:
            lines.append(line.encode())
        except UnicodeEncodeError as error:
            raise DataError(
                f"dialogue {dialogue.id!r} holds half of a surrogate pair", path=path
            ) from error
    return b"".join(lines)


def write_bytes(content: bytes, path: str | Path) -> None:
    """Write a file whole, gzipped if its name ends in ``.gz``: equal content gives equal bytes."""
    path = Path(path)
    write_whole(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _plain(dialogue: Dialogue) -> dict[str, Any]:
    utterances = []
    for utterance in dialogue.utterances:
        plain: dict[str, Any] = {"role": utterance.role, "text": utterance.text}
        if utterance.mentions:
            plain["mentions"] = [
                mention.item
                if mention.start is None
                else {"item": mention.item, "start": mention.start, "end": mention.end}
                for mention in utterance.mentions
            ]
        utterances.append(plain)
    return {"id": dialogue.id, "utterances": utterances}


def check_mentions(dialogues: Iterable[Dialogue], catalogue: Catalogue) -> list[tuple[str, int]]:
    """Item ids that dialogues mention and the catalogue lacks: (id, mentions), most frequent first.

    Empty for data that are ready to train on.
    """
    unknown = Counter(
        mention.item
        for dialogue in dialogues
        for utterance in dialogue.utterances
        for mention in utterance.mentions
        if mention.item not in catalogue
    )
    return sorted(unknown.items(), key=lambda entry: (-entry[1], entry[0]))
