"""A data set from a folder that is at hand: copies, or parts of the originals, laid out by hand.

Beside `corpora`, which downloads the originals and gives the same three parts. What the two layouts
lack is worked around, and said here: `inspired_folder` recovers item texts, `redial_folder` does
without the official test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pecrs_lib.data.files import json_records
from pecrs_lib.data.matching import match_catalogue, most_detailed
from pecrs_lib.data.processed import read_movie_db, read_processed
from pecrs_lib.data.redial import read_redial
from pecrs_lib.data.schema import Catalogue, DataError, Dialogue, Movie
from pecrs_lib.data.splits import split_by_dialogue

Corpus = tuple[Catalogue, dict[str, list[Dialogue]]]


def recovered_catalogue(path: Path) -> Catalogue:
    """A catalogue from rows of {"id", "match": {title, year, actors, …} or null}.

    The dialogues of the paper's authors name films by number; films whose title was not recovered
    get their number for a title.
    """
    movies = []
    for row in json_records(path):
        item, match = row.get("id").identifier(), row.get("match")
        if match.value is None:
            movies.append(Movie(id=item, title=f"Film {item}"))
            continue
        film = {"title": match.get("title").text(), **match.value}
        movies.append(
            Movie(
                id=item,
                title=film["title"],
                year=film.get("year"),
                actors=tuple(film.get("actors") or ())[:5],
                directors=tuple(film.get("directors") or ()),
                genres=tuple(film.get("genres") or ()),
                plot=(film.get("plots") or {}).get("tmdb") or "",
            )
        )
    return Catalogue(tuple(movies))


def inspired_folder(folder: Path) -> Corpus:
    """INSPIRED as the paper's authors prepared it, in `pecrs/`.

    Item texts are those of `pecrs/movie_db`, or, where only a table of recovered titles is at hand,
    of `id2movie.jsonl.gz`.
    """
    authors = folder / "pecrs"
    if (authors / "movie_db").exists():
        catalogue = read_movie_db(authors / "movie_db")
    else:
        catalogue = recovered_catalogue(folder / "id2movie.jsonl.gz")
    files = {"train": "train", "valid": "dev", "test": "test"}
    return catalogue, {
        part: read_processed(authors / f"{name}_data_processed", catalogue)
        for part, name in files.items()
    }


def redial_folder(folder: Path) -> Corpus:
    """ReDial's dialogues in `train.jsonl.gz` and `valid.jsonl.gz`, item texts in `movie_db`.

    Films are matched to the item texts by title, since the two number them differently. These texts
    have no years: of several films with a title the one with the fullest text is taken, or else
    the first, since a mention that is left out could not be found by anyone. The second file is
    the test part, for the official test set is not there; a tenth of the first is put aside for
    validation, the same one every time.
    """
    catalogue = read_movie_db(folder / "movie_db")
    train = read_redial(folder / "train.jsonl.gz")
    test = read_redial(folder / "valid.jsonl.gz")

    def one(name: str, movies: Sequence[Movie]) -> Movie:
        return most_detailed(name, movies) or movies[0]

    matched, _ = match_catalogue([*train, *test], catalogue, choose=one)
    train, valid, _ = split_by_dialogue(matched[: len(train)])
    return catalogue, {"train": train, "valid": valid, "test": matched[len(train) + len(valid) :]}


FOLDERS = {"inspired": inspired_folder, "redial": redial_folder}


def load_folder(name: str, folder: str | Path) -> Corpus:
    """The data set `name` from a folder in the layout that `FOLDERS` documents.

    Raises:
        DataError: no such layout, or a file of it is missing.
    """
    if name not in FOLDERS:
        raise DataError(f"'{name}' is not read from a folder, only {' and '.join(FOLDERS)} are")
    if not Path(folder).is_dir():
        raise DataError("no such folder", path=folder)
    return FOLDERS[name](Path(folder))
