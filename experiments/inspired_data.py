"""INSPIRED as the paper's authors prepared it, with the item texts that can be recovered.

Their dialogues name films by number. `data/INSPIRED/movie_db` of their repository has the texts
(`pecrs data download inspired-pecrs`); where only a table of recovered titles is at hand
(`id2movie.jsonl.gz`), films without one get their number for a title.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from pecrs_lib.data import Catalogue, Dialogue, Movie
from pecrs_lib.data.processed import read_movie_db, read_processed

SPLITS = ("train", "dev", "test")


def recovered_catalogue(path: Path) -> Catalogue:
    """A catalogue from rows of {"id", "match": {title, year, actors, …} or null}."""
    movies = []
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines():
        row = json.loads(line)
        film = row["match"]
        if film is None:
            movies.append(Movie(id=str(row["id"]), title=f"Film {row['id']}"))
            continue
        movies.append(
            Movie(
                id=str(row["id"]),
                title=film["title"],
                year=film.get("year"),
                actors=tuple(film.get("actors") or ())[:5],
                directors=tuple(film.get("directors") or ()),
                genres=tuple(film.get("genres") or ()),
                plot=(film.get("plots") or {}).get("tmdb") or "",
            )
        )
    return Catalogue(tuple(movies))


def load(folder: Path) -> tuple[Catalogue, dict[str, list[Dialogue]]]:
    """Catalogue and dialogues from a folder that holds `pecrs/` and one source of item texts."""
    authors = folder / "pecrs"
    if (authors / "movie_db").exists():
        catalogue = read_movie_db(authors / "movie_db")
    else:
        catalogue = recovered_catalogue(folder / "id2movie.jsonl.gz")
    splits = {s: read_processed(authors / f"{s}_data_processed", catalogue) for s in SPLITS}
    return catalogue, splits
