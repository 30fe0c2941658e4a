"""``pecrs recommend``: which items to recommend next in a dialogue from stdin or a file."""

from __future__ import annotations

import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pecrs_lib.cli.options import (
    NAMING,
    BackboneOption,
    CacheOption,
    CandidatesOption,
    CatalogueOption,
    JsonOption,
    OwnCheckpointOption,
    RepeatsOption,
    TopOption,
)
from pecrs_lib.cli.terminal import columns, say, show, show_json, stop

if TYPE_CHECKING:  # imported when the command runs: these need torch
    from pecrs_lib.data import Catalogue, Dialogue
    from pecrs_lib.recommend import Recommendation

STDIN = "<stdin>"
SCORES = "only differences of scores mean something"
BATCH = 16  # dialogues read at once


class TextFormat(StrEnum):
    jsonl = "jsonl"
    text = "text"


def recommend(
    file: Annotated[str, typer.Argument(help="The dialogue; - is stdin.")] = "-",
    checkpoint: OwnCheckpointOption = None,
    format: Annotated[
        TextFormat | None,
        typer.Option(
            "--format",
            help="jsonl: this package's dialogues; text: lines 'seeker: …', 'recommender: …'; "
            "default: told from the first character.",
        ),
    ] = None,
    top: TopOption = 10,
    repeats: RepeatsOption = True,
    candidates: CandidatesOption = None,
    catalogue: CatalogueOption = None,
    backbone: BackboneOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend items to a dialogue from stdin or a file.

    A jsonl file may hold several dialogues; each gets its result. What was named before may come
    again, as in the paper's evaluation; --no-repeats leaves it out. In plain text, a
    film counts as named where it has its year, quotation marks or capitals:
    Up (2009), "Up", Home Alone. What was recognised is said on stderr.

    \b
    JSON:
      {"results": [{"dialogue": id, "mentioned": [id, …],
                    "recommendations": [{"place": 1, "id": …, "title": …, "year": …,
                                         "score": …, "distance": …, "retrieved": …}, …]}, …]}
    `retrieved` is the place after retrieval, before re-ranking; 1 is the nearest.

    \b
    Example:
      echo 'seeker: I loved Home Alone. Something for Christmas?' |
        pecrs recommend --top 5
    """
    from pecrs_lib.cli.folders import find

    place = find(checkpoint, catalogue)
    dialogues = _dialogues(_text(file), STDIN if file == "-" else file, format, place.catalogue)
    from pecrs_lib.cli.trained import load_ready
    from pecrs_lib.recommend import recommend as best

    ready = load_ready(place, backbone, cache)
    results: list[list[Recommendation]] = []
    for start in range(0, len(dialogues), BATCH):
        part = dialogues[start : start + BATCH]
        results += best(
            ready.model, part, ready.catalogue, ready.v, top=top, candidates=candidates,
            exclude_mentioned=not repeats,
        )  # fmt: skip
    if as_json:
        pairs = zip(dialogues, results, strict=True)
        show_json({"results": [_record(dialogue, found) for dialogue, found in pairs]})
        return
    for dialogue, found in zip(dialogues, results, strict=True):
        if len(dialogues) > 1:
            show(f"\n{dialogue.id}")
        show(recommendation_table(found))
    say(SCORES)


def recommendation_table(found: list[Recommendation]) -> str:
    """Place, title, score r, place after retrieval."""
    rows = [
        [str(place), r.movie.name, f"{r.score:.3f}", str(r.retrieved)]
        for place, r in enumerate(found, start=1)
    ]
    return columns([["", "title", "score", "before re-ranking"], *rows], right=[0, 2, 3])


def _text(file: str) -> str:
    if file == "-":
        if sys.stdin.isatty():
            say("lines 'seeker: …' and 'recommender: …', then Ctrl-D:")
        return sys.stdin.read()
    path = Path(file)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        stop(f"{path}: not UTF-8; a dialogue is text")


def _dialogues(
    text: str, name: str, format: TextFormat | None, catalogue: Catalogue
) -> list[Dialogue]:
    from pecrs_lib.cli.inputs import join
    from pecrs_lib.data import DataError, read_jsonl
    from pecrs_lib.data.readers import likely_format
    from pecrs_lib.transcript import read_transcript

    if format is None:
        json_like = text.lstrip().startswith(("{", "["))
        format = TextFormat.jsonl if json_like else TextFormat.text
    if format is TextFormat.text:
        try:
            dialogue = read_transcript(text, catalogue, name)
        except DataError as error:
            if name == STDIN or likely_format(name) != "csv":
                raise
            way = "`pecrs data convert --format csv … --out d.jsonl` makes dialogues of a table"
            raise DataError(f"{error}; {way}") from error
        named = [catalogue[catalogue.row[i]].name for u in dialogue.utterances for i in u.items]
        say(f"recognised: {'; '.join(dict.fromkeys(named)) or f'no title; {NAMING}'}")
        return [dialogue]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "dialogues.jsonl"
        copy.write_text(text, encoding="utf-8")
        try:
            return join(read_jsonl(copy), catalogue, TextFormat.jsonl, name)
        except DataError as error:
            raise DataError(str(error).replace(str(copy), name)) from error


def _record(dialogue: Dialogue, found: list[Recommendation]) -> dict[str, Any]:
    return {
        "dialogue": dialogue.id,
        "mentioned": sorted(dialogue.mentioned_before(len(dialogue))),
        "recommendations": [
            {
                "place": place,
                "id": r.movie.id,
                "title": r.movie.title,
                "year": r.movie.year,
                "score": r.score,
                "distance": r.distance,
                "retrieved": r.retrieved,
            }
            for place, r in enumerate(found, start=1)
        ],
    }
