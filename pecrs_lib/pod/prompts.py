"""What a sample looks like to the model: templates, bare ids, and which tokens are one word.

Comes after `vocabulary`, before `samples` and `batches`. A **discrete prompt** is a template with
ids put in; without the template only the ids are left. What the template said, the task, is for the
continuous prompt to say (`model`).
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter

import numpy as np

from pecrs_lib.pod.vocabulary import EOS, Vocabulary

TASKS = ("sequential", "top-n", "explanation")
BARE = "{user} {items}"
TEMPLATES: dict[str, tuple[str, ...]] = {
    "sequential": (
        "The user {user} has taken these items , one after the other : {items} What comes next ?",
        "Here is the history of user {user} from the oldest item to the latest : {items} "
        "Name the item that follows .",
        "User {user} went from one item to the next like this : {items} Predict the next one .",
    ),
    "top-n": (
        "Which of these candidates would the user {user} like best ? Choose one : {items}",
        "From the items {items} pick the one that should be recommended to user {user} .",
        "One item of this list fits the taste of {user} : {items} Which one is it ?",
    ),
    "explanation": (
        "Tell the user {user} in one sentence why item {items} is recommended .",
        "Write a reason for user {user} to take the item {items} .",
        "What speaks for item {items} if you ask user {user} ?",
    ),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One question and its answer.

    Attributes:
        task: index in `TASKS`.
        user: 0 ≤ u < U.
        items: history, candidates, or the item to explain.
        answer: the item asked for, or a sentence.
    """

    task: int
    user: int
    items: tuple[int, ...]
    answer: int | str


def fill(template: str, sample: Sample, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """The template with ids put in: (T,) tokens and (T,) whole-word numbers.

    The tokens of one id share a number, 1, 2, … in their order; those of words have 0.
    """
    ids = {
        "user": vocabulary.user_tokens[[sample.user]],
        "items": vocabulary.item_tokens[list(sample.items)],
    }
    token: list[np.ndarray] = []
    word: list[np.ndarray] = []
    used = 0
    for said, field, _, _ in Formatter().parse(template):
        token.append(vocabulary.words(said))
        word.append(np.zeros(len(token[-1]), dtype=np.int64))
        if field is not None:
            put = ids[field]
            token.append(put.ravel())
            word.append(np.repeat(used + 1 + np.arange(len(put)), put.shape[1]))
            used += len(put)
    return np.concatenate(token), np.concatenate(word)


def answer_tokens(sample: Sample, vocabulary: Vocabulary) -> np.ndarray:
    """(S,) tokens of the answer, EOS at its end."""
    if isinstance(sample.answer, str):
        said = vocabulary.words(sample.answer)
    else:
        said = vocabulary.item_tokens[sample.answer]
    return np.append(said, EOS)


def all_texts() -> list[str]:
    """The words of every template, for the vocabulary."""
    parts = (Formatter().parse(t) for ts in TEMPLATES.values() for t in ts)
    return [said for part in parts for said, *_ in part if said.strip()]
