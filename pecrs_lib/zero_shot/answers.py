"""Questions to a language model, and where the answers come from.

Between `asking`, which writes the questions and rates the answers, and the sources, which
share one interface, `AnswerSource`: answers recorded by others (`RecordedAnswers`, here), a model
in this process and a server (`language_models.py`, `servers.py`). The last two remember what was
answered in an `AnswerCache`, so that a run can be broken off and asked again at no cost.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, Self

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from pecrs_lib.data.files import json_records
from pecrs_lib.data.schema import DataError


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked before utterance `turn` of dialogue `dialogue` (both 0-based).

    `messages` are chat messages, (role, content) with roles "system", "user" and "assistant".
    """

    dialogue: int
    turn: int
    messages: tuple[tuple[str, str], ...] = ()

    @property
    def chat(self) -> list[dict[str, str]]:
        """The messages as chat templates and servers take them."""
        return [{"role": role, "content": content} for role, content in self.messages]


class AnswerSource(Protocol):
    """Anything that answers questions: a name for the tables, and one answer per question."""

    @property
    def name(self) -> str: ...

    def answer(self, questions: Sequence[Question]) -> list[str | None]:
        """An answer per question, in their order; None where the source has none."""
        ...


class AnswerCache:
    """Answers on disk, one JSON object a line: a key that tells question and settings, the answer.

    The file holds nothing else: no prompt, no address, no credential. A line that a crash cut off
    is dropped when the file is read again; any other bad line raises `DataError`. Threads of one
    process may share an object, and processes a file: each line is written under a lock
    (not on Windows).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._answers: dict[str, str] = {}
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        with self.path.open("r+b") as file:
            _lock(file)  # nobody is writing
            whole = _cut_off(file)
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                self._answers[entry["key"]] = str(entry["answer"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    "not a cached answer: {key, answer} is expected", path=self.path, line=number
                ) from error

    @staticmethod
    def key(question: Question, settings: Mapping[str, Any]) -> str:
        """SHA-256 of the messages and of whatever else decides the answer (model, temperature)."""
        asked = json.dumps([question.messages, dict(settings)], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()

    def get(self, key: str) -> str | None:
        return self._answers.get(key)

    def put(self, key: str, answer: str) -> None:
        line = json.dumps({"key": key, "answer": answer}) + "\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:
                _lock(file)
                _cut_off(file)
                file.write(line.encode())
            self._answers[key] = answer

    def __len__(self) -> int:
        return len(self._answers)


def _lock(file: IO[bytes]) -> None:
    """Wait for the other processes with this file open; closing it lets the next one in."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)


def _cut_off(file: IO[bytes]) -> bytes:
    """The lines of an open file, which ends in a whole one afterwards."""
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        file.truncate(len(whole))
    return whole


@dataclass(frozen=True)
class Record:
    """A recorded answer, and how He et al. (2023) read it.

    Attributes:
        reply: what the model wrote.
        nearest: for each line of the reply, the entity of their knowledge graph whose name is the
            nearest by edit distance, and that distance in characters.
        targets: names of the films that the recommender really mentioned.
        seen: names of the entities mentioned before.
    """

    dialogue: int
    turn: int
    reply: str
    nearest: tuple[tuple[str, int], ...]
    targets: tuple[str, ...]
    seen: frozenset[str]


@dataclass(frozen=True)
class RecordedAnswers:
    """Answers of one model to INSPIRED's test contexts: He et al. (2023), arXiv 2308.10053."""

    name: str
    records: tuple[Record, ...]

    @classmethod
    def read(cls, path: str | Path, contexts: str | Path, name: str) -> Self:
        """Read an ``extracted.jsonl`` with the ``test.jsonl`` it answers; either may be gzipped.

        The n-th answer belongs to the n-th context, whose ``dialog_id`` and ``turn_id`` count from
        0 as our dialogues and utterances do. Raises `DataError` where the two disagree.
        """
        asked = list(_rows(contexts))
        records = []
        for number, row in _rows(path):
            try:
                index = row["index"]
                context = asked[index][1] if index < len(asked) else None
                if context is None or context["input"] not in row["prompt"]:
                    raise DataError(
                        f"the prompt is not context {index} of {contexts}", path=path, line=number
                    )
                record = Record(
                    dialogue=int(context["dialog_id"].rsplit("_", 1)[-1]),
                    turn=int(context["turn_id"].rsplit("_", 1)[-1]),
                    reply=row["resp"]["choices"][0]["message"]["content"],
                    nearest=tuple(
                        (entry["nearest_movie"], int(entry["min_edit_distance"]))
                        for entry in row["rec_list"]
                    ),
                    targets=tuple(row["gt_list"]),
                    seen=frozenset(row["prev_list"]),
                )
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(f"not a recorded answer: {error!r}", path=path, line=number) from (
                    error
                )
            records.append(record)
        if len(records) != len(asked):
            raise DataError(f"{len(records)} answers to {len(asked)} contexts", path=path)
        return cls(name, tuple(records))

    @property
    def turns(self) -> set[tuple[int, int]]:
        """(dialogue, turn) of every recorded answer."""
        return {(record.dialogue, record.turn) for record in self.records}

    def answer(self, questions: Sequence[Question]) -> list[str | None]:
        """The recorded replies, by dialogue and turn; the messages of the questions are ignored."""
        replies = {(record.dialogue, record.turn): record.reply for record in self.records}
        return [replies.get((question.dialogue, question.turn)) for question in questions]


def _rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of a JSON-lines file, gzipped or not."""
    for record in json_records(path):
        if not isinstance(record.value, dict):
            raise record.error("a JSON object is expected")
        yield record.line or 1, record.value
