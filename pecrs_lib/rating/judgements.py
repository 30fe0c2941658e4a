"""One rater's way through a study: what is asked next, and every answer on disk at once.

After `replies`, before `human_evaluation`, which counts. A `Sheet` neither prints nor reads keys,
so the terminal (`cli.rate`) is thin, and a `Question` holds no name of a system: whatever shows one
is blind. Each rater has a CSV file of their own, so that raters can work at the same time and on
different machines; every row says rater and study, so the files can be concatenated, too.

The paper (section 4.2, Table 4) has three raters prefer one of two replies, or none, for fluency
and for relevancy.
"""

# DEVIATION: the paper gives neither the wording of its questions nor the order of the replies; the
# wording is ours, order and sides are random.

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from pecrs_lib.data.files import existing_file
from pecrs_lib.data.schema import DataError, Utterance
from pecrs_lib.rating.replies import Context, fingerprint, one_line, shuffled

CRITERIA = {
    "fluency": "Which reply is better English: grammatical, natural, easy to read?",
    "relevancy": "Which reply fits the conversation better: what was said, what is wanted?",
}
CHOICES = ("left", "right", "tie")
ALL = "all"  # what the tables call the raters together


@dataclass(frozen=True, slots=True)
class Judgement:
    """A row of the file: what one rater said of one context by one criterion.

    `left` and `right` are the systems that stood there; `choice` is one of `CHOICES`.
    """

    study: str
    rater: str
    dialogue: str
    turn: int
    criterion: str
    left: str
    right: str
    choice: str

    @property
    def preferred(self) -> str | None:
        """The system whose reply was preferred; None for a tie."""
        return {"left": self.left, "right": self.right}.get(self.choice)


COLUMNS = [field.name for field in fields(Judgement)]


@dataclass(frozen=True, slots=True)
class Question:
    """What a rater is shown: the `number`-th of `of` contexts, and the criterion in question."""

    number: int
    of: int
    history: tuple[Utterance, ...]
    left: str
    right: str
    criterion: str


class Sheet:
    """The questions of one rater in their order, and the answers so far.

    Order and sides come from rater and study alone, so another process goes on where this one
    stopped. Each system stands on the left half of the time: who always says "left" prefers neither
    (with an odd number of contexts, by one). One process at a time may hold a file.

    Args:
        study: contexts with two replies each.
        rater: a name; not "all".
        path: the rater's CSV file; continued if it is there.

    Attributes:
        judgements: the answers so far.
        dropped: bytes of a last line that an interruption left half-written, cut off here.

    Raises:
        ValueError: no study, or no name of a rater.
        DataError: the file holds answers to another study or of another rater.
    """

    def __init__(self, study: Sequence[Context], rater: str, path: str | Path) -> None:
        if not study or any(len(context.replies) != 2 for context in study):
            raise ValueError("contexts with two replies each are needed; `replies.pair` makes them")
        one_line(rater, "the name of a rater")
        if rater == ALL:
            raise ValueError(f"{ALL!r} is what the tables call everybody; take another name")
        mark = fingerprint(study)
        self.path, self._contexts = Path(path), shuffled(study, mark, rater, "order")
        first, second = sorted(study[0].replies)
        swapped = {c.key for c in shuffled(study, mark, rater, "side")[: len(study) // 2]}
        self._rows = [  # complete but for the choice
            Judgement(mark, rater, c.dialogue, c.turn, criterion, *sides, choice="")
            for c in self._contexts
            for sides in [(second, first) if c.key in swapped else (first, second)]
            for criterion in CRITERIA
        ]
        self.judgements: list[Judgement] = []
        self.dropped = 0
        if self.path.exists():
            self._resume()

    def _resume(self) -> None:
        """Take over what the file holds: the first answers to the questions, in their order."""
        self.judgements, self.dropped = read_judgements(self.path)
        for line, row in enumerate(self.judgements, start=2):
            if row.study != self._rows[0].study:
                problem = f"an answer to another study: {row.study}, not {self._rows[0].study}"
            elif row.rater != self._rows[0].rater:
                problem = f"an answer of {row.rater!r}; each rater needs a file of their own"
            elif line - 2 >= len(self._rows) or replace(row, choice="") != self._rows[line - 2]:
                problem = "not the question that was asked here; was the file edited?"
            else:
                continue
            raise DataError(problem, path=self.path, line=line)
        self._cut(self.dropped)

    def _cut(self, size: int) -> None:
        """Take the last `size` bytes off the file."""
        with self.path.open("r+b") as file:
            file.truncate(self.path.stat().st_size - size)

    @property
    def question(self) -> Question | None:
        """What to ask next; None when all is answered."""
        if len(self.judgements) == len(self._rows):
            return None
        row = self._rows[len(self.judgements)]
        place = len(self.judgements) // len(CRITERIA)
        context = self._contexts[place]
        left, right = context.replies[row.left], context.replies[row.right]
        return Question(place + 1, len(self._contexts), context.history, left, right, row.criterion)

    def answer(self, choice: str) -> None:
        """Answer the question; the answer is in the file when this returns.

        Raises:
            ValueError: no such choice, or nothing is left to ask.
        """
        if choice not in CHOICES:
            raise ValueError(f"a choice is one of {', '.join(CHOICES)}, got {choice!r}")
        if self.question is None:
            raise ValueError("every question is answered")
        row = replace(self._rows[len(self.judgements)], choice=choice)
        with self.path.open("ab") as file:
            file.write((b"" if file.tell() else _HEADER) + _line(astuple(row)))
        self.judgements.append(row)

    def undo(self) -> bool:
        """Take back the last answer, in the file as well; False if there is none."""
        if not self.judgements:
            return False
        lines = self.path.read_bytes().splitlines(keepends=True)
        self._cut(len(lines[-1]))
        self.judgements.pop()
        return True


def _line(cells: Sequence[str | int]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


_HEADER = _line(COLUMNS)


def read_judgements(path: str | Path) -> tuple[list[Judgement], int]:
    """The rows of a CSV file of judgements, of one rater or several, and the size of half a row.

    An interruption can leave half a line at the end, without its line break: it is left out, and
    its bytes are counted.

    Raises:
        DataError: other columns, or a cell that cannot be.
    """
    content = existing_file(path).read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    half = len(content) - len(whole)
    if not whole and _HEADER.startswith(content):
        return [], half
    try:
        rows = list(csv.reader(whole.decode("utf-8-sig").splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"not a CSV file in UTF-8: {error}", path=path) from error
    if not rows or rows[0] != COLUMNS:
        raise DataError(
            f"not a file of judgements: its columns must be {','.join(COLUMNS)}", path=path
        )
    return [_judgement(row, path, line) for line, row in enumerate(rows[1:], start=2)], half


def _judgement(row: Sequence[str], path: str | Path, line: int) -> Judgement:
    if len(row) != len(COLUMNS):
        raise DataError(f"{len(row)} cells, the header has {len(COLUMNS)}", path=path, line=line)
    cells = dict(zip(COLUMNS, row, strict=True))
    for name, allowed in (("criterion", CRITERIA), ("choice", CHOICES)):
        if cells[name] not in allowed:
            raise DataError(
                f"must be one of {', '.join(allowed)}, got {cells[name]!r}",
                path=path, line=line, field=name,
            )  # fmt: skip
    if not cells["turn"].isdecimal():
        raise DataError(f"a number is expected, got {cells['turn']!r}", path=path, line=line,
                        field="turn")  # fmt: skip
    if cells["left"] == cells["right"]:
        raise DataError(f"{cells['left']!r} is on both sides", path=path, line=line)
    return Judgement(**{**cells, "turn": int(cells["turn"])})  # type: ignore[arg-type]
