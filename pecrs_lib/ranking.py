"""Retrieve the nearest M items, re-rank them in context (section 3.6): the mechanism.

Comes after a trained `model`; `recommend` applies it to a live dialogue, `protocol` to a test set.
The trunk is read once into a key/value cache; candidates are then scored against it in chunks, so
M is not limited by the LM's positions, which the paper names as its limitation. Attention follows
the one rule of `packing.visible`, as in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from pecrs_lib.model import PECRS
from pecrs_lib.packing import Batch, additive, branch_layout, visible


@dataclass(frozen=True)
class Ranking:
    """Retrieved and re-ranked items of Q turns, best first.

    Attributes:
        rows: (Q, M) catalogue rows in re-ranked order.
        score: (Q, M) re-rank scores r, falling.
        retrieved: (Q, M) place each had after retrieval, 0 is nearest.
        distance: (Q, N) angular distance of the query to every item.
    """

    rows: Tensor
    score: Tensor
    retrieved: Tensor
    distance: Tensor

    def ranks(self, target: Tensor) -> Tensor:
        """(Q,) place of each target row over the whole catalogue, 1 is best.

        The M re-ranked items come first, by score; the others follow, by distance. Equal scores
        keep the order of retrieval, equal distances that of the catalogue.
        """
        full = retrieval_order(self.distance)
        M = self.rows.shape[1]
        order = torch.cat([self.rows, full[:, M:]], 1)
        return (order == target[:, None]).long().argmax(1) + 1

    def within(self, m: int) -> Ranking:
        """What re-ranking only the `m` nearest gives; no score depends on the other candidates."""
        order = (self.retrieved >= m).byte().argsort(dim=1, stable=True)[:, :m]
        rows, score, retrieved = (
            x.gather(1, order) for x in (self.rows, self.score, self.retrieved)
        )
        return Ranking(rows, score, retrieved, self.distance)

    def of_turns(self, turn: Tensor) -> Ranking:
        """The rankings of some turns, in the given order and as often as named."""
        return Ranking(self.rows[turn], self.score[turn], self.retrieved[turn], self.distance[turn])


def retrieval_order(distance: Tensor) -> Tensor:
    """(Q, N) rows from nearest to farthest; ties in catalogue order."""
    return distance.argsort(dim=1, stable=True)


@dataclass(frozen=True)
class TrunkPass:
    """A batch of trunks after the LM has read them: hidden states, and the cache to go on from."""

    batch: Batch
    x: Tensor  # (B, T, D) what it read
    hidden: Tensor  # (B, T, D)
    cache: DynamicCache

    @property
    def width(self) -> int:
        return self.batch.token.shape[1]


@torch.inference_mode()
def read_trunks(model: PECRS, batch: Batch, v: Tensor) -> TrunkPass:
    """Read packed trunks (and response branches) once.

    Args:
        v: (N, D) item vectors of the whole catalogue.
    """
    cache = DynamicCache(config=model.backbone.lm.config)
    rows = torch.arange(len(v), device=v.device)
    return TrunkPass(batch, *model.read(batch, v, rows, cache), cache)


@torch.inference_mode()
def score_candidates(
    model: PECRS,
    trunk: TrunkPass,
    row: Tensor,
    column: Tensor,
    candidate: Tensor,
    distance: Tensor,
    v: Tensor,
    *,
    chunk: int = 128,
) -> Tensor:
    """Re-rank scores r of any number of candidates, in chunks against the cache.

    Args:
        row, column: (Q,) where the ``[REC]`` of each turn stands.
        candidate: (Q, M) catalogue rows.
        distance: (Q, M) of each to the query.
        v: (N, D) item vectors.
        chunk: candidates of one row of the batch in one forward pass; changes no score.

    Returns:
        (Q, M).
    """
    Q, M = candidate.shape
    B, device = len(trunk.batch.token), v.device
    # lay the turns of a batch row side by side: (B, C) with C = most candidates of any row
    place = torch.zeros(Q, dtype=torch.int64, device=device)
    for b in range(B):
        mine = row == b
        place[mine] = torch.arange(int(mine.sum()), device=device)
    width = (int(place.max()) + 1) * M
    slot = (place * M)[:, None] + torch.arange(M, device=device)  # (Q, M)
    item = torch.zeros(B, width, dtype=torch.int64, device=device)
    limit = torch.zeros(B, width, dtype=torch.int64, device=device)
    far = torch.zeros(B, width, device=device)
    far[row[:, None], slot] = distance
    item[row[:, None], slot] = candidate
    limit[row[:, None], slot] = column[:, None].expand(Q, M)

    score = torch.empty(B, width, device=device)
    past = trunk.width
    for start in range(0, width, chunk):
        span = slice(start, start + chunk)
        layout = branch_layout(limit[:, span], past)
        x = v[item[:, span]].to(model.backbone.dtype)
        position = limit[:, span] + 1
        placed = model.backbone.position_vectors(position)
        x = x if placed is None else x - placed
        mask = additive(visible(layout, trunk.batch.layout), x.dtype)
        hidden = model.backbone(x, position, mask, trunk.cache)
        trunk.cache.crop(-x.shape[1])
        score[:, span] = model.candidate_scores(hidden, far[:, span])
    return score[row[:, None], slot]


@torch.inference_mode()
def rank(
    model: PECRS,
    trunk: TrunkPass,
    row: Tensor,
    column: Tensor,
    v: Tensor,
    *,
    candidates: int = 700,
    chunk: int = 128,
) -> Ranking:
    """Retrieve `candidates` items for each of Q turns over the whole catalogue and re-rank them.

    Raises:
        ValueError: fewer than one candidate.
    """
    if candidates < 1:
        raise ValueError(f"candidates must be at least 1, got {candidates}")
    items = torch.arange(len(v), device=v.device)
    distance = model.distance(trunk.batch, trunk.x, trunk.hidden, row, column, v, items)
    nearest = retrieval_order(distance)[:, : min(candidates, len(v))]
    near = distance.gather(1, nearest)
    r = score_candidates(model, trunk, row, column, nearest, near, v, chunk=chunk)
    order = r.argsort(dim=1, descending=True, stable=True)
    return Ranking(nearest.gather(1, order), r.gather(1, order), order, distance)
