"""The next token of a reply: how likely each is, and which a decoding strategy may draw.

Comes after `generation`, of which it shows one step; notebook 08 and its widget draw it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from transformers import TopKLogitsWarper, TopPLogitsWarper

from pecrs_lib.context import SPECIAL_TOKENS, DialogueTokenizer
from pecrs_lib.data.schema import Catalogue, Dialogue, Mention, Utterance
from pecrs_lib.figures import axes_of
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.recommend import next_turns, with_prompt

SLOT = "[ITEM]"


@torch.inference_mode()
def next_token_logits(
    model: PECRS,
    history: Dialogue,
    catalogue: Catalogue,
    v: Tensor,
    *,
    said: str = "",
    recommends: bool = True,
) -> Tensor:
    """(V,) logits of the next token of the recommender's reply to a dialogue.

    Args:
        v: (N, D) item vectors.
        said: how the reply begins; ``[ITEM]`` stands for the film that ranks first.
        recommends: whether the reply is prompted with that film.
    """
    tok = model.backbone.tokenizer
    (turn,) = next_turns(model, [history], catalogue, v, top=1)
    best = turn.ranked[0].movie
    (window,) = with_prompt([turn.trunk], [catalogue.row[best.id] if recommends else None], tok)
    text = said.replace(SLOT, best.name)
    names = re.finditer(re.escape(best.name), text)
    mentions = tuple(Mention(best.id, *name.span()) for name in names)
    (tokens,) = tok.encode_texts([Utterance("recommender", text, mentions)], catalogue)
    ids = np.array(tokens, dtype=np.int64)
    begun = dataclasses.replace(
        window,
        token=np.append(window.token, ids),
        item=np.append(window.item, np.full(len(ids), -1)),
    )
    batch = pack([begun]).to(model.device)
    _, hidden = model.read(batch, v, torch.arange(len(v), device=v.device))
    return model.backbone.logits(hidden[0, len(begun.token) - 1])


def truncated(
    logits: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """(…, V) probabilities that sampling draws from: 0 for what a strategy cuts off.

    Args:
        temperature: divides the logits: below 1 the likely gets likelier.
        top_k: keep the k likeliest; 0 keeps all.
        top_p: keep the fewest that have probability p together.

    Raises:
        ValueError: a temperature that is not positive, k below 0, or p outside (0, 1].
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if top_k < 0:
        raise ValueError(f"top_k must not be negative, got {top_k}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
    scores = logits.reshape(-1, logits.shape[-1]).float() / temperature
    none = torch.empty(len(scores), 0, dtype=torch.int64)
    if top_k:
        scores = TopKLogitsWarper(top_k)(none, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(none, scores)
    return scores.softmax(-1).view(logits.shape)


def likeliest(p: Tensor, tok: DialogueTokenizer, n: int = 12) -> tuple[list[str], Tensor]:
    """The n tokens of the largest p (V,), ``␣`` for a space, and their ids (n,)."""
    ids = p.topk(min(n, len(p))).indices
    names = dict(zip(tok.special_ids, SPECIAL_TOKENS, strict=True)) | {tok.eos: "(end)"}
    pieces = tok.tokenizer.convert_ids_to_tokens(ids.tolist())
    words = [
        names.get(token) or piece.replace("Ġ", "␣").replace("▁", "␣")
        for token, piece in zip(ids.tolist(), pieces, strict=True)
    ]
    return words, ids


def next_token_figure(words: Sequence[str], p: Sequence[float], kept: Sequence[float]) -> Figure:
    """Bars of the model's probabilities (outlined) and of what sampling draws from (filled)."""
    figure, ax = axes_of(size=(7.6, 0.9 + 0.27 * len(words)))
    place = np.arange(len(words))[::-1]
    ax.barh(place, 100 * np.array(kept), color="#7f9fc8", height=0.55, label="drawn from")
    ax.barh(
        place, 100 * np.array(p), color="none", edgecolor="black", height=0.85,
        label="of the model",
    )  # fmt: skip
    ax.set_yticks(place, list(words))
    ax.set_xlabel("probability of the next token (%)")
    ax.grid(axis="y", visible=False)
    ax.legend(fontsize=9, loc="lower right")
    return figure
