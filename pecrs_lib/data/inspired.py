"""INSPIRED (Hayati et al., 2020) as `Dialogue`s, from its official tab-separated files.

A reader of the first step of the flow; the paper's second corpus (Table 1). One row is one
utterance. The columns used are ``dialog_id``, ``speaker``, ``text`` and ``movies``, the films an
automatic tagger found in the utterance, as ``Frozen 2 (2019); It (1990)``.

The files have no item ids: the id is the name as given, white space normalised (``"Frozen 2
(2019)"``), so two spellings are two items until `match_catalogue` joins them. Cells are not
quoted; annotators' double quotes are written ``QUOTATION_MARK`` and become ``"``. The tagger errs
("It stars Bill Murray" mentions *It*): its films are kept, being what every published result uses.
"""

from __future__ import annotations

import re
from pathlib import Path

from pecrs_lib.data.files import tsv_rows
from pecrs_lib.data.schema import DataError, Dialogue, Role, Utterance
from pecrs_lib.data.spans import locate, merge_consecutive, split_year, squeeze

_COLUMNS = ("dialog_id", "speaker", "text", "movies")
_SPEAKERS: dict[str, Role] = {"SEEKER": "seeker", "RECOMMENDER": "recommender"}
# Titles may hold a semicolon (Steins;Gate); names end in a parenthesis, so separators follow one.
_SEPARATOR = re.compile(r"(?<=\))\s*;\s*")


def read_inspired(path: str | Path, merge: bool = True) -> list[Dialogue]:
    """Read an INSPIRED ``.tsv`` file; `merge` joins consecutive utterances of one speaker.

    Spans are looked for in the text by title, without the year; a film the text does not spell
    out ("the last Avengers film") is a mention without a span. Rows of a dialogue must stand
    together; raises DataError otherwise, and for unknown speakers or missing columns.
    """
    header, rows = tsv_rows(path)
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        raise DataError(
            f"column missing; the header is {header}", path=path, line=1, field=missing[0]
        )
    name, speaker, text, movies = (header.index(column) for column in _COLUMNS)
    turns: dict[str, list[Utterance]] = {}
    current = ""
    for line, cells in rows:
        if not turns or cells[name] != current:
            current = cells[name]
            if not current or current in turns:
                raise DataError(
                    f"dialogue {current!r} was left and comes back" if current else "missing",
                    path=path,
                    line=line,
                    field="dialog_id",
                )
            turns[current] = []
        if cells[speaker] not in _SPEAKERS:
            raise DataError(
                f"must be one of {tuple(_SPEAKERS)}, got {cells[speaker]!r}",
                path=path,
                line=line,
                field="speaker",
            )
        turns[current].append(_utterance(_SPEAKERS[cells[speaker]], cells[text], cells[movies]))
    if not turns:
        raise DataError("a header and no rows", path=path, line=1)
    return [
        Dialogue(name, merge_consecutive(utterances) if merge else tuple(utterances))
        for name, utterances in turns.items()
    ]


def _utterance(role: Role, text: str, movies: str) -> Utterance:
    text = text.replace("QUOTATION_MARK", '"')
    names = [squeeze(name) for name in _SEPARATOR.split(movies) if name.strip()]
    return Utterance(role, text, locate(text, [(name, split_year(name)[0]) for name in names]))
