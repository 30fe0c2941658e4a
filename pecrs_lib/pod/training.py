"""Task-alternated training of a POD.

Comes after `model`. Every step is one task; all weights are trained, prompts included, with the one
loss there is. "Distillation" is no more than that: no teacher, the continuous prompt stands beside
the template and learns from the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import nn

from pecrs_lib.data.interactions import Interactions
from pecrs_lib.pod.batches import Batch, alternated, collate
from pecrs_lib.pod.config import PODConfig
from pecrs_lib.pod.model import POD
from pecrs_lib.pod.prompts import Sample
from pecrs_lib.pod.samples import EXPLANATION, SEQUENTIAL, TOP_N, draw, with_templates
from pecrs_lib.pod.vocabulary import Vocabulary


def training_batch(
    count: dict[int, int], train: Interactions, sentences: Sequence[Sample],
    vocabulary: Vocabulary, config: PODConfig, rng: np.random.Generator,
) -> Batch:  # fmt: skip
    """Samples drawn as `batches.alternated` or `mixed` says, with their prompts."""
    samples = [s for task, n in count.items() for s in draw(task, n, train, sentences, config, rng)]
    return collate(samples, with_templates(samples, vocabulary, config.bare, rng), vocabulary)


def tasks_of(sentences: Sequence[Sample]) -> list[int]:
    """The order of tasks, over and over; without sentences the explanation task is left out.

    DEVIATION: POD's tasks take equal turns; here sequential comes twice, for it has the most to
    learn: any item may be the answer.
    """
    return [SEQUENTIAL, TOP_N] + ([SEQUENTIAL, EXPLANATION] if sentences else [])


def train(
    model: POD,
    data: Interactions,
    sentences: Sequence[Sample],
    vocabulary: Vocabulary,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train all weights in place, `config.steps` steps, drawn with `config.seed`.

    Args:
        data: training sequences.
        sentences: training samples of the explanation task; none leaves the task out.
        on_step: is told step and loss.
    """
    config = model.config
    rng = np.random.default_rng(config.seed)
    steps = alternated(config.steps, config.batch, tasks_of(sentences))
    batches = (training_batch(c, data, sentences, vocabulary, config, rng) for c in steps)
    fit(model, model.parameters(), batches, config, on_step)


def fit(
    model: POD,
    weights: Iterable[nn.Parameter],
    batches: Iterable[Batch],
    config: PODConfig,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """AdamW on `weights` over `batches`: the rate rises for `warmup` steps, then falls to 0."""
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate)

    def rate(step: int) -> float:
        left = (config.steps - step) / max(1, config.steps - config.warmup)
        return min((step + 1) / max(1, config.warmup), left)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)  # dropout
        for step, batch in enumerate(batches):
            loss = model(batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            on_step(step, float(loss.detach()))
    model.eval()
