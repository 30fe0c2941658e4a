"""Prompts and answers padded to one width, and which tasks a batch holds.

Comes after `samples`, before `model`. POD's task-alternated training gives every batch one task:
prompts of a task are about equally long, so less is padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pecrs_lib.pod.prompts import Sample, answer_tokens
from pecrs_lib.pod.vocabulary import PAD, Vocabulary

IGNORED = -100  # a label that the loss leaves out


@dataclass(frozen=True)
class Batch:
    """Prompts and answers.

    Attributes:
        token: (B, T), PAD behind the end.
        word: (B, T) whole-word numbers, 0 for words and padding.
        length: (B,) tokens of each prompt.
        task: (B,).
        label: (B, S), IGNORED behind the end.
    """

    token: Tensor
    word: Tensor
    length: Tensor
    task: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.token)

    @property
    def padding(self) -> int:
        """Places of prompts and answers that hold nothing."""
        empty = self.token.numel() - int(self.length.sum())
        return empty + int((self.label == IGNORED).sum())


def collate(
    samples: Sequence[Sample],
    prompts: Sequence[tuple[np.ndarray, np.ndarray]],
    vocabulary: Vocabulary,
) -> Batch:
    """Samples with their prompts, from `prompts.fill`, as one batch."""
    return Batch(
        token=_padded([token for token, _ in prompts], PAD),
        word=_padded([word for _, word in prompts], 0),
        length=torch.tensor([len(token) for token, _ in prompts]),
        task=torch.tensor([sample.task for sample in samples]),
        label=_padded([answer_tokens(sample, vocabulary) for sample in samples], IGNORED),
    )


def _padded(rows: Sequence[np.ndarray], value: int) -> Tensor:
    tensors = [torch.from_numpy(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def alternated(steps: int, size: int, tasks: Sequence[int]) -> Iterator[dict[int, int]]:
    """For every step how many samples of which task: one task after the other."""
    for step in range(steps):
        yield {tasks[step % len(tasks)]: size}


def mixed(steps: int, size: int, tasks: Sequence[int]) -> Iterator[dict[int, int]]:
    """For every step how many samples of which task: a part of each."""
    share = np.diff(np.linspace(0, size, len(tasks) + 1).round().astype(int))
    for _ in range(steps):
        yield dict(zip(tasks, share.tolist(), strict=True))
