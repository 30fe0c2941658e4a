"""Questions and answers of the three tasks, drawn from training data or asked at the test.

Comes after `prompts`, before `batches`. Training draws a user and a place of their training
sequence (sequential), or a user, an item they took and others they did not (top-N), or a pair with
a sentence (explanation). The test asks for each user's held-out item.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pecrs_lib.data.interactions import Interactions, LeaveOneOut
from pecrs_lib.pod.config import PODConfig
from pecrs_lib.pod.prompts import BARE, TASKS, TEMPLATES, Sample, fill
from pecrs_lib.pod.vocabulary import Vocabulary

SEQUENTIAL, TOP_N, EXPLANATION = range(len(TASKS))


def draw(
    task: int,
    n: int,
    train: Interactions,
    sentences: Sequence[Sample],
    config: PODConfig,
    rng: np.random.Generator,
) -> list[Sample]:
    """`n` training samples of a task, with replacement.

    Args:
        sentences: what `explanations.minireel_data` made for training.
    """
    if task == EXPLANATION:
        return [sentences[i] for i in rng.integers(len(sentences), size=n)]
    samples = []
    for u in rng.integers(len(train.users), size=n).tolist():
        taken = train.users[u]
        end = int(rng.integers(1, len(taken))) if len(taken) > 1 else 0
        if task == SEQUENTIAL:
            history = taken[max(0, end - config.history) : end]
            samples.append(Sample(task, u, history, taken[end]))
        else:
            samples.append(_candidates(u, taken[end], taken, len(train), config, rng))
    return samples


def _candidates(
    user: int, right: int, taken: Sequence[int], n: int, config: PODConfig,
    rng: np.random.Generator,
) -> Sample:  # fmt: skip
    """The right item among others the user did not take, in random order."""
    others = np.setdiff1d(rng.integers(n, size=4 * config.candidates), np.asarray(taken))
    chosen = rng.permutation(others)[: config.candidates - 1]
    return Sample(TOP_N, user, tuple(rng.permutation([right, *chosen]).tolist()), right)


def held_out(task: int, data: LeaveOneOut, config: PODConfig, *, test: bool) -> list[Sample]:
    """A question per user for the item that was held out, of validation or of test.

    The candidates of top-N are the same for every model: they are drawn with one seed, from items
    the user never took.
    """
    target = data.test if test else data.valid
    rng = np.random.default_rng(0)
    samples = []
    for u, (taken, valid, right) in enumerate(
        zip(data.train.users, data.valid, target, strict=True)
    ):
        if task == TOP_N:
            never = (*taken, valid, data.test[u])
            samples.append(_candidates(u, right, never, len(data.train), config, rng))
        else:
            past = (*taken, valid) if test else taken
            samples.append(Sample(task, u, past[-config.history :], right))
    return samples


def seen_items(data: LeaveOneOut, *, test: bool) -> list[tuple[int, ...]]:
    """What each user had taken before the held-out item."""
    if not test:
        return list(data.train.users)
    return [(*taken, v) for taken, v in zip(data.train.users, data.valid, strict=True)]


def unseen_items(data: LeaveOneOut, *, test: bool) -> list[np.ndarray]:
    """The rest of the catalogue for each user."""
    return [np.setdiff1d(np.arange(len(data.train)), s) for s in seen_items(data, test=test)]


def with_templates(
    samples: Sequence[Sample], vocabulary: Vocabulary, bare: float, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Prompts of a batch: with templates of their tasks, or, with chance `bare`, all without.

    DEVIATION: POD's code trains with templates alone and drops them at the test. Its T5 has read
    much text before; weights that start at random would meet prompts without words unprepared.
    """
    if rng.random() < bare:
        return [fill(BARE, sample, vocabulary) for sample in samples]
    choices = [TEMPLATES[TASKS[sample.task]] for sample in samples]
    drawn = [templates[int(rng.integers(len(templates)))] for templates in choices]
    return [fill(t, sample, vocabulary) for t, sample in zip(drawn, samples, strict=True)]
