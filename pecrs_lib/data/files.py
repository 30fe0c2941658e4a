"""From bytes to numbered lines and JSON values whose errors know where they stand.

Stands below every reader of this package: they ask here for lines (plain or gzip, always UTF-8)
and for `Field`s, a value together with its file, line and name, so that a complaint about it
reads ``chats.jsonl:17: field 'utterances[2].role': ...`` wherever it is raised.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pecrs_lib.data.schema import ROLES, DataError, Role


def existing_file(path: str | Path) -> Path:
    """The path, if it names a file with something in it; raises DataError otherwise."""
    path = Path(path)
    if path.is_dir():
        raise DataError("this is a folder, a file is expected", path=path)
    if not path.exists():
        raise DataError("no such file", path=path)
    if path.stat().st_size == 0:
        raise DataError("the file is empty", path=path)
    return path


def stem(path: str | Path) -> str:
    """``train`` for ``folder/train.jsonl.gz``; generated dialogue ids begin with it."""
    return Path(path).name.split(".")[0]


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    r"""Yield (1-based number, line without its end) of a UTF-8 file, gzipped if it ends in ``.gz``.

    Lines end at ``\n`` only (optionally ``\r\n``): other characters that Unicode counts as line
    breaks are text. A byte order mark is dropped. Raises DataError at the first bad byte.
    """
    path = existing_file(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"not UTF-8: byte {error.object[error.start]:#04x} at column {error.start};"
                        " save the file as UTF-8",
                        path=path,
                        line=number,
                    ) from error
                yield number, line.removesuffix("\n").removesuffix("\r")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"broken gzip file: {error}", path=path) from error


@dataclass(slots=True)
class Field:
    """A value read from a file, and its place there. Every accessor raises DataError with it."""

    value: Any
    path: Path
    line: int | None = None
    name: str = ""

    def error(self, problem: str) -> DataError:
        return DataError(problem, path=self.path, line=self.line, field=self.name or None)

    def has(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def get(self, key: str) -> Field:
        """The field `key` of an object; missing raises."""
        if not isinstance(self.value, dict):
            raise self.error(f"an object is expected, got {shown(self.value)}")
        child = f"{self.name}.{key}" if self.name else key
        if key not in self.value:
            raise DataError("missing", path=self.path, line=self.line, field=child)
        return Field(self.value[key], self.path, self.line, child)

    def only(self, *allowed: str) -> None:
        """Raise if the object has a field that is not one of `allowed` (a typo would be lost)."""
        if not isinstance(self.value, dict):
            raise self.error(f"an object is expected, got {shown(self.value)}")
        for key in self.value:
            if key not in allowed:
                raise self.error(f"unknown field {key!r}; known are {', '.join(allowed)}")

    def each(self) -> list[Field]:
        """The elements of a list or tuple."""
        if not isinstance(self.value, list | tuple):
            raise self.error(f"a list is expected, got {shown(self.value)}")
        return [
            Field(value, self.path, self.line, f"{self.name}[{i}]")
            for i, value in enumerate(self.value)
        ]

    def text(self) -> str:
        """A string that can be encoded: half of a surrogate pair (broken emoji) raises."""
        if not isinstance(self.value, str):
            raise self.error(f"a string is expected, got {shown(self.value)}")
        try:
            self.value.encode()
        except UnicodeEncodeError as error:
            raise self.error(
                f"half of a surrogate pair at character {error.start}: the text was cut or decoded "
                "wrongly"
            ) from error
        return self.value

    def integer(self) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self.error(f"an integer is expected, got {shown(self.value)}")
        return self.value

    def role(self) -> Role:
        """A speaker, by a name of `ROLES` in capitals or not."""
        said = self.text()
        if said.lower() not in ROLES:
            raise self.error(
                f"must be seeker (or user) or recommender (or system), got {shown(said)}"
            )
        return ROLES[said.lower()]

    def identifier(self) -> str:
        """An id: a non-empty string, or an integer, which becomes its decimal string."""
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            return str(self.value)
        if not isinstance(self.value, str) or not self.value:
            raise self.error(f"an id (string or integer) is expected, got {shown(self.value)}")
        return self.text()


def shown(value: object, limit: int = 60) -> str:
    """A value as it goes into an error message: its repr, shortened."""
    try:
        text = repr(value)
    except RecursionError:  # of lists in lists, deeper than Python goes
        text = f"a {type(value).__name__} nested too deep to show"
    return text if len(text) <= limit else f"{text[:limit]}…"


def number(n: int, thing: str) -> str:
    """``1 point``, ``2,000 points``."""
    return f"{n:,} {thing}{'s' * (n != 1)}"


def json_records(path: str | Path) -> Iterator[Field]:
    """Yield the records of a JSON-lines file, or of a file that is one JSON array.

    Blank lines are skipped. Not JSON, an object with a key twice, or a file without any record
    raises DataError.
    """
    path = existing_file(path)
    lines = numbered_lines(path)
    found = False
    for number, line in lines:
        if not line.strip():
            continue
        if not found and line.lstrip().startswith("["):
            rest = "\n".join([line, *(text for _, text in lines)])
            yield from Field(_parse(rest, path, None), path).each()
            return
        found = True
        yield Field(_parse(line, path, number), path, number)
    if not found:
        raise DataError("the file holds blank lines only", path=path)


def _parse(text: str, path: Path, line: int | None) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(
                "this key occurs twice in one object", path=path, line=line, field=twice
            )
        return result

    try:
        return json.loads(text, object_pairs_hook=unique)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error}): {shown(text)}", path=path, line=line) from error


def tsv_rows(path: str | Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and (line number, cells) of a tab-separated file without quoting rules.

    Quotation marks are ordinary characters there. A row with another number of cells than the
    header raises DataError.
    """
    header: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    for number, line in numbered_lines(path):
        cells = line.split("\t")
        if not header:
            header = cells
        elif line.strip():
            if len(cells) != len(header):
                raise DataError(
                    f"{len(cells)} cells, the header has {len(header)}", path=path, line=number
                )
            rows.append((number, cells))
    return header, rows
