"""Catalogues of films from and to files: what can be recommended, as text.

A reader of the first step of the flow, beside those of the dialogues; `items.py` turns the result
into vectors (paper, Eq 1). Formats, told apart by suffix and header or named by `format`:

==============  =================================================================================
``csv``         columns id, title, year, actors, directors, genres, plot; lists split by ``|``;
                commas or tabs between the cells
``jsonl``       the same fields, one object per line, lists as lists
``inspired``    INSPIRED's ``movie_database.tsv``; its rows have no ids that dialogues use, so
                the id is the name, ``Frozen 2 (2019)``, as `read_inspired` has it
``redial``      ReDial's ``movies_with_mentions.csv`` (movieId, movieName, nbMentions)
``movie_db``    the paper authors' ``torch.save`` file of item texts (no suffix, or ``.pt``)
==============  =================================================================================

Of ``csv`` and ``jsonl`` only the id and the title are required, of ``inspired`` the title.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pecrs_lib.data.files import Field, json_records, numbered_lines, shown
from pecrs_lib.data.jsonl import write_bytes
from pecrs_lib.data.processed import read_movie_db
from pecrs_lib.data.redial import clean_name
from pecrs_lib.data.schema import Catalogue, DataError, Movie
from pecrs_lib.data.spans import split_year, squeeze
from pecrs_lib.data.tables import own_table, table

_LISTS = ("actors", "directors", "genres")
FIELDS = ("id", "title", "year", "actors", "directors", "genres", "plot")
# INSPIRED's column first, then the names that exports of other film tables use for the same.
_ALIASES = {
    "title": ("title", "movie_title", "name"),
    "year": ("year", "release_year"),
    "actors": ("actors", "actor", "cast", "stars"),
    "directors": ("director", "directors"),
    "genres": ("genre", "genres"),
    "plot": ("short_plot", "long_plot", "plot", "overview"),
}
_UNKNOWN = ("", "n/a", "nan", "none")  # how tables write "unknown"


def read_catalogue(path: str | Path, format: str | None = None) -> Catalogue:
    """Read a catalogue; `format` is one of `CATALOGUE_FORMATS`, by default told from the file.

    Raises DataError for an unknown format, a missing column, a wrong value, an id used twice.
    """
    if format is None:
        format = _detect(Path(path))
    if format not in CATALOGUE_FORMATS:
        known = ", ".join(CATALOGUE_FORMATS)
        raise DataError(f"unknown catalogue format {format!r}; known are {known}", path=path)
    catalogue = CATALOGUE_FORMATS[format](path)
    if not len(catalogue):
        raise DataError("the file holds no movie", path=path)
    return catalogue


def _detect(path: Path) -> str:
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix in (".jsonl", ".json"):
        return "jsonl"
    if suffix in (".csv", ".tsv"):
        _, header = next(numbered_lines(path), (0, ""))  # a gzip file may hold nothing
        if suffix == ".tsv" and "id" not in header.split("\t"):
            return "inspired"
        return "redial" if header.startswith("movieId,") else "csv"
    if suffix in ("", ".pt", ".pth"):
        return "movie_db"
    raise DataError(f"suffix {suffix!r} tells no catalogue format; name it with format=", path=path)


def _read_csv(path: str | Path) -> Catalogue:
    movies: list[Movie] = []
    lines: dict[str, int | None] = {}  # id -> its line
    for row in own_table(path, FIELDS, FIELDS[:2]):
        title, item = row.get("title").text(), row.get("id").identifier()
        actors, directors, genres = (_split(row, key, "|") for key in _LISTS)
        plot = row.get("plot").text() if row.has("plot") else ""
        movies.append(
            _new(row, lines, Movie(item, title, _year(row), actors, directors, genres, plot))
        )
    return Catalogue(tuple(movies))


def _read_jsonl(path: str | Path) -> Catalogue:
    movies: list[Movie] = []
    lines: dict[str, int | None] = {}  # id -> its line
    for record in json_records(path):
        record.only(*FIELDS)
        title, item = record.get("title").text(), record.get("id").identifier()
        year = record.get("year").integer() if record.value.get("year") is not None else None
        actors, directors, genres = (
            tuple(name.text() for name in record.get(key).each()) if record.has(key) else ()
            for key in _LISTS
        )
        plot = record.get("plot").text() if record.has("plot") else ""
        movies.append(
            _new(record, lines, Movie(item, title, year, actors, directors, genres, plot))
        )
    return Catalogue(tuple(movies))


def _read_inspired(path: str | Path) -> Catalogue:
    """A second row of one name (the table has a row per trailer) gets the id ``Name #2``."""
    movies: dict[str, Movie] = {}
    for row in table(path, "\t", plain=True):
        column = {
            key: next((name for name in names if row.value.get(name)), names[0])
            for key, names in _ALIASES.items()
        }
        if column["title"] not in row.value:
            raise row.error(
                "no column 'title'; this was read as INSPIRED's movie_database.tsv, for it has no "
                "column 'id': a table of your own needs both"
            )
        title, year = split_year(row.get(column["title"]).text())
        if not title:
            raise row.get(column["title"]).error("empty")
        actors, directors, genres = (_split(row, column[key], ",") for key in _LISTS)
        plot = squeeze(row.value.get(column["plot"], ""))
        year = year or _year(row, column["year"])
        movie = Movie("", title, year, actors, directors, genres, plot)
        item, copies = movie.name, 1
        while item in movies:
            copies += 1
            item = f"{movie.name} #{copies}"
        movies[item] = replace(movie, id=item)
    return Catalogue(tuple(movies.values()))


def _read_redial(path: str | Path) -> Catalogue:
    movies: list[Movie] = []
    lines: dict[str, int | None] = {}  # id -> its line
    for row in table(path, ","):
        title, year = split_year(clean_name(row.get("movieName").text()))
        movies.append(_new(row, lines, Movie(row.get("movieId").identifier(), title, year)))
    return Catalogue(tuple(movies))


CATALOGUE_FORMATS: dict[str, Callable[[str | Path], Catalogue]] = {
    "csv": _read_csv,
    "jsonl": _read_jsonl,
    "inspired": _read_inspired,
    "redial": _read_redial,
    "movie_db": read_movie_db,
}


def _year(row: Field, column: str = "year") -> int | None:
    """A year, also as ``1999.0`` (tables exported with gaps) or ``2008–2013`` (its first)."""
    cell = row.value.get(column, "").strip()
    if cell.lower() in _UNKNOWN:
        return None
    found = re.fullmatch(r"(\d{4})(?:\.0|\D+(?:\d{4}\)?)?\s*)?", cell)
    if not found:
        raise row.get(column).error(f"a year is expected, got {shown(cell)}")
    return int(found[1])


def _split(row: Field, column: str, separator: str) -> tuple[str, ...]:
    names = (squeeze(name) for name in row.value.get(column, "").split(separator))
    return tuple(name for name in names if name.lower() not in _UNKNOWN)


def _new(field: Field, lines: dict[str, int | None], movie: Movie) -> Movie:
    """The movie, if its id is new and its title is not empty."""
    if not movie.title.strip():
        raise field.error(f"movie {movie.id!r} has an empty title")
    if movie.id in lines:
        raise field.error(f"id {movie.id!r} is the id of line {lines[movie.id]} already")
    lines[movie.id] = field.line
    return movie


def _lists(movie: Movie) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return movie.actors, movie.directors, movie.genres


def write_catalogue(catalogue: Catalogue, path: str | Path) -> None:
    """Write ``.jsonl`` or ``.csv``, either gzipped, so that `read_catalogue` gives it back equal.

    A CSV cannot hold every catalogue (a name with ``|``, stray blanks or a lone carriage return
    in it): then nothing is written and DataError names the movie.
    """
    path = Path(path)
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix == ".jsonl":
        rows = [dict(zip(FIELDS, _cells(movie), strict=True)) for movie in catalogue]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif suffix == ".csv":
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(FIELDS)
        for movie in catalogue:
            for name in (name for names in _lists(movie) for name in names):
                if "|" in name or name != squeeze(name) or name.lower() in _UNKNOWN:
                    raise DataError(
                        f"movie {movie.id!r}: a CSV list cannot hold {name!r}", path=path
                    )
            if "\r" in f"{movie.id}{movie.title}{movie.plot}":
                raise DataError(f"movie {movie.id!r} holds a carriage return", path=path)
            cells = _cells(movie)
            writer.writerow("|".join(c) if isinstance(c, tuple) else c for c in cells)
        text = stream.getvalue()
    else:
        raise DataError(f"suffix must be .jsonl or .csv, got {path.suffix!r}", path=path)
    try:
        write_bytes(text.encode(), path)
    except UnicodeEncodeError as error:
        raise DataError("a text holds half of a surrogate pair", path=path) from error


def _cells(movie: Movie) -> tuple[object, ...]:
    return (movie.id, movie.title, movie.year, *_lists(movie), movie.plot)
