"""Bring your own dialogues as a table: a row for every utterance.

A reader of the first step of the flow. Beside it `jsonl` says exactly which words name an item;
here the titles of the catalogue are looked up in the text. Columns::

    dialogue,role,text,items
    d1,seeker,I liked Up (2009),m1
    d1,recommender,Then see Brave (2012)!,m2

`items` are the ids of what the utterance mentions, separated by ``|``; it may be empty. The rows of
a dialogue stand together, in order. Cells may be separated by tabs instead of commas.
"""

from __future__ import annotations

from pathlib import Path

from pecrs_lib.data.files import Field
from pecrs_lib.data.schema import Catalogue, Dialogue, Mention, Utterance
from pecrs_lib.data.spans import locate
from pecrs_lib.data.tables import own_table

COLUMNS = ("dialogue", "role", "text", "items")


def read_csv(path: str | Path, catalogue: Catalogue | None = None) -> list[Dialogue]:
    """Read dialogues from a ``.csv`` or ``.tsv`` file, gzipped if it ends in ``.gz``.

    Args:
        catalogue: where a text spells out the title of an item that its row lists, the words are
            its mention; other items belong to the utterance without words.

    Raises:
        DataError: a missing or unknown column, a role that is none, or rows of a dialogue that do
            not stand together; with file, line and column.
    """
    said: dict[str, list[Utterance]] = {}
    ends: dict[str, int | None] = {}  # dialogue -> its last line so far
    last = ""
    for row in own_table(path, COLUMNS, COLUMNS):
        name = row.get("dialogue").identifier()
        if name in said and name != last:
            raise row.get("dialogue").error(
                f"rows of {name!r} stand apart: its last one is line {ends[name]}"
            )
        said.setdefault(name, []).append(_utterance(row, catalogue))
        ends[name], last = row.line, name
    return [Dialogue(name, tuple(utterances)) for name, utterances in said.items()]


def _utterance(row: Field, catalogue: Catalogue | None) -> Utterance:
    text = row.get("text").text()
    items = [item.strip() for item in row.get("items").text().split("|") if item.strip()]
    known = [item for item in items if catalogue is not None and item in catalogue]
    names = [] if catalogue is None else [(item, _spelled(item, text, catalogue)) for item in known]
    mentions = (*locate(text, names), *(Mention(item) for item in items if item not in known))
    return Utterance(row.get("role").role(), text, mentions)


def _spelled(item: str, text: str, catalogue: Catalogue) -> str:
    """The name to look for: with the year where the text has it."""
    movie = catalogue[catalogue.row[item]]
    return movie.name if movie.name in text else movie.title
