"""PECRS the slow, obvious way: three forward passes for every data point, as the paper tells it.

No packing, no branches, no cache: each pass is one sequence for one point, built from the
utterances again. The one-pass model is compared with it at tight tolerances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pecrs_lib.context import Turn, Window
from pecrs_lib.heads import RECENT
from pecrs_lib.losses import angular_distance
from pecrs_lib.model import PECRS


@dataclass
class PointResult:
    """What the three passes say of one data point."""

    decision: Tensor | None  # nll of [REC] or System: as the turn's first token
    nll: Tensor  # (tokens of the response,)
    distance: Tensor | None = None  # (1 + M',) to the item and to every negative given
    score: Tensor | None = None  # (1 + M,)


def embed(model: PECRS, token: Tensor, item: Tensor, v: Tensor) -> Tensor:
    """(T, D) of one sequence; v is (N, D)."""
    x = model.backbone.embed(token).clone()
    for t in range(len(token)):
        if item[t] >= 0:
            x[t] = v[item[t]]
    return x


def run(model: PECRS, x: Tensor, candidates: Tensor | None = None) -> Tensor:
    """Hidden states of context x (T, D) with candidates (M, D) behind it, loops spelled out."""
    T, M = len(x), 0 if candidates is None else len(candidates)
    position = torch.cat([torch.arange(T), torch.full((M,), T)])
    if candidates is not None:
        placed = model.backbone.position_vectors(torch.full((M,), T))
        x = torch.cat([x, candidates if placed is None else candidates - placed])
    hidden_from = torch.finfo(x.dtype).min
    mask = [
        [0.0 if (k < T and k <= q) or k == q else hidden_from for k in range(T + M)]
        for q in range(T + M)
    ]
    return model.backbone(x[None], position[None], torch.tensor(mask)[None, None])[0]


def query(model: PECRS, x: Tensor) -> Tensor:
    """(D,) f of the standardised output at [REC], the last of x (T, D); what was read is pooled."""
    own = model.queries
    d = (run(model, x)[-1] - own.standardise.mean) / own.standardise.std
    if own.words is None or own.gate is None:
        return model.f(d)
    z = [(word - own.words.mean) / own.words.std for word in x]
    weight = [torch.exp(own.gate(word))[0] for word in z]
    mean = sum(a * word for a, word in zip(weight, z, strict=True)) / sum(weight)
    spread = (mean.var(correction=0) + 1e-5).sqrt()
    return model.f(own.share * d + (mean - mean.mean()) / spread)


def retrieval_distance(
    model: PECRS, d: Tensor, v: Tensor, item: int, past: list[int], loss: bool = False
) -> Tensor:
    """() angular distance of a query to an item; less if it was named in the past (T,) slots. In
    the retrieval loss the dot product, where configured.
    """
    distance = angular_distance(d, v[item])
    if loss and model.config.dot_product:
        distance = -sum(a * b for a, b in zip(d, v[item], strict=True)) / model.items.scale / len(d)
    if model.queries.gate is None:
        return distance
    once, recent = model.queries.repetition
    since = [len(past) - t for t, j in enumerate(past) if j == item]
    return distance - once * bool(since) - sum(recent * math.exp(-s / RECENT) for s in since)


def candidate_score(model: PECRS, hidden: Tensor, distance: Tensor) -> Tensor:
    """() g of f of the standardised output; from the retrieval score on, where configured."""
    q = model.f((hidden - model.standardise_q.mean) / model.standardise_q.std)
    if model.config.rerank_from_retrieval:
        return -distance.detach() / model.config.temperature + model.g(q)[0]
    return model.g(q)[0]


def points_of(window: Window, turn: Turn) -> list[int | None]:
    return list(turn.items) or [None]


def three_passes(
    model: PECRS,
    window: Window,
    turn: Turn,
    item: int | None,
    v: Tensor,
    retrieval_negative: Tensor,
    rerank_negative: Tensor,
    response_tokens: int = 64,
) -> PointResult:
    """The paper's three passes for one data point; negatives are (M,) catalogue rows."""
    tok = model.backbone.tokenizer
    token, slot = torch.from_numpy(window.token), torch.from_numpy(window.item)
    past, past_slot = token[: turn.start], slot[: turn.start]
    rec, none = torch.tensor([tok.rec]), torch.tensor([-1])

    # pass 1: the query (Eq 2)
    distance = score = None
    if item is not None:
        D_t = embed(model, torch.cat([past, rec]), torch.cat([past_slot, none]), v)
        d = query(model, D_t)
        named = past_slot.tolist()
        rows = torch.cat([torch.tensor([item]), retrieval_negative])
        distance = torch.stack([retrieval_distance(model, d, v, int(j), named, True) for j in rows])
        # pass 2: the candidates (Eq 5)
        rows = torch.cat([torch.tensor([item]), rerank_negative])
        out = run(model, D_t, v[rows])[len(D_t) :]
        score = torch.stack([
            candidate_score(model, h, retrieval_distance(model, d, v, int(j), named))
            for h, j in zip(out, rows, strict=True)
        ])  # fmt: skip

    # pass 3: the response (Eq 6, 7)
    response = token[turn.response : turn.end][:response_tokens]
    speaker = torch.tensor(tok.speaker["recommender"])
    prompt, prompt_slot = [past], [past_slot]
    if item is not None:
        prompt.append(torch.tensor([tok.rec, tok.item, tok.rec_end]))
        prompt_slot.append(torch.tensor([-1, item, -1]))
    prompt.append(speaker)
    prompt_slot.append(torch.full_like(speaker, -1))
    ids = torch.cat([*prompt, response])
    slots = torch.cat([*prompt_slot, torch.full_like(response, -1)])
    hidden = run(model, embed(model, ids, slots, v))
    start = len(ids) - len(response)
    logits = model.backbone.logits(hidden[start - 1 : -1])
    nll = F.cross_entropy(logits, response, reduction="none")
    opening = model.backbone.logits(hidden[turn.start - 1])
    decision = F.cross_entropy(opening[None], token[turn.start : turn.start + 1])
    return PointResult(decision, nll, distance, score)
