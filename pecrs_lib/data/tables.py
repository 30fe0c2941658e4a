"""Tables of text: the rows of a CSV or TSV file, with their lines for whoever finds a fault.

Stands between `files` and the readers of tables (`movies`, `dialogue_csv`).
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from pecrs_lib.data.files import Field, numbered_lines, shown
from pecrs_lib.data.schema import DataError


def table(path: str | Path, delimiter: str) -> Iterator[Field]:
    """Rows as objects {column: cell}; cells may be quoted and then hold line breaks.

    A tab-separated file whose every line has as many tabs as its header is read without quoting:
    there, quotation marks inside cells are text.
    """
    path = Path(path)
    text = [line for _, line in numbered_lines(path)]
    plain = delimiter == "\t" and len({line.count("\t") for line in text if line}) == 1
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
        raise DataError(f"not a table: {error}", path=path, line=start) from error


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
