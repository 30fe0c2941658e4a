"""Answers by beam search, free or held to the ids that exist.

Comes after `model`. A beam of n answers is a ranked list of items. Free search may spell ids of no
item; constrained search walks a **trie** of the ids allowed (`generate`'s
``prefix_allowed_tokens_fn``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pecrs_lib.pod.batches import Batch, collate
from pecrs_lib.pod.model import POD
from pecrs_lib.pod.prompts import BARE, Sample, fill
from pecrs_lib.pod.vocabulary import EOS, PAD, Vocabulary

T = TypeVar("T")
Allowed = Callable[[int, Tensor], list[int]]


class Trie:
    """Which token may follow a beginning, for ids (n, L) that all end with EOS."""

    def __init__(self, ids: np.ndarray) -> None:
        self.after: dict[tuple[int, ...], list[int]] = {}
        for length in range(ids.shape[1]):
            for beginning in np.unique(ids[:, : length + 1], axis=0).tolist():
                self.after.setdefault(tuple(beginning[:-1]), []).append(beginning[-1])

    def __getitem__(self, beginning: tuple[int, ...]) -> list[int]:
        return self.after.get(beginning, [EOS])


def allowed_by(tries: Trie | Sequence[Trie]) -> Allowed:
    """For ``prefix_allowed_tokens_fn``: one trie for all rows of a batch, or one per row."""

    def allowed(row: int, written: Tensor) -> list[int]:
        trie = tries if isinstance(tries, Trie) else tries[row]
        return trie[tuple(written[1:].tolist())]  # after the decoder's start token

    return allowed


def ask(
    samples: Sequence[Sample],
    vocabulary: Vocabulary,
    template: str = BARE,
) -> Batch:
    """Questions as a batch, all with one template, or with bare ids."""
    return collate(samples, [fill(template, s, vocabulary) for s in samples], vocabulary)


@torch.no_grad()
def answers(
    model: POD,
    batch: Batch,
    beams: int = 1,
    longest: int = 32,
    allowed: Allowed | None = None,
) -> Tensor:
    """(B, beams, S) tokens of the best answers of a beam search, best first, PAD behind their end.

    Args:
        beams: width of the search and number of answers.
        longest: tokens of an answer.
        allowed: see `allowed_by`; None searches freely.
    """
    vector, there = model.inputs(batch)
    written = model.t5.generate(
        inputs_embeds=vector, attention_mask=there, num_beams=beams, num_return_sequences=beams,
        max_new_tokens=longest, prefix_allowed_tokens_fn=allowed, do_sample=False, pad_token_id=PAD,
    )  # fmt: skip
    return written[:, 1:].unflatten(0, (len(batch), beams))


def ranked_items(
    model: POD,
    batch: Batch,
    vocabulary: Vocabulary,
    beams: int = 20,
    tries: Trie | Sequence[Trie] | None = None,
) -> np.ndarray:
    """(B, beams) items, best first; -1 where free search spells none.

    Args:
        tries: from the ids allowed; None searches freely.
    """
    length = vocabulary.item_tokens.shape[1]
    allowed = None if tries is None else allowed_by(tries)
    found = answers(model, batch, beams, length + 1, allowed).numpy()
    wide = np.zeros((*found.shape[:2], length), dtype=np.int64)  # free search may stop early
    wide[..., : found.shape[2]] = found[..., :length]
    return vocabulary.items(wide)


def ranked_lists(
    model: POD,
    samples: Sequence[Sample],
    vocabulary: Vocabulary,
    template: str = BARE,
    *,
    among: Sequence[Sequence[int]] | None = None,
    beams: int = 20,
) -> np.ndarray:
    """(B, beams) items for any number of questions, the search held to ids that exist.

    Args:
        among: for every question the items it is about; None searches all there are.
    """
    ids = vocabulary.item_tokens
    whole = Trie(ids)
    found = []
    for rows in in_parts(range(len(samples)), 107):
        batch = ask([samples[i] for i in rows], vocabulary, template)
        tries = whole if among is None else [Trie(ids[list(among[i])]) for i in rows]
        found.append(ranked_items(model, batch, vocabulary, beams, tries))
    return np.concatenate(found)


def in_parts(samples: Sequence[T], size: int) -> list[Sequence[T]]:
    """Samples in batches for the test."""
    return [samples[i : i + size] for i in range(0, len(samples), size)]
