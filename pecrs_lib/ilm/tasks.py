"""Conversational tasks from templates: prompts with slots for items, users and histories.

Stage 2 begins here. The paper trains on ELM's 24 tasks, which are not public; these six are ours.
A prompt is words and table rows in turn. A row below N is an item, row N + u is user u; what stands
in its slot, K vectors or words, is decided later, so one task serves ILM and a text-only LM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pecrs_lib.data.interactions import Interactions


@dataclass(frozen=True)
class Task:
    """`prompt` in words and table rows; `answer` in words; `kind` is one of `KINDS`."""

    kind: str
    prompt: tuple[str | int, ...]
    answer: str

    def in_words(self, names: Sequence[str]) -> Task:
        """The same task with the name of every row (N + U,) in its slot: for a text-only LM."""
        words = "".join(names[part] if isinstance(part, int) else part for part in self.prompt)
        return Task(self.kind, (words,), self.answer)


@dataclass(frozen=True)
class Material:
    """What templates draw from.

    Attributes:
        train: interactions of U users; every answer comes from them and from the texts.
        names: (N,) titles, without the year where that leaves no doubt.
        facets: (N,) what two items can have in common, e.g. genres.
        described: rows whose facets and texts may be asked for.
        history: last items that a prompt shows.
        last: ask for every user's last item, as a test does, and not for any.
    """

    train: Interactions
    names: tuple[str, ...]
    facets: tuple[tuple[str, ...], ...]
    described: tuple[int, ...]
    history: int
    last: bool = False

    def user(self, u: int) -> int:
        """The table row of user u."""
        return len(self.names) + u

    def spoken(self) -> list[str]:
        """(N + U,) names of all table rows; users by the last items of their first half."""
        known = [early(taken)[-self.history :] for taken in self.train.users]
        fans = (", ".join(self.names[j] for j in taken) for taken in known)
        return [*self.names, *(f"someone who liked {fan}" for fan in fans)]


def early(taken: Sequence[int]) -> Sequence[int]:
    """The first half of a user's items, which their vector is made of.

    What a task asks for comes later: were it in the vector, training could look it up there, and
    would teach to recommend what was taken already.
    """
    return taken[: max(1, len(taken) // 2)]


def names_of(titles: Sequence[str]) -> tuple[str, ...]:
    """Titles without " (year)", except where two items would share one."""
    short = [title.rsplit(" (", 1)[0] if title.endswith(")") else title for title in titles]
    times = Counter(short)
    return tuple(s if times[s] == 1 else t for s, t in zip(short, titles, strict=True))


def join_slots(rows: Sequence[int]) -> list[str | int]:
    """Slots with commas between them."""
    parts: list[str | int] = []
    for row in rows:
        parts += [", ", row]
    return parts[1:]


def next_prompt(history: Sequence[int]) -> tuple[str | int, ...]:
    """The prompt that a title is to follow."""
    return ("User: I liked ", *join_slots(history), '. What next?\nSystem: You should watch "')


def describe(m: Material, g: np.random.Generator) -> Task:
    """Describe this item: its text."""
    j = int(g.choice(m.described))
    prompt = ("User: Tell me about ", j, ".\nSystem:")
    return Task("describe", prompt, " " + m.train.texts[j])


def in_common(m: Material, g: np.random.Generator) -> Task:
    """What do two items have in common: their shared facets. Half the time there are some."""
    i, j = _two(m, g)
    both = [facet for facet in m.facets[i] if facet in m.facets[j]]
    answer = f" Both are {', '.join(both)}." if both else " Not much."
    prompt = ("User: What do ", i, " and ", j, " have in common?\nSystem:")
    return Task("in common", prompt, answer)


def compare(m: Material, g: np.random.Generator) -> Task:
    """Compare two items by their facets."""
    i, j = _two(m, g)
    first, second = (", ".join(m.facets[row]) or "unknown" for row in (i, j))
    prompt = ("User: How does ", i, " differ from ", j, "?\nSystem:")
    return Task("compare", prompt, f" The first is {first}. The second is {second}.")


def next_item(m: Material, g: np.random.Generator) -> Task:
    """The next item of a history."""
    _, seen, target = _moment(m, g)
    return Task("next item", next_prompt(seen[-m.history :]), f'{m.names[target]}"')


def would_like(m: Material, g: np.random.Generator) -> Task:
    """Would this user like an item: one of theirs, or one drawn from what others took."""
    u, _, target = _moment(m, g)
    yes = bool(g.random() < 0.5)
    other = m.train.users[int(g.integers(len(m.train.users)))]
    row = target if yes else int(g.choice(other))
    yes = row in m.train.users[u]
    prompt = ("User: Would ", m.user(u), " enjoy ", row, "?\nSystem:")
    return Task("would like", prompt, " Yes." if yes else " No.")


def recommend(m: Material, g: np.random.Generator) -> Task:
    """Recommend with a reason: one of the user's items, and the facet they take most of."""
    u, seen, target = _moment(m, g)
    taken = Counter(facet for j in seen for facet in m.facets[j])
    why = max(m.facets[target], key=lambda facet: taken[facet], default="unlike the others")
    prompt = ("User: What would ", m.user(u), ' enjoy?\nSystem: You should watch "')
    return Task("recommend", prompt, f'{m.names[target]}" because it is {why}.')


def _two(m: Material, g: np.random.Generator) -> tuple[int, int]:
    i, j = (int(row) for row in g.choice(m.described, 2, replace=False))
    return i, j


def _moment(m: Material, g: np.random.Generator) -> tuple[int, tuple[int, ...], int]:
    """A user, what they had taken at some time of their second half, and what they took then."""
    u = int(g.integers(len(m.train.users)))
    taken = m.train.users[u]
    first = len(taken) - 1 if m.last else min(len(early(taken)), len(taken) - 1)
    at = int(g.integers(first, len(taken)))
    return u, taken[:at], taken[at]


KINDS: dict[str, Callable[[Material, np.random.Generator], Task]] = {
    "describe": describe,
    "in common": in_common,
    "compare": compare,
    "next item": next_item,
    "would like": would_like,
    "recommend": recommend,
}
SHARES = np.array([2, 1, 1, 4, 1, 2]) / 11  # of a batch: what HR@k asks for comes most often


def draw_tasks(m: Material, n: int, g: np.random.Generator) -> list[Task]:
    """`n` tasks, their kinds by `SHARES`."""
    kinds = list(KINDS.values())
    return [kinds[k](m, g) for k in g.choice(len(kinds), n, p=SHARES)]


@dataclass(frozen=True)
class TaskBatch:
    """Tasks as the LM reads them, padded on the right, where causality hides the padding.

    Attributes:
        token: (B, T) ids; 0 where a slot or padding is.
        slot: (B, T) table row whose vector stands there, -1 elsewhere.
        part: (B, T) which of its K vectors.
        answer: (B, T) True for the answer's tokens.
        length: (B,) tokens of each.
    """

    token: Tensor
    slot: Tensor
    part: Tensor
    answer: Tensor
    length: Tensor


def encode_tasks(
    tasks: Sequence[Task], tokenizer: Any, K: int, answer_tokens: int = 24
) -> TaskBatch:
    """Tokenize tasks; every table row becomes K slots; answers are cut at `answer_tokens`.

    Raises:
        ValueError: no tasks.
    """
    if not tasks:
        raise ValueError("no tasks to encode")
    rows = [_encoded(task, tokenizer, K, answer_tokens) for task in tasks]
    token, slot, part, answer = (
        pad_sequence([torch.tensor(row[c]) for row in rows], True, value)
        for c, value in enumerate((0, -1, 0, False))
    )
    return TaskBatch(token, slot, part, answer, torch.tensor([len(row[0]) for row in rows]))


def _encoded(task: Task, tokenizer: Any, K: int, answer_tokens: int) -> tuple[list[Any], ...]:
    def ids(words: str) -> list[int]:
        return tokenizer(words, add_special_tokens=False).input_ids if words else []

    token: list[int] = []
    slot: list[int] = []
    for part in task.prompt:
        new = [0] * K if isinstance(part, int) else ids(part)
        token += new
        slot += [part if isinstance(part, int) else -1] * len(new)
    said = ids(task.answer)[:answer_tokens]
    before = len(token)
    which = np.zeros(before + len(said), np.int64)
    filled = np.flatnonzero(np.array(slot) >= 0)
    which[filled] = np.arange(len(filled)) % K
    answer = [False] * before + [True] * len(said)
    return token + said, slot + [-1] * len(said), which.tolist(), answer
