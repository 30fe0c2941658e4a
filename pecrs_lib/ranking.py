"""Retrieve the nearest M items, re-rank them in context (section 3.6): the mechanism.

Comes after a trained `model`; `recommend` applies it to a live dialogue, `protocol` to a test set.
The trunk is read once into a key/value cache; candidates are then scored against it in chunks, so
M is not limited by the LM's positions, which the paper names as its limitation. Attention follows
the one rule of `packing.visible`, as in training. Where the catalogue is large, an `index` finds
the nearest items and no distance to all of them is held.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from pecrs_lib.index import Index, smallest
from pecrs_lib.losses import pairwise_angular_distance
from pecrs_lib.model import PECRS
from pecrs_lib.packing import Batch, additive, branch_layout, visible

PASS_TOKENS = 1024  # candidates in a forward pass: a CPU is no faster with more, its caches fill


@dataclass(frozen=True)
class Ranking:
    """Retrieved and re-ranked items of Q turns, best first.

    Attributes:
        rows: (Q, M) catalogue rows in re-ranked order.
        score: (Q, M) re-rank scores r, falling.
        retrieved: (Q, M) place each had after retrieval, 0 is nearest.
        near: (Q, M) distance of the query to each: angular, less what `heads.repetition_offset`
            takes off where it was named.
        distance: (Q, N) the same of every item; None where an index looked for the nearest.
    """

    rows: Tensor
    score: Tensor
    retrieved: Tensor
    near: Tensor
    distance: Tensor | None

    def retrieval_order(self) -> Tensor:
        """(Q, N) rows from nearest to farthest.

        Raises:
            ValueError: the items were found by an index, which gives no such order.
        """
        if self.distance is None:
            raise ValueError("places in the whole catalogue need a ranking made without an index")
        return retrieval_order(self.distance)

    def ranks(self, target: Tensor) -> Tensor:
        """(Q,) place of each target row over the whole catalogue, 1 is best.

        The M re-ranked items come first, by score; the others follow, by distance. Equal scores
        keep the order of retrieval, equal distances that of the catalogue.

        Raises:
            ValueError: see `retrieval_order`.
        """
        full = self.retrieval_order()
        M = self.rows.shape[1]
        order = torch.cat([self.rows, full[:, M:]], 1)
        return (order == target[:, None]).long().argmax(1) + 1

    def within(self, m: int) -> Ranking:
        """What re-ranking only the `m` nearest gives; no score depends on the other candidates."""
        order = (self.retrieved >= m).byte().argsort(dim=1, stable=True)[:, :m]
        kept = [x.gather(1, order) for x in (self.rows, self.score, self.retrieved, self.near)]
        return Ranking(kept[0], kept[1], kept[2], kept[3], self.distance)

    def of_turns(self, turn: Tensor) -> Ranking:
        """The rankings of some turns, in the given order and as often as named."""
        return Ranking(
            self.rows[turn], self.score[turn], self.retrieved[turn], self.near[turn],
            None if self.distance is None else self.distance[turn],
        )  # fmt: skip


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
    chunk: int | None = None,
) -> Tensor:
    """Re-rank scores r of any number of candidates, in chunks against the cache.

    Args:
        row, column: (Q,) where the ``[REC]`` of each turn stands.
        candidate: (Q, M) catalogue rows.
        distance: (Q, M) of each to the query.
        v: (N, D) item vectors.
        chunk: candidates of one row of the batch in one forward pass; changes no score. None:
            as many as make `PASS_TOKENS`.

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
    chunk = chunk or max(1, PASS_TOKENS // B)
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
def retrieve(
    model: PECRS, trunk: TrunkPass, row: Tensor, column: Tensor, v: Tensor, M: int, index: Index
) -> tuple[Tensor, Tensor]:
    """The M nearest items of Q turns through an index: distances and rows, (Q, M) each.

    An index knows angular distances only, but being named draws a film nearer or pushes it away.
    That concerns the few films the batch names. The others keep their order among themselves, so
    the nearest of them are among the M + named that the index gives; the named ones are measured
    one by one, and both are put in order.
    """
    query = model.f(model.queries(trunk.hidden[row, column], trunk.x, row, column))
    item = trunk.batch.item
    named = item[item >= 0].unique()  # (U,)
    distance, rows = index.nearest(query, M + len(named))
    among = torch.where(item >= 0, torch.searchsorted(named, item), -1)  # rows of `named`
    numbers = torch.arange(len(named), device=v.device)
    measured = pairwise_angular_distance(query, v[named])
    measured = measured - model.queries.offset(among, row, column, numbers)  # (Q, U)
    distance = distance.masked_fill(torch.isin(rows, named), torch.inf)
    return smallest(
        torch.cat([distance, measured], 1),
        torch.cat([rows, named.expand(len(query), -1)], 1), min(M, len(v)),
    )  # fmt: skip


@torch.inference_mode()
def rank(
    model: PECRS,
    trunk: TrunkPass,
    row: Tensor,
    column: Tensor,
    v: Tensor,
    *,
    candidates: int = 700,
    chunk: int | None = None,
    index: Index | None = None,
) -> Ranking:
    """Retrieve `candidates` items for each of Q turns over the whole catalogue and re-rank them.

    Args:
        index: of the vectors v, to retrieve through instead of measuring every distance.

    Raises:
        ValueError: fewer than one candidate, or an index of another number of items.
    """
    if candidates < 1:
        raise ValueError(f"candidates must be at least 1, got {candidates}")
    distance = None
    if index is None:
        items = torch.arange(len(v), device=v.device)
        distance = model.distance(trunk.batch, trunk.x, trunk.hidden, row, column, v, items)
        nearest = retrieval_order(distance)[:, : min(candidates, len(v))]
        near = distance.gather(1, nearest)
    elif len(index) != len(v):
        raise ValueError(f"the index holds {len(index)} items, the catalogue {len(v)}")
    else:
        near, nearest = retrieve(model, trunk, row, column, v, candidates, index)
    r = score_candidates(model, trunk, row, column, nearest, near, v, chunk=chunk)
    order = r.argsort(dim=1, descending=True, stable=True)
    rows, score, near = (x.gather(1, order) for x in (nearest, r, near))
    return Ranking(rows, score, order, near, distance)
