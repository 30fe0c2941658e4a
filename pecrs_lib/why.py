"""Why a film: the things said that are nearest to it.

Comes after `recommend`; `chat` shows it beside each film. It looks into the query (Eq 2) of models
with `query_pooling`, whose parts can be told apart; the others know no why.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pecrs_lib.context import DialogueTokenizer, Window
from pecrs_lib.data.schema import Catalogue, Dialogue, Movie
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.recommend import history_windows, with_query

LEAST = 1.0  # percent; what has less says nothing about the film
SPACES = "Ġ▁"  # how tokenizers write the space before a word


@torch.inference_mode()
def nearest_said(
    model: PECRS, history: Dialogue, catalogue: Catalogue, v: Tensor, movies: Sequence[Movie],
    k: int = 3,
) -> list[list[tuple[str, float]]]:  # fmt: skip
    """Per movie the k things said that speak most for it: words or films, with their part.

    With `query_pooling` the query is made of a weighted mean of what was read, so each token has
    a part in it: its weight times the cosine between its vector and the movie's, in percent of the
    largest weight. So 100 is the token that counts most, if its vector points exactly to the
    movie. A word has the part of its strongest token; parts below `LEAST` are left out. What
    attention adds at ``[REC]`` is not in it. Without pooling: empty lists.
    """
    queries = model.queries
    if queries.words is None:
        return [[] for _ in movies]
    tok = model.backbone.tokenizer
    (window,) = with_query(history_windows(model, [history], catalogue), tok.rec)
    batch = pack([window]).to(model.device)
    x = model.inputs(batch, v, torch.arange(len(v), device=v.device))[0, : len(window.token)]
    z = queries.words(x.float())
    weight = queries.weight(z)
    rows = [catalogue.row[m.id] for m in movies]
    item = normalize(queries.words(model.items.scale * v[rows]), dim=1)
    part = 100 * weight[:, None] / weight.max() * (normalize(z, dim=1) @ item.T)  # (T, movies)
    things = things_said(window, tok, catalogue)
    found = []
    for column in part.T.tolist():
        best: dict[str, float] = {}
        for name, at in things:
            best[name] = max(best.get(name, 0.0), *(column[t] for t in at))
        order = sorted(best, key=lambda name: -best[name])
        found.append([(name, best[name]) for name in order if best[name] >= LEAST][:k])
    return found


def things_said(
    window: Window, tok: DialogueTokenizer, catalogue: Catalogue
) -> list[tuple[str, list[int]]]:
    """The words and films of a trunk, with their columns; markers and single letters are none."""
    token, pieces = window.token.tolist(), tok.tokenizer.convert_ids_to_tokens
    speakers = {tuple(ids) for ids in tok.speaker.values()}
    things: list[tuple[str, list[int]]] = []
    word: list[int] = []

    def end_word() -> None:
        ids = tuple(token[t] for t in word)
        name = tok.decode(ids).strip(" .,:;!?…\"'()")
        if ids not in speakers and len(name) > 1:
            things.append((name, list(word)))
        word.clear()

    for t, (id_, row) in enumerate(zip(token, window.item.tolist(), strict=True)):
        marker = id_ >= tok.item or id_ in (tok.eos, tok.bos)
        if marker or pieces(id_)[:1] in SPACES:
            end_word()
        if row >= 0:
            things.append((catalogue[row].name, [t]))
        elif not marker:
            word.append(t)
    end_word()
    return things
