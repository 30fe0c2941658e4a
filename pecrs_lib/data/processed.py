"""The paper authors' own files: processed dialogues and the ``movie_db`` of item texts.

A reader of the first step of the flow. Reading what the authors trained on keeps our numbers
comparable with theirs: the same merging, the same mentions, the same item ids (the data of the
paper's Table 1). Both kinds of file were written by ``torch.save`` and are loaded as plain data:
a file that asks for code to be run is refused.

The first element of a dialogue names a role but does not say who speaks first (most say ``SEEKER``
before a recommender's utterance); the prefix of each text, ``A: `` for the recommender and
``B: `` for the seeker, does.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch

from pecrs_lib.data.files import Field, existing_file, shown, stem
from pecrs_lib.data.schema import Catalogue, DataError, Dialogue, Movie, Role, Utterance
from pecrs_lib.data.spans import fill, split_year, squeeze

PLACEHOLDER = "[MOVIE_ID]"
_PLACEHOLDER = re.compile(re.escape(PLACEHOLDER))
_PREFIXES: dict[str, Role] = {"A: ": "recommender", "B: ": "seeker"}


def read_processed(path: str | Path, catalogue: Catalogue | None = None) -> list[Dialogue]:
    """Read ``[(first role, [(text, [item ids] or None), …]), …]``.

    Each ``[MOVIE_ID]`` of a text becomes the name of its item where `catalogue` has it, and stays
    ``[MOVIE_ID]`` where it does not; either way a Mention spans it. A text with more or fewer
    placeholders than ids raises DataError (no file of the authors has one). The id of a dialogue
    is ``<file>:<index>``, counted from 0.
    """
    content = Field(_load(path), Path(path))
    dialogues = []
    for i, entry in enumerate(content.each()):
        parts = entry.each()
        if len(parts) != 2:
            raise entry.error("a pair (first role, utterances) is expected")
        parts[0].text()
        utterances = tuple(_utterance(field, catalogue) for field in parts[1].each())
        dialogues.append(Dialogue(f"{stem(path)}:{i}", utterances))
    return dialogues


def _utterance(field: Field, catalogue: Catalogue | None) -> Utterance:
    pair = field.each()
    if len(pair) != 2:
        raise field.error("a pair (text, item ids or None) is expected")
    text = pair[0].text()
    role = _PREFIXES.get(text[:3])
    if role is None:
        raise pair[0].error(f"must start with one of {tuple(_PREFIXES)}, got {shown(text)}")
    text = text[3:].replace("QUOTATION_MARK", '"')
    items = [item.identifier() for item in pair[1].each()] if pair[1].value is not None else []
    if text.count(PLACEHOLDER) != len(items):
        raise field.error(f"{text.count(PLACEHOLDER)} {PLACEHOLDER} in the text, {len(items)} ids")
    following = iter(items)

    def name(_: re.Match[str]) -> tuple[str, str]:
        item = next(following)
        if catalogue is None or item not in catalogue:
            return item, PLACEHOLDER
        return item, catalogue[catalogue.row[item]].name or PLACEHOLDER

    return Utterance(role, *fill(text, _PLACEHOLDER, name))


def read_movie_db(path: str | Path) -> Catalogue:
    """Read ``{id: "title [SEP] actors [SEP] director(s) [SEP] genre(s) [SEP] plot"}``.

    People and genres are separated by commas, ``nan`` stands for unknown. The titles of ReDial's
    file are in lower case and without a year, so 235 of them name several films; a year in
    parentheses at the end of a title becomes `Movie.year`.
    """
    content = _load(path)
    if not isinstance(content, dict):
        raise DataError(f"a dict of item texts is expected, got {shown(content)}", path=path)
    movies: dict[str, Movie] = {}
    for key, value in content.items():
        field = Field(value, Path(path), name=f"[{key!r}]")
        item = Field(key, Path(path), name=f"[{key!r}]").identifier()
        parts = field.text().split("[SEP]", 4)  # a fifth separator would belong to the plot
        if len(parts) != 5:
            raise field.error(f"5 parts between [SEP] are expected, got {len(parts)}")
        title, year = split_year(parts[0])
        actors, directors, genres = (_names(part) for part in parts[1:4])
        plot = "" if squeeze(parts[4]) == "nan" else squeeze(parts[4])
        if item in movies:
            raise field.error(f"item id {item!r} occurs twice")
        movies[item] = Movie(item, title, year, actors, directors, genres, plot)
    return Catalogue(tuple(movies.values()))


def _names(text: str) -> tuple[str, ...]:
    names = (squeeze(part) for part in text.split(","))
    return tuple(name for name in names if name and name != "nan")


def _load(path: str | Path) -> object:
    path = existing_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error).upper():
            raise DataError(
                "refused: the file holds a Python object (a pickle global), and loading it would "
                f"run its code; lists, tuples, dicts, strings and numbers are read ({error})",
                path=path,
            ) from error
        raise DataError(f"not a torch.save file: {error}", path=path) from error
    except Exception as error:  # torch has a dozen kinds for a damaged file
        raise DataError(f"not a torch.save file: {error}", path=path) from error
