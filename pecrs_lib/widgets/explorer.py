"""The negative-sampling explorer: what M_train, sharing and temperature do, in seconds.

Beside the flow, over `negatives`, `losses` and `metrics`; `widgets` puts sliders on it. Training a
whole PECRS takes minutes, so the explorer freezes what the language model of the trained MiniReel
checkpoint puts out (`Outputs`, made by `experiments.explorer`) and trains the two heads of
retrieval on it from scratch: the same loss, negatives and evaluation, without the language model.
Its numbers compare settings with each other; they are not those of the full model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pecrs_lib.heads import Head
from pecrs_lib.losses import pairwise_angular_distance, retrieval_loss
from pecrs_lib.metrics import bootstrap_means, recall_at_k
from pecrs_lib.negatives import draw_negatives, own_item

K = (1, 10, 50)


@dataclass(frozen=True)
class Outputs:
    """Standardised outputs of a trained language model; P training and Q validation points.

    Attributes:
        item: (N, D) pooled features of the item texts.
        query: (P, D) outputs at ``[REC]``; target: (P,) catalogue rows; turn: (P,) turns.
        valid_query: (Q, D); valid_target, valid_dialogue: (Q,); valid_novel: (Q,) of bool.
        valid_gain: (Q, N) what re-ranking adds to the score of every item, g(q_j).
    """

    item: Tensor
    query: Tensor
    target: Tensor
    turn: Tensor
    valid_query: Tensor
    valid_target: Tensor
    valid_dialogue: Tensor
    valid_novel: Tensor
    valid_gain: Tensor

    def save(self, path: Path) -> None:
        """Write safetensors; floats in half precision."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        halves = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
        save_file({n: t.contiguous() for n, t in halves.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Outputs:
        tensors = load_file(path)
        return cls(**{n: t.float() if t.is_floating_point() else t for n, t in tensors.items()})

    @property
    def popularity(self) -> Tensor:
        """(N,) how often each item is a training target, plus one."""
        return 1.0 + torch.bincount(self.target, minlength=len(self.item))


@dataclass(frozen=True)
class Setting:
    """One choice of every knob. `negatives` None takes the whole catalogue."""

    negatives: int | None = 16
    share_over_batch: bool = True
    popular: bool = False  # draw negatives by popularity instead of uniformly
    temperature: float = 0.1
    candidates: int = 100  # M_inference

    def problem(self, n_items: int) -> str | None:
        """Why this cannot be run, in words; None when it can."""
        if self.negatives is not None and self.negatives > n_items - 1:
            return (
                f"{self.negatives} negatives are more than the {n_items - 1} other films of the "
                "catalogue; choose fewer, or the whole catalogue"
            )
        if self.negatives is not None and self.negatives < 1:
            return "without a negative there is nothing to tell the target from"
        if not 1 <= self.candidates <= n_items:
            return f"M_inference must lie between 1 and the {n_items} films, got {self.candidates}"
        if self.temperature <= 0:
            return f"the temperature must be positive, got {self.temperature}"
        return None


@dataclass(frozen=True)
class Trained:
    """Distances (Q, N) of the validation queries to all items after training, and the losses."""

    distance: Tensor
    losses: list[float]
    temperature: float


class Cancelled(Exception):
    """The reader pressed Cancel."""


def train_heads(
    outputs: Outputs,
    setting: Setting,
    *,
    epochs: int = 8,
    batch: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: Callable[[float], bool] = lambda share: False,
) -> Trained:
    """Train f and h_item with the retrieval loss (Eq 3, 4) on frozen outputs.

    Args:
        batch: points a step; with `share_over_batch` they share one draw of negatives.
        progress: called with the share done, 0 to 1; returns True to stop.

    Raises:
        ValueError: the setting cannot be run, with the reason.
        Cancelled: `progress` returned True.
    """
    if (problem := setting.problem(len(outputs.item))) is not None:
        raise ValueError(problem)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        f, h_item = Head(outputs.item.shape[1]), Head(outputs.item.shape[1])
    weights = [*f.parameters(), *h_item.parameters()]
    steps = epochs * -(-len(outputs.query) // batch)
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 1 - s / steps)
    odds = outputs.popularity if setting.popular else None
    losses: list[float] = []
    for _ in range(epochs):
        order = torch.randperm(len(outputs.query), generator=generator)
        for part in order.split(batch):
            if progress(len(losses) / steps):
                raise Cancelled
            target = outputs.target[part]
            drawn = draw_negatives(
                len(outputs.item), outputs.turn[part], setting.negatives, generator=generator,
                share_over_batch=setting.share_over_batch, weight=odds,
            )  # fmt: skip
            against = torch.cat([target[:, None], drawn], 1)
            to_all = pairwise_angular_distance(f(outputs.query[part]), h_item(outputs.item))
            distance = to_all.gather(1, against).masked_fill(own_item(against), torch.inf)
            loss = retrieval_loss(distance, setting.temperature, len(part))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    with torch.no_grad():
        distance = pairwise_angular_distance(f(outputs.valid_query), h_item(outputs.item))
    progress(1.0)
    return Trained(distance, losses, setting.temperature)


def ranks(trained: Trained, outputs: Outputs, candidates: int) -> np.ndarray:
    """(Q,) rank of every validation target: the nearest `candidates` re-ranked, then the rest."""
    order = trained.distance.argsort(dim=1, stable=True)
    near = order[:, :candidates]
    score = outputs.valid_gain.gather(1, near)
    score = score - trained.distance.gather(1, near) / trained.temperature
    best = near.gather(1, score.argsort(dim=1, descending=True, stable=True))
    full = torch.cat([best, order[:, candidates:]], 1)
    return ((full == outputs.valid_target[:, None]).long().argmax(1) + 1).numpy()


def recall(
    rank: np.ndarray, outputs: Outputs, *, novel: bool = False, samples: int = 500
) -> dict[str, dict[str, float]]:
    """Recall@k in percent with 95 % intervals over dialogues, of all or of novel targets."""
    keep = outputs.valid_novel.numpy() if novel else np.ones(len(rank), dtype=bool)
    hits = rank[keep, None] <= np.array(K)
    means = bootstrap_means(outputs.valid_dialogue.numpy()[keep], hits, samples, seed=0)
    low, high = 100 * np.quantile(means, (0.025, 0.975), axis=0)
    return {
        f"R@{k}": {
            "value": recall_at_k(rank[keep].astype(float), k),
            "low": float(low[i]),
            "high": float(high[i]),
        }
        for i, k in enumerate(K)
    }


def nearest_run(grid: list[dict[str, Any]], setting: Setting) -> dict[str, Any]:
    """The run of a grid whose setting comes closest: equal switches, then M, then temperature."""

    def far(run: dict[str, Any]) -> tuple[int, float, float]:
        other = run["setting"]
        switches = (other["share_over_batch"] != setting.share_over_batch) + (
            other["popular"] != setting.popular
        )
        m = [1e9 if x is None else float(x) for x in (other["negatives"], setting.negatives)]
        return (
            switches,
            abs(np.log(m[0] / m[1])),
            abs(np.log(other["temperature"] / setting.temperature)),
        )

    return min(grid, key=far)
