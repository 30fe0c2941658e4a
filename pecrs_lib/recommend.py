"""From a dialogue to ranked items: retrieve the nearest M, re-rank them in context (section 3.6).

Comes after a trained `model`. The trunk is read once into a key/value cache; candidates are then
scored against it in chunks, so M is not limited by the LM's positions, which the paper names as
its limitation. Attention follows the one rule of `packing.visible`, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from pecrs_lib.context import Window, history_window
from pecrs_lib.data.schema import Catalogue, Dialogue, Movie
from pecrs_lib.losses import pairwise_angular_distance
from pecrs_lib.model import PECRS
from pecrs_lib.packing import Batch, Layout, additive, branch_layout, pack, visible

Progress = Callable[[Iterable[Any]], Iterable[Any]]


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

    def of_turns(self, turn: Tensor) -> Ranking:
        """The rankings of some turns, in the given order and as often as named."""
        return Ranking(self.rows[turn], self.score[turn], self.retrieved[turn], self.distance[turn])


def retrieval_order(distance: Tensor) -> Tensor:
    """(Q, N) rows from nearest to farthest; ties in catalogue order."""
    return distance.argsort(dim=1, stable=True)


def _cat(a: Layout, b: Layout) -> Layout:
    return Layout(*(torch.cat([getattr(a, n), getattr(b, n)], 1) for n in ("branch", "limit", "column")))


@dataclass(frozen=True)
class TrunkPass:
    """A batch of trunks after the LM has read them: hidden states, and the cache to go on from."""

    batch: Batch
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
    return TrunkPass(batch, model.hidden(batch, v, rows, cache), cache)


@torch.inference_mode()
def score_candidates(
    model: PECRS,
    trunk: TrunkPass,
    row: Tensor,
    column: Tensor,
    candidate: Tensor,
    v: Tensor,
    *,
    chunk: int = 128,
) -> Tensor:
    """Re-rank scores r of any number of candidates, in chunks against the cache.

    Args:
        row, column: (Q,) where the ``[REC]`` of each turn stands.
        candidate: (Q, M) catalogue rows.
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
        mask = additive(visible(layout, _cat(trunk.batch.layout, layout)), x.dtype)
        hidden = model.backbone(x, position, mask, trunk.cache)
        trunk.cache.crop(-x.shape[1])
        score[:, span] = model.candidate_scores(hidden)
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
    d = model.f(trunk.hidden[row, column].float())
    distance = pairwise_angular_distance(d, v)
    nearest = retrieval_order(distance)[:, : min(candidates, len(v))]
    r = score_candidates(model, trunk, row, column, nearest, v, chunk=chunk)
    order = r.argsort(dim=1, descending=True, stable=True)
    return Ranking(nearest.gather(1, order), r.gather(1, order), order, distance)


@dataclass(frozen=True)
class Ranked:
    """What a trained model did on every scored turn of some windows.

    One entry per distinct item a turn recommends (P), and one per response (G).

    Attributes:
        dialogue, utterance, item: (P,) which dialogue, which of its utterances, catalogue row.
        rank: (P,) of the item over the whole catalogue after re-ranking, 1 is best.
        retrieval_rank: (P,) before re-ranking.
        top1: (P,) catalogue row ranked first.
        response_dialogue, response_utterance: (G,) origin of each response.
        nll: (G,) summed −log p of its tokens given the true item, without the opening decision.
        tokens: (G,) how many they are.
    """

    dialogue: np.ndarray
    utterance: np.ndarray
    item: np.ndarray
    rank: np.ndarray
    retrieval_rank: np.ndarray
    top1: np.ndarray
    response_dialogue: np.ndarray
    response_utterance: np.ndarray
    nll: np.ndarray
    tokens: np.ndarray


def batches_by_length(windows: Sequence[Window], tokens: int = 4096) -> list[list[Window]]:
    """Windows sorted by length, in batches of at most `tokens` padded tokens."""
    batches: list[list[Window]] = []
    for window in sorted(windows, key=lambda w: -len(w.token)):
        if batches and len(batches[-1][0].token) * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(window)
        else:
            batches.append([window])
    return batches


def rank_windows(
    model: PECRS,
    windows: Sequence[Window],
    v: Tensor,
    *,
    candidates: int = 700,
    chunk: int = 128,
    response_tokens: int = 64,
    batch_tokens: int = 4096,
    progress: Progress = iter,
) -> Ranked:
    """Every scored turn of every window; history is teacher-forced (the paper's protocol).

    Args:
        v: (N, D) item vectors, from `model.encode_catalogue`.
        candidates: M_inference.
        progress: wraps the batches, e.g. `tqdm`.
    """
    model.eval()
    points: list[np.ndarray] = []  # (6, p) each
    responses: list[np.ndarray] = []  # (4, g) each
    for part in progress(batches_by_length(windows, batch_tokens)):
        batch = pack(part, response_tokens=response_tokens).to(model.device)
        trunk = read_trunks(model, batch, v)
        with torch.inference_mode():
            nll = model.token_nll(trunk.hidden, batch)
        said = (~batch.response_is_decision).to(nll.dtype)
        zeros = nll.new_zeros(batch.responses)
        summed = [zeros.index_add(0, batch.response_of, x * said) for x in (nll, torch.ones_like(nll))]
        origin = [batch.dialogue, batch.utterance]
        responses.append(np.stack([x.cpu().double().numpy() for x in (*origin, *summed)]))
        if len(batch.positive) == 0:
            continue
        key = batch.query_row * trunk.width + batch.query_column
        turns, turn = torch.unique(key, return_inverse=True)  # points of a turn share its query
        row, column = turns // trunk.width, turns % trunk.width
        ranking = rank(model, trunk, row, column, v, candidates=candidates, chunk=chunk)
        place = retrieval_order(ranking.distance)[turn]
        found = (
            *(x[batch.point_response] for x in origin),
            batch.positive,
            ranking.of_turns(turn).ranks(batch.positive),
            (place == batch.positive[:, None]).long().argmax(1) + 1,
            ranking.rows[turn, 0],
        )
        points.append(np.stack([x.cpu().numpy() for x in found]))
    p = np.concatenate([*points, np.empty((6, 0), np.int64)], 1)
    g = np.concatenate([*responses, np.empty((4, 0))], 1)
    p = p[:, np.lexsort((p[1], p[0]))]
    g = g[:, np.lexsort((g[1], g[0]))]
    return Ranked(*p, g[0].astype(np.int64), g[1].astype(np.int64), g[2], g[3].astype(np.int64))


@dataclass(frozen=True)
class Recommendation:
    """One recommended item: `score` r after re-ranking, `retrieved` its place before (1 = nearest)."""

    movie: Movie
    score: float
    distance: float
    retrieved: int


def with_query(windows: Sequence[Window], rec: int) -> list[Window]:
    """Each trunk with ``[REC]`` behind it: the query input of Eq 2."""
    return [
        replace(w, token=np.append(w.token, rec), item=np.append(w.item, -1)) for w in windows
    ]


def recommend(
    model: PECRS,
    histories: Sequence[Dialogue],
    catalogue: Catalogue,
    v: Tensor,
    *,
    top: int = 10,
    candidates: int | None = None,
    exclude_mentioned: bool = False,
) -> list[list[Recommendation]]:
    """The `top` items to recommend next in each of a batch of dialogues.

    Args:
        histories: dialogues so far; may be empty.
        v: (N, D) item vectors, from `model.encode_catalogue`.
        candidates: M_inference; the model's own setting when None.
        exclude_mentioned: leave out what either speaker has named already.
    """
    model.eval()
    config, tok = model.config, model.backbone.tokenizer
    trunks = [
        history_window(
            h, catalogue, tok, context_tokens=config.context_tokens,
            utterance_tokens=config.utterance_tokens, window=config.window,
        )
        for h in histories
    ]  # fmt: skip
    if not trunks:
        return []
    batch = pack(with_query(trunks, tok.rec)).to(model.device)
    trunk = read_trunks(model, batch, v)
    row = torch.arange(len(trunks), device=model.device)
    column = torch.tensor([len(w.token) for w in trunks], device=model.device)
    ranking = rank(model, trunk, row, column, v, candidates=candidates or config.candidates)
    found = []
    for q, history in enumerate(histories):
        named = history.mentioned_before(len(history)) if exclude_mentioned else set()
        found.append([
            Recommendation(
                catalogue[j], float(ranking.score[q, k]), float(ranking.distance[q, j]),
                int(ranking.retrieved[q, k]) + 1,
            )
            for k, j in enumerate(ranking.rows[q].tolist())
            if catalogue[j].id not in named
        ][:top])  # fmt: skip
    return found
