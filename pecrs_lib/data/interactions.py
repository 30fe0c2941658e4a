"""Who took what, in order: the interactions that the two related systems learn from.

A reader of the first step of the flow, beside the dialogues; `ilm` and `pod` start here. One form
for all: MiniReel's seekers (bundled), the forms of ReDial, MovieLens-100K and the Amazon sequences
of P5, OpenP5 and IDGenRec (files the user brings; see the readers for their layout).

Items are numbered by the catalogue, or in the sorted order of their ids, never in the order in
which users come to them: that order would give away what comes next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pecrs_lib.data.files import existing_file, numbered_lines
from pecrs_lib.data.minireel import SPLITS, bundled, load_interactions
from pecrs_lib.data.movies import read_catalogue
from pecrs_lib.data.redial import read_liked
from pecrs_lib.data.schema import DataError, Movie


@dataclass(frozen=True)
class Interactions:
    """N items and what each user took of them.

    Attributes:
        items: (N,) ids, each once.
        titles: (N,) what people call an item.
        texts: (N,) what is known of an item in words, its title included.
        users: for every user, items (0 ≤ j < N) in time order, none twice.
    """

    items: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    users: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        n = len(self.items)
        if not len(self.titles) == len(self.texts) == n == len(set(self.items)):
            raise DataError(
                f"{n} item ids ({len(set(self.items))} different), {len(self.titles)} titles, "
                f"{len(self.texts)} texts"
            )
        for u, taken in enumerate(self.users):
            if len(set(taken)) < len(taken):
                raise DataError(f"user {u} has an item twice: {taken}")
            if taken and not 0 <= min(taken) <= max(taken) < n:
                raise DataError(f"user {u} has items outside 0..{n - 1}: {taken}")

    def __len__(self) -> int:
        """N, the number of items."""
        return len(self.items)

    def of(self, users: Iterable[Sequence[int]]) -> Interactions:
        """The same items with other users."""
        return Interactions(self.items, self.titles, self.texts, tuple(map(tuple, users)))

    def at_least(self, n: int) -> Interactions:
        """Without users who took fewer than `n` items."""
        return self.of(taken for taken in self.users if len(taken) >= n)


@dataclass(frozen=True)
class LeaveOneOut:
    """Everybody's last item is for testing, the last but one for validation.

    Attributes:
        train: what came before, of U users.
        valid: (U,) items.
        test: (U,) items; the history before it is that of `train` and `valid`.
    """

    train: Interactions
    valid: tuple[int, ...]
    test: tuple[int, ...]


def leave_one_out(interactions: Interactions) -> LeaveOneOut:
    """Split by time within each user, the protocol of P5, OpenP5 and POD.

    Raises:
        DataError: a user with fewer than three items; see `Interactions.at_least`.
    """
    for u, taken in enumerate(interactions.users):
        if len(taken) < 3:
            raise DataError(f"user {u} has {len(taken)} items, leave-one-out needs 3: {taken}")
    return LeaveOneOut(
        interactions.of(taken[:-2] for taken in interactions.users),
        tuple(taken[-2] for taken in interactions.users),
        tuple(taken[-1] for taken in interactions.users),
    )


def describe_movie(movie: Movie) -> str:
    """A film's text: name, genres, director, actors, plot; what is unknown is left out."""
    facts = (
        ", ".join(movie.genres),
        f"directed by {', '.join(movie.directors)}" if movie.directors else "",
        f"with {', '.join(movie.actors)}" if movie.actors else "",
        movie.plot.rstrip("."),
    )
    return ". ".join(part for part in (movie.name, *facts) if part) + "."


def read_minireel_interactions(split: str = "train") -> Interactions:
    """What the seekers of one part liked, in order; row j is film j of MiniReel's catalogue.

    Seekers of one part appear in no other, so the likes of "train" say nothing of the dialogues of
    "valid" and "test".

    Raises:
        DataError: no such part.
    """
    if split not in SPLITS:
        raise DataError(f"no part {split!r} of MiniReel; there are {', '.join(SPLITS)}")
    catalogue = read_catalogue(bundled("minireel") / "films.jsonl")
    seekers: dict[str, list[int]] = {}
    for it in load_interactions():
        if it.liked and it.split == split:
            seekers.setdefault(it.seeker, []).append(catalogue.row[it.item])
    return Interactions(
        tuple(movie.id for movie in catalogue),
        tuple(movie.name for movie in catalogue),
        tuple(map(describe_movie, catalogue)),
        tuple(tuple(dict.fromkeys(taken)) for taken in seekers.values()),
    )


GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip  # the last columns of MovieLens-100K's u.item


def read_movielens(folder: str | Path) -> Interactions:
    """MovieLens-100K: every rating is an interaction, in the order of their times.

    `folder` holds ``u.data`` (user, item, rating, time) and ``u.item`` (id, title, dates, address,
    19 genre flags), separated by tabs or ``|``, with or without a header. Ratings of one second
    stay in the order of the file.

    Raises:
        DataError: names the file and line of what is not as it should be.
    """
    folder = Path(folder)
    titles: dict[str, str] = {}
    texts: dict[str, str] = {}
    for number, cells in _cells(folder / "u.item", 5 + len(GENRES), "item"):
        item, title, flags = cells[0], cells[1], cells[5:]
        if item in titles:
            raise DataError(f"item {item!r} again", path=folder / "u.item", line=number)
        if not set(flags) <= {"0", "1"}:
            raise DataError(f"genres are 0 or 1, got {flags}", path=folder / "u.item", line=number)
        genres = [name for name, on in zip(GENRES, flags, strict=True) if on == "1"]
        titles[item] = title
        texts[item] = f"{title}. {', '.join(genres)}."
    items = sorted(titles, key=int)
    row = {item: j for j, item in enumerate(items)}
    users: dict[str, list[tuple[int, int]]] = {}
    for number, (user, item, _, time) in _cells(folder / "u.data", 4, "user"):
        if item not in row:
            raise DataError(f"no item {item!r} in u.item", path=folder / "u.data", line=number)
        if not time.isdecimal():
            raise DataError(f"not a time: {time!r}", path=folder / "u.data", line=number)
        users.setdefault(user, []).append((int(time), row[item]))
    ordered = (sorted(users[user], key=lambda rating: rating[0]) for user in sorted(users, key=int))
    return Interactions(
        tuple(items),
        tuple(titles[item] for item in items),
        tuple(texts[item] for item in items),
        tuple(tuple(dict.fromkeys(j for _, j in ratings)) for ratings in ordered),
    )


def _cells(path: Path, n: int, header: str) -> list[tuple[int, list[str]]]:
    """Line numbers and the `n` cells of each line; a first line that starts with `header` is one.

    GroupLens writes Latin-1. The first cell is a number.
    """
    rows = []
    for number, line in enumerate(existing_file(path).read_text("latin-1").split("\n"), start=1):
        cells = re.split(r"[\t|]", line.rstrip("\r"))
        if not line or (number == 1 and cells[0] == header):
            continue
        if len(cells) != n:
            raise DataError(f"{len(cells)} cells, {n} are expected", path=path, line=number)
        if not cells[0].isdecimal():
            raise DataError(f"not a number: {cells[0]!r}", path=path, line=number)
        rows.append((number, cells))
    return rows


def read_redial_forms(path: str | Path) -> Interactions:
    """ReDial's forms: a user for each conversation, who took what its seeker said to have liked.

    `path` is a file of the raw form, such as ``train_data.jsonl``. Films come in the order in which
    the conversation names them; users may have taken nothing. Titles are all that is known of a
    film.

    Raises:
        DataError: names the file, line and field of what is not as it should be.
    """
    names, liked = read_liked(path)
    items = sorted(names, key=int)
    row = {item: j for j, item in enumerate(items)}
    titles = tuple(names[item] or item for item in items)
    return Interactions(
        tuple(items), titles, titles, tuple(tuple(row[item] for item in taken) for taken in liked)
    )


def read_amazon(folder: str | Path, name: str) -> Interactions:
    """Amazon reviews as sequences, the five-core sets "beauty", "toys" and "sports".

    `folder` holds ``amazon_{name}_sequences.txt.gz`` (a user's id and items in time order, with
    spaces between) and ``amazon_{name}_item_text.txt.gz`` (an item's id and a phrase), the files
    ``user_sequence.txt`` and item texts of IDGenRec (Tan et al. 2024). The phrase is all that is
    known of an item, so it is title and text; where it is empty, the id stands for it.

    Raises:
        DataError: names the file and line of what is not as it should be.
    """
    folder = Path(folder)
    path = folder / f"amazon_{name}_item_text.txt.gz"
    phrases: dict[str, str] = {}
    for number, line in numbered_lines(path):
        item, space, phrase = line.partition(" ")
        if not item or not space:
            raise DataError(f"an id and a phrase are expected: {line!r}", path=path, line=number)
        if item in phrases:
            raise DataError(f"item {item!r} again", path=path, line=number)
        phrases[item] = phrase.strip() or item
    items = sorted(phrases)
    row = {item: j for j, item in enumerate(items)}
    path = folder / f"amazon_{name}_sequences.txt.gz"
    users = []
    for number, line in numbered_lines(path):
        _, *taken = line.split()
        if unknown := [item for item in taken if item not in row]:
            raise DataError(f"item {unknown[0]!r} has no text", path=path, line=number)
        users.append(tuple(dict.fromkeys(row[item] for item in taken)))
    words = tuple(phrases[item] for item in items)
    return Interactions(tuple(items), words, words, tuple(users))
