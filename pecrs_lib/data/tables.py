"""Tables of text: the rows of a CSV or TSV file, with their lines for whoever finds a fault.

Stands between `files` and the readers of tables (`movies`, `dialogue_csv`).
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pecrs_lib.data.files import Field, numbered_lines, shown
from pecrs_lib.data.schema import DataError


def own_table(path: str | Path, columns: Sequence[str], needed: Sequence[str]) -> Iterator[Field]:
    """Rows of a table of one's own, with commas or tabs between the cells, as its header has them.

    Raises:
        DataError: another separator, no header, or one without a column of `needed` or with one
            that is not among `columns`; says what to change.
    """
    lines = ((number, line) for number, line in numbered_lines(path) if line.strip())
    number, first = next(lines, (1, ""))
    delimiter = "\t" if "\t" in first else ","
    header = next(csv.reader([first], delimiter=delimiter), [])
    lacking = [name for name in needed if name not in header]
    unknown = [name for name in header if name not in columns]
    if len(header) < 2 <= len(first.split(";")):
        problem = "the separator is ';': save the table with commas or tabs between its cells"
    elif len(unknown) == len(header):
        problem = f"the first line must name the columns, {','.join(columns)}; it is {shown(first)}"
    elif lacking or unknown:
        known = ("known are", columns) if unknown else ("the header has", header)
        problem = f"{_problem(lacking, unknown)}; {known[0]} {', '.join(known[1])}"
    else:
        return table(path, delimiter)
    raise DataError(problem, path=path, line=number)


def _problem(lacking: Sequence[str], unknown: Sequence[str]) -> str:
    parts = []
    if lacking:
        verb = "is missing, add it" if len(lacking) == 1 else "are missing, add them"
        parts.append(f"the {_named(lacking)} {verb}")
    if unknown:
        parts.append(f"unknown {_named(unknown)}")
    return "; ".join(parts)


def _named(columns: Sequence[str]) -> str:
    return f"column{'s' * (len(columns) > 1)} {', '.join(map(repr, columns))}"


def table(path: str | Path, delimiter: str, plain: bool = False) -> Iterator[Field]:
    """Rows as objects {column: cell}; cells may be quoted and then hold line breaks.

    Args:
        plain: where every line has as many separators as the header, nothing is quoted:
            quotation marks are text.
    """
    path = Path(path)
    text = [line for _, line in numbered_lines(path)]
    plain = plain and len({line.count(delimiter) for line in text if line}) == 1
    reader = csv.reader(
        io.StringIO("\n".join(text), newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        strict=True,
    )
    header: list[str] = []
    start = 1
    try:
        for cells in _unlimited(reader):
            line, start = start, reader.line_num + 1
            if not cells:
                continue
            if not header:
                header = cells
                if len(set(header)) < len(header):
                    raise DataError(f"a column occurs twice: {header}", path=path, line=line)
            elif len(cells) != len(header):
                problem = f"{len(cells)} cells, the header has {len(header)}: {shown(cells)}"
                raise DataError(problem, path=path, line=line)
            else:
                yield Field(dict(zip(header, cells, strict=True)), path, line)
    except csv.Error as error:
        raise DataError(
            f"not a table: {error}; a cell that begins with a quotation mark must end with one, "
            "and have those inside it twice",
            path=path,
            line=start,
        ) from error


def _unlimited(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """The rows of a `csv.reader`, with cells of any length; the module's limit stays as it is."""
    while True:
        before = csv.field_size_limit(sys.maxsize)
        try:
            row = next(reader, None)
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        yield row
