"""From windows to the batches of an epoch, negatives included.

Comes after `packing` and `negatives`, before `training`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from pecrs_lib.config import Config
from pecrs_lib.context import Window
from pecrs_lib.negatives import draw_negatives
from pecrs_lib.packing import Batch, add_candidates, pack
from pecrs_lib.processes import ALONE, Processes

T = TypeVar("T", bound=Any)


def make_batch(
    windows: Sequence[Window],
    n_items: int,
    config: Config,
    generator: torch.Generator,
    processes: Processes = ALONE,
) -> Batch:
    """Windows packed, with negatives drawn for both tasks as `config` says.

    Args:
        processes: each packs its share of the windows, with the negatives that one process alone
            would draw for them. Where there are fewer windows than processes, the rest pack the
            first window; see `loss_weight`.
    """
    batch = pack(windows, response_tokens=config.response_tokens)
    group = batch.query_row * batch.token.shape[1] + batch.query_column

    def draw(m: int | None) -> torch.Tensor:
        return draw_negatives(
            n_items, group, m,
            generator=generator, share_over_batch=config.share_over_batch,
        )  # fmt: skip

    rerank = draw(config.negatives)
    retrieval = rerank if config.share_over_tasks else draw(config.retrieval_negatives)
    if processes.count > 1:
        mine = processes.share(range(len(windows))) or [0]
        points = torch.isin(batch.query_row, torch.tensor(mine))
        batch = pack([windows[k] for k in mine], response_tokens=config.response_tokens)
        rerank, retrieval = rerank[points], retrieval[points]
    return add_candidates(batch, rerank, retrieval)


def loss_weight(windows: Sequence[Window], processes: Processes) -> float:
    """What a process's mean loss counts for, so that the mean over processes is that of the batch.

    Losses are means over responses, and shares hold different numbers of them. 1 for a process
    alone, 0 where a process has no window of its own.
    """

    def responses(part: Sequence[Window]) -> int:
        return sum(len(turn.items) or 1 for w in part for turn in w.turns)

    return processes.count * responses(processes.share(windows)) / responses(windows)


@dataclass(frozen=True)
class Pass:
    """A forward and a backward pass of a step: losses times `weight` add up to those of the step.

    Attributes:
        windows: of the whole batch.
        batch: what this process reads of it now.
        last: whether the step is complete with it.
    """

    windows: Sequence[Window]
    batch: Batch
    weight: float
    last: bool


def passes(
    parts: Sequence[Sequence[Window]],
    n_items: int,
    config: Config,
    generator: torch.Generator,
    processes: Processes = ALONE,
    at_once: int | None = None,
) -> Iterator[Pass]:
    """The passes of one step over one or more batches.

    Args:
        at_once: windows (dialogues, or parts of long ones) in a pass. A batch of more is read in
            several, each doing what a process of its own would: negatives and losses stay those of
            the batch. None: all of it.

    Raises:
        ValueError: less than one window at once.
    """
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once must be at least 1, got {at_once}")
    for k, windows in enumerate(parts, start=1):
        n = math.ceil(len(windows) / processes.count / (at_once or len(windows)))
        state = generator.get_state()
        for i in range(n):
            share = Processes(processes.rank * n + i, processes.count * n)
            generator.set_state(state)  # every share draws for the whole batch
            batch = make_batch(windows, n_items, config, generator, share)
            weight = loss_weight(windows, share) / n / len(parts)
            yield Pass(windows, batch, weight, last=k == len(parts) and i == n - 1)


def epoch_batches(
    windows: Sequence[Window], batch_size: int, seed: int, epoch: int, branch_tokens: int = 0
) -> list[list[Window]]:
    """Batches of one epoch in random order; windows of a batch are of similar width.

    Windows without a recommender turn teach nothing and are left out.

    Args:
        branch_tokens: candidates per recommending turn; they widen a window as its trunk does.
    """

    def width(w: Window) -> int:
        return len(w.token) + branch_tokens * sum(bool(t.items) for t in w.turns)

    useful = [w for w in windows if w.turns]
    rng = np.random.default_rng([seed, epoch])
    shuffled = [useful[k] for k in rng.permutation(len(useful))]
    pool = 64 * batch_size  # sort within pools: less padding, still random
    ordered = [
        w
        for start in range(0, len(shuffled), pool)
        for w in sorted(shuffled[start : start + pool], key=width)
    ]
    batches = [ordered[k : k + batch_size] for k in range(0, len(ordered), batch_size)]
    return [batches[k] for k in rng.permutation(len(batches))]


def fingerprint(windows: Sequence[Window], n_items: int) -> str:
    """Changes when the training data do."""
    digest = hashlib.sha256(str(n_items).encode())
    for w in windows:
        digest.update(w.token.tobytes() + w.item.tobytes())
    return digest.hexdigest()[:16]


def batches_by_length(
    things: Sequence[T], tokens: int = 4096, length: Callable[[T], int] = lambda w: len(w.token)
) -> list[list[T]]:
    """Windows, or other things that have a length, from the longest on, in batches of at most
    `tokens` padded tokens; one that is longer stands alone.
    """
    batches: list[list[T]] = []
    for thing in sorted(things, key=length, reverse=True):
        if batches and length(batches[-1][0]) * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(thing)
        else:
            batches.append([thing])
    return batches
