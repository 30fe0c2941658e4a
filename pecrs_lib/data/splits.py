"""Validation out of train, dialogue by dialogue.

Between the readers and training. ReDial has no validation file, and choosing a checkpoint on the
test file, as is done, leaks it. A dialogue stays whole, and dialogues with the same words (ReDial
holds several) stay on one side, or validation would reward memory.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pecrs_lib.data.schema import DataError, Dialogue


class Split(NamedTuple):
    """Both sides in the order of the input, and what a result file needs to say about them."""

    train: list[Dialogue]
    valid: list[Dialogue]
    record: dict[str, Any]


def split_by_dialogue(dialogues: Sequence[Dialogue], share: float = 0.1, seed: int = 0) -> Split:
    """Put about `share` of the dialogues aside for validation.

    Which ones depends on their words and the seed, not on their order or ids. The record holds
    seed, share, the two sizes, and the SHA-256 of the sorted validation ids. Raises DataError if
    a share outside (0, 1), or too few distinct dialogues, leave one side empty.
    """
    if not 0 < share < 1:
        raise DataError(f"share must lie between 0 and 1, got {share}")
    groups: defaultdict[str, list[int]] = defaultdict(list)  # digest of the words -> positions
    for i, dialogue in enumerate(dialogues):
        groups[_digest(*(f"{u.role}\0{u.text}" for u in dialogue.utterances))].append(i)
    if len(groups) < 2:
        raise DataError(f"{len(groups)} distinct dialogues cannot be split; at least 2 are needed")
    wanted = max(1, round(share * len(dialogues)))
    order = np.random.default_rng(seed).permutation(len(groups))
    digests = sorted(groups)
    chosen: set[int] = set()
    for group in order[:-1]:  # the last group stays in train, whatever the share
        members = groups[digests[group]]
        if not chosen or len(chosen) + len(members) <= wanted:
            chosen.update(members)
    train = [dialogue for i, dialogue in enumerate(dialogues) if i not in chosen]
    valid = [dialogue for i, dialogue in enumerate(dialogues) if i in chosen]
    record = {
        "seed": seed,
        "share": share,
        "train": len(train),
        "valid": len(valid),
        "valid_ids_sha256": _digest(*sorted(dialogue.id for dialogue in valid)),
    }
    return Split(train, valid, record)


def _digest(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        raw = text.encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)  # lengths: ("ab", "c") is not ("a", "bc")
    return digest.hexdigest()
