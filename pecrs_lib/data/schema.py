"""What a conversation about films is made of: the types every other module speaks.

First step of the flow: the readers of this package build these from files, `context.py` turns
them into tokens. They hold text and item ids only: no tensor, no tokenizer (paper, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Role = Literal["seeker", "recommender"]
ROLES: dict[str, Role] = {  # what people call them in data of their own
    "seeker": "seeker",
    "user": "seeker",
    "recommender": "recommender",
    "system": "recommender",
}


class DataError(ValueError):
    """Bad input data. The message names the file, the line and the field where they are known."""

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        place = ":".join(str(part) for part in (path, line) if part is not None)
        parts = [part for part in (place, f"field '{field}'" if field else "", problem) if part]
        super().__init__(": ".join(parts))


@dataclass(frozen=True, slots=True)
class Movie:
    """A catalogue item as text. `id` is unique in its catalogue; unknown fields stay empty."""

    id: str
    title: str
    year: int | None = None
    actors: tuple[str, ...] = ()
    directors: tuple[str, ...] = ()
    genres: tuple[str, ...] = ()
    plot: str = ""

    @property
    def name(self) -> str:
        """Title with year, as people write it: ``Up (2009)``."""
        return f"{self.title} ({self.year})" if self.year else self.title


@dataclass(frozen=True, slots=True)
class Mention:
    """An item named in an utterance.

    `start` and `end` delimit the words of the text that name it (Python slice, characters); both
    are None when the item belongs to the utterance but the text does not spell it out.
    """

    item: str
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Utterance:
    """One turn of one speaker: natural text, and the items it mentions in the order of the text."""

    role: Role
    text: str
    mentions: tuple[Mention, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise DataError(f"role must be one of {get_args(Role)}, got {self.role!r}")
        end = 0
        for mention in self.mentions:
            if (mention.start is None) != (mention.end is None):
                raise DataError(f"mention of {mention.item!r} has only one of start and end")
            if mention.start is None or mention.end is None:
                continue
            if not end <= mention.start < mention.end <= len(self.text):
                raise DataError(
                    f"mention of {mention.item!r} at [{mention.start}, {mention.end}) overlaps "
                    f"another, is out of order, or leaves the text of {len(self.text)} characters"
                )
            end = mention.end

    @property
    def items(self) -> tuple[str, ...]:
        """Distinct item ids in order of first mention."""
        return tuple(dict.fromkeys(mention.item for mention in self.mentions))


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation between a seeker and a recommender."""

    id: str
    utterances: tuple[Utterance, ...]

    def __len__(self) -> int:
        return len(self.utterances)

    def mentioned_before(self, turn: int) -> set[str]:
        """Item ids mentioned by either speaker before utterance `turn` (0-based)."""
        return {item for utterance in self.utterances[:turn] for item in utterance.items}


@dataclass(frozen=True)
class Catalogue:
    """The items that can be recommended; row j of every item tensor is `movies[j]`."""

    movies: tuple[Movie, ...]
    row: dict[str, int] = field(init=False, repr=False, compare=False)  # item id -> row

    def __post_init__(self) -> None:
        row: dict[str, int] = {}
        for j, movie in enumerate(self.movies):
            if movie.id in row:
                raise DataError(f"item id {movie.id!r} occurs twice (rows {row[movie.id]} and {j})")
            row[movie.id] = j
        object.__setattr__(self, "row", row)

    def __len__(self) -> int:
        return len(self.movies)

    def __getitem__(self, row: int) -> Movie:
        return self.movies[row]

    def __iter__(self) -> Iterator[Movie]:
        return iter(self.movies)

    def __contains__(self, item: object) -> bool:
        return item in self.row

    @classmethod
    def of_mentions(cls, dialogues: Iterable[Dialogue]) -> Catalogue:
        """A catalogue of bare ids, for data that come without item texts.

        Sorted, numbers as numbers: where scores tie, the order of the catalogue decides.
        """
        items = {m.item for d in dialogues for u in d.utterances for m in u.mentions}
        order = sorted(items, key=lambda i: (not i.isdecimal(), int(i) if i.isdecimal() else 0, i))
        return cls(tuple(Movie(id=item, title=item) for item in order))
