"""From a dialogue in progress to the items to recommend next (section 3.6).

Comes after `ranking`; `generation` turns the first of them into a reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pecrs_lib.batches import batches_by_length
from pecrs_lib.context import DialogueTokenizer, Window, history_window
from pecrs_lib.data.schema import Catalogue, Dialogue, Movie
from pecrs_lib.index import Index
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.ranking import PASS_TOKENS, Ranking, rank, read_trunks


@dataclass(frozen=True)
class Recommendation:
    """One recommended item: its `score` r, and its place before re-ranking (1 is nearest)."""

    movie: Movie
    score: float
    distance: float
    retrieved: int


@dataclass(frozen=True)
class NextTurn:
    """What one reading of a dialogue says of the recommender's turn to come.

    Attributes:
        trunk: what was said so far, as the LM read it.
        ranked: items to recommend, best first.
        opens_with_rec: how likely the turn opens with ``[REC]`` rather than ``System:``, 0 to 1.
    """

    trunk: Window
    ranked: list[Recommendation]
    opens_with_rec: float


def history_windows(
    model: PECRS, histories: Sequence[Dialogue], catalogue: Catalogue
) -> list[Window]:
    """The trunk of each dialogue so far, with the limits of the model's configuration."""
    tok = model.backbone.tokenizer
    return [history_window(h, catalogue, tok, **model.window_limits) for h in histories]


def with_query(windows: Sequence[Window], rec: int) -> list[Window]:
    """Each trunk with ``[REC]`` behind it: the query input of Eq 2."""
    return [replace(w, token=np.append(w.token, rec), item=np.append(w.item, -1)) for w in windows]


def with_prompt(
    windows: Sequence[Window], item: Sequence[int | None], tok: DialogueTokenizer
) -> list[Window]:
    """Each trunk with what opens the recommender's reply behind it (Eq 6).

    Args:
        item: catalogue row in the item slot; None for a turn without recommendation.
    """
    made = []
    for window, row in zip(windows, item, strict=True):
        slot = [] if row is None else [(tok.rec, -1), (tok.item, row), (tok.rec_end, -1)]
        token, rows = zip(*slot, *((t, -1) for t in tok.speaker["recommender"]), strict=True)
        made.append(
            replace(window, token=np.append(window.token, token), item=np.append(window.item, rows))
        )
    return made


@torch.inference_mode()
def next_turns(
    model: PECRS,
    histories: Sequence[Dialogue],
    catalogue: Catalogue,
    v: Tensor,
    *,
    top: int = 10,
    candidates: int | None = None,
    exclude_mentioned: bool = False,
    index: Index | None = None,
) -> list[NextTurn]:
    """Read each of a batch of dialogues once: what to recommend next, and whether to.

    Args:
        histories: dialogues so far; may be empty.
        v: (N, D) item vectors, from `model.encode_catalogue`.
        candidates: M_inference; the model's own setting when None.
        exclude_mentioned: leave out what either speaker has named already.
        index: of `v`, to retrieve through where the catalogue is large, see `ranking.rank`.
    """
    model.eval()
    tok = model.backbone.tokenizer
    trunks = history_windows(model, histories, catalogue)
    queries = with_query(trunks, tok.rec)
    length = [len(w.token) for w in queries]
    openings = [tok.rec, tok.speaker["recommender"][0]]
    found: dict[int, NextTurn] = {}
    for part in batches_by_length(range(len(queries)), PASS_TOKENS, length.__getitem__):
        trunk = read_trunks(model, pack([queries[k] for k in part]).to(model.device), v)
        row = torch.arange(len(part), device=model.device)
        column = torch.tensor([length[k] - 1 for k in part], device=model.device)
        M = candidates or model.config.candidates
        ranking = rank(model, trunk, row, column, v, candidates=M, index=index)
        before = model.backbone.logits(trunk.hidden[row, column - 1])[:, openings]
        chance = before.softmax(-1)[:, 0].tolist()
        for q, k in enumerate(part):
            best = _best(ranking, q, histories[k], catalogue, top, exclude_mentioned)
            found[k] = NextTurn(trunks[k], best, chance[q])
    return [found[k] for k in range(len(trunks))]


def recommend(
    model: PECRS, histories: Sequence[Dialogue], catalogue: Catalogue, v: Tensor, **how: Any
) -> list[list[Recommendation]]:
    """The items to recommend next in each of a batch of dialogues; arguments as of `next_turns`."""
    return [turn.ranked for turn in next_turns(model, histories, catalogue, v, **how)]


def _best(
    ranking: Ranking, q: int, history: Dialogue, catalogue: Catalogue, top: int,
    exclude_mentioned: bool,
) -> list[Recommendation]:  # fmt: skip
    """The `top` items of turn q of a ranking."""
    named = history.mentioned_before(len(history)) if exclude_mentioned else set()
    return [
        Recommendation(
            catalogue[j], float(ranking.score[q, k]), float(ranking.near[q, k]),
            int(ranking.retrieved[q, k]) + 1,
        )
        for k, j in enumerate(ranking.rows[q].tolist())
        if catalogue[j].id not in named
    ][:top]  # fmt: skip
