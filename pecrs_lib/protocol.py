"""The paper's protocol: every recommending turn of every dialogue, history as people said it.

Comes after `ranking`; gives `training` its validation and `assessment` its test. One data point per
recommended item (section 4.1), all turns of a dialogue in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pecrs_lib.batches import batches_by_length
from pecrs_lib.context import Window, encode_dialogues
from pecrs_lib.data.schema import Catalogue, Dialogue
from pecrs_lib.metrics import recall_at_k
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.processes import ALONE, Processes
from pecrs_lib.ranking import rank, read_trunks

Progress = Callable[[Iterable[Any]], Iterable[Any]]


def encode_windows(
    dialogues: Sequence[Dialogue], catalogue: Catalogue, model: PECRS
) -> list[Window]:
    """Windows of the dialogues with the limits of the model's configuration."""
    return encode_dialogues(dialogues, catalogue, model.backbone.tokenizer, **model.window_limits)


@dataclass(frozen=True)
class Ranked:
    """What a trained model did on every scored turn of some windows.

    One entry per distinct item a turn recommends (P), and one per response (G).

    Attributes:
        dialogue, utterance, item: (P,) which dialogue, which of its utterances, catalogue row.
        rank: (P,) of the item over the whole catalogue after re-ranking, 1 is best.
        retrieval_rank: (P,) before re-ranking.
        top1: (P,) catalogue row ranked first.
        confidence: (P,) its probability, softmax over the scores of the re-ranked candidates.
        rank_within: m -> (P,) rank if only the m nearest had been re-ranked.
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
    confidence: np.ndarray
    response_dialogue: np.ndarray
    response_utterance: np.ndarray
    nll: np.ndarray
    tokens: np.ndarray
    rank_within: dict[int, np.ndarray] = field(default_factory=dict)

    def scores(self, ks: Sequence[int]) -> dict[str, float]:
        """Recall@k after and before re-ranking, in percent, and the perplexity of the responses."""
        row = {}
        for k in ks:
            row[f"R@{k}"] = _recall(self.rank, k)
            row[f"retrieval R@{k}"] = _recall(self.retrieval_rank, k)
        row["perplexity"] = math.exp(self.nll.sum() / max(1, self.tokens.sum()))
        return row


def _recall(rank: np.ndarray, k: int) -> float:
    return recall_at_k(rank.astype(float), k) if len(rank) else 0.0


def rank_windows(
    model: PECRS,
    windows: Sequence[Window],
    v: Tensor,
    *,
    candidates: int = 700,
    within: Sequence[int] = (),
    chunk: int | None = None,
    response_tokens: int = 64,
    batch_tokens: int = 4096,
    progress: Progress = iter,
    processes: Processes = ALONE,
) -> Ranked:
    """Every scored turn of every window; history is teacher-forced (the paper's protocol).

    Args:
        v: (N, D) item vectors, from `model.encode_catalogue`.
        candidates: M_inference.
        within: smaller M_inference to give the ranks for as well, at no further pass.
        progress: wraps the batches, e.g. `tqdm`.
        processes: they share the batches, which are the same for any number of them, and each
            gets the whole result.
    """
    model.eval()
    points: list[np.ndarray] = []  # (6 + W, p) each, W smaller M_inference
    confidence: list[np.ndarray] = []  # (p,) each
    responses: list[np.ndarray] = []  # (4, g) each
    for part in progress(processes.share(batches_by_length(windows, batch_tokens))):
        batch = pack(part, response_tokens=response_tokens).to(model.device)
        trunk = read_trunks(model, batch, v)
        with torch.inference_mode():
            nll = model.token_nll(trunk.hidden, batch)
        said = (~batch.response_is_decision).to(nll.dtype)
        zeros = nll.new_zeros(batch.responses)
        summed = [zeros.index_add(0, batch.response_of, x) for x in (nll * said, said)]
        origin = [batch.dialogue, batch.utterance]
        responses.append(np.stack([x.cpu().double().numpy() for x in (*origin, *summed)]))
        if len(batch.positive) == 0:
            continue
        key = batch.query_row * trunk.width + batch.query_column
        turns, turn = torch.unique(key, return_inverse=True)  # points of a turn share its query
        row, column = turns // trunk.width, turns % trunk.width
        ranking = rank(model, trunk, row, column, v, candidates=candidates, chunk=chunk)
        place = ranking.retrieval_order()[turn]
        smaller = [ranking.within(m).of_turns(turn).ranks(batch.positive) for m in within]
        found = (
            *(x[batch.point_response] for x in origin),
            batch.positive,
            ranking.of_turns(turn).ranks(batch.positive),
            (place == batch.positive[:, None]).long().argmax(1) + 1,
            ranking.rows[turn, 0],
            *smaller,
        )
        points.append(np.stack([x.cpu().numpy() for x in found]))
        confidence.append(ranking.score.softmax(1)[turn, 0].cpu().double().numpy())
    points, confidence, responses = map(processes.join, (points, confidence, responses))
    p = np.concatenate([*points, np.empty((6 + len(within), 0), np.int64)], 1)
    g = np.concatenate([*responses, np.empty((4, 0))], 1)
    order = np.lexsort((p[1], p[0]))
    p = p[:, order]
    g = g[:, np.lexsort((g[1], g[0]))]
    return Ranked(
        dialogue=p[0],
        utterance=p[1],
        item=p[2],
        rank=p[3],
        retrieval_rank=p[4],
        top1=p[5],
        confidence=np.concatenate([*confidence, np.empty(0)])[order],
        response_dialogue=g[0].astype(np.int64),
        response_utterance=g[1].astype(np.int64),
        nll=g[2],
        tokens=g[3].astype(np.int64),
        rank_within=dict(zip(within, p[6:], strict=True)),
    )
