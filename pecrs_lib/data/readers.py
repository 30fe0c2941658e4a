"""One door to all dialogue formats, which says what is wrong with a file.

The last of the readers: `read_dialogues` calls the reader of a named format, and when that fails
on a file that looks like another format, names the other one.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from pecrs_lib.data.dialogue_csv import COLUMNS, read_csv
from pecrs_lib.data.files import existing_file, numbered_lines
from pecrs_lib.data.inspired import read_inspired
from pecrs_lib.data.jsonl import read_jsonl
from pecrs_lib.data.processed import read_processed
from pecrs_lib.data.redial import read_redial
from pecrs_lib.data.schema import Catalogue, DataError, Dialogue

FORMATS: dict[str, Callable[[Path, Catalogue | None], list[Dialogue]]] = {
    "redial": lambda path, _: read_redial(path),
    "inspired": lambda path, _: read_inspired(path),
    "pecrs": read_processed,
    "jsonl": lambda path, _: read_jsonl(path),
    "csv": read_csv,
}


def read_dialogues(
    path: str | Path, format: str, catalogue: Catalogue | None = None
) -> list[Dialogue]:
    """Read dialogues; `format` is a key of `FORMATS`.

    `catalogue` gives the titles where the texts have none (``pecrs``) or where nothing says which
    words they are (``csv``); the other formats do not need it. Raises DataError with file, line
    and field for anything that is not as it should be.
    """
    if format not in FORMATS:
        known = ", ".join(FORMATS)
        raise DataError(f"unknown dialogue format {format!r}; known are {known}", path=path)
    path = existing_file(path)
    try:
        dialogues = FORMATS[format](path, catalogue)
        if not dialogues:
            raise DataError("the file holds no dialogue", path=path)
    except DataError as error:
        likely = likely_format(path)
        if likely is None or likely == format:
            raise
        raise DataError(f"{error} (the file looks like format {likely!r})") from error
    return dialogues


def likely_format(path: str | Path) -> str | None:
    """The format whose marks the beginning of a file bears, or None; it is not validated."""
    path = existing_file(path)
    if zipfile.is_zipfile(path):
        return "pecrs"
    try:
        first = next((line for _, line in numbered_lines(path) if line.strip()), "")
    except DataError:  # not text
        return None
    if first.startswith("dialog_id\t"):
        return "inspired"
    if any(set(COLUMNS) <= set(first.split(separator)) for separator in ",\t;"):
        return "csv"
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return None
    if "messages" in value or "turns" in value:
        return "redial"
    return "jsonl" if "utterances" in value else None
