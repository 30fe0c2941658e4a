"""Trunk and branches: everything a batch of dialogues asks of the LM, in one sequence each.

Comes after `context`, before the model. The paper runs the LM three times per data point: for the
query, for the candidates, for the response. A causal LM over the whole dialogue (the **trunk**)
already contains the queries and the responses of every turn. What is left hangs off the trunk as
**branches**:

- a *candidate* is one token, an item vector; it sees the trunk up to and including its turn's
  ``[REC]``, and itself;
- where a turn recommends several items, each makes a data point of its own (section 4.1), and
  each has a *response branch* ``v_j [REC_END] System: text <eos>``.

Nothing sees a branch but the branch itself. So a row of the batch is ::

    [ trunk | padding | branches of its turns | padding ]

and one rule, `visible`, says who attends to whom, in training and, with the trunk in a key/value
cache, in evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pecrs_lib.context import NO_ITEM, Window

TRUNK, PADDING = 0, -1


@dataclass(frozen=True)
class Layout:
    """Who a token is, for the attention rule; each (B, T).

    Attributes:
        branch: 0 in the trunk, a number per branch elsewhere, -1 for padding.
        limit: the last trunk column the token sees: its own in the trunk, its turn's ``[REC]``
            in a branch.
        column: where the token stands in the row.
    """

    branch: Tensor
    limit: Tensor
    column: Tensor

    def first(self, n: int) -> Layout:
        """Of the first n columns."""
        return Layout(self.branch[:, :n], self.limit[:, :n], self.column[:, :n])


def visible(query: Layout, key: Layout) -> Tensor:
    """(B, 1, T_query, T_key) True where the query token attends to the key token.

    The trunk is causal; a branch sees the trunk up to its limit and, causally, itself. Candidates
    need not be among the keys: that each sees itself is known to `attention`.
    """
    k_branch, k_column = key.branch[:, None, :], key.column[:, None, :]
    in_trunk = (k_branch == TRUNK) & (k_column <= query.limit[:, :, None])
    in_branch = (k_branch == query.branch[:, :, None]) & (k_column <= query.column[:, :, None])
    same_branch = in_branch & (query.branch[:, :, None] != TRUNK)
    return (in_trunk | same_branch)[:, None]


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The boolean mask as the LM adds it to attention logits: 0 or the most negative number."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


@dataclass(frozen=True)
class Batch:
    """One forward pass and what to read off it.

    P counts data points with a recommended item, R scored response tokens, G responses.

    Attributes:
        token: (B, T) ids; 0 in padding.
        item: (B, T) catalogue row where an item vector stands in, -1 elsewhere.
        position: (B, T) position ids; a branch goes on after its turn's ``[REC]``.
        without_position: (B, T) True for candidates: learned positions are taken off them (section
            3.3); with rotary ones all stand at the place after ``[REC]``.
        layout: for `visible`.
        shared: S, how many columns the trunk and its response branches take; candidates follow.
        query_row, query_column: (P,) where the ``[REC]`` of a point stands.
        candidate: (P, 1 + M) catalogue rows, the recommended item first, then the negatives.
        candidate_column: (P, 1 + M) the candidates' columns; empty before `add_candidates`.
        retrieval_negative: (P, M') catalogue rows for Eq 3.
        response_row, response_column, response_label: (R,) the hidden state at (row, column)
            predicts the label.
        response_of: (R,) which of the G responses the token belongs to.
        response_is_decision: (R,) True where the label opens the turn: ``[REC]`` or ``System:``.
        point_response: (P,) the response that belongs to a point.
        dialogue, utterance: (G,) where a response comes from.
    """

    token: Tensor
    item: Tensor
    position: Tensor
    without_position: Tensor
    layout: Layout
    shared: int
    query_row: Tensor
    query_column: Tensor
    candidate: Tensor
    candidate_column: Tensor
    retrieval_negative: Tensor
    response_row: Tensor
    response_column: Tensor
    response_label: Tensor
    response_of: Tensor
    response_is_decision: Tensor
    point_response: Tensor
    dialogue: Tensor
    utterance: Tensor

    @property
    def responses(self) -> int:
        return len(self.dialogue)

    @property
    def positive(self) -> Tensor:
        """(P,) catalogue rows of the recommended items."""
        return self.candidate[:, 0]

    def to(self, device: torch.device | str) -> Batch:
        moved: dict[str, Any] = {
            f.name: value.to(device)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        layout = Layout(*(getattr(self.layout, f.name).to(device) for f in fields(Layout)))
        return replace(self, layout=layout, **moved)


def pack(windows: Sequence[Window], *, response_tokens: int = 64) -> Batch:
    """Trunks and response branches of a few windows, padded to one length; candidates come later.

    DEVIATION: the model also learns to open a turn, with ``[REC]`` or with ``System:``, from the
    token before it. The paper prompts every reply with the predicted item and then looks for
    ``[ITEM]``; a model that only ever saw the prompt where an item follows says ``[ITEM]`` always.
    """
    B = len(windows)
    trunk = max(len(w.token) for w in windows)
    rows: list[list[tuple[np.ndarray, np.ndarray, int]]] = []  # per window: token, item, [REC]
    points: list[tuple[int, int, int, int]] = []  # row, [REC] column, item, response
    labels: list[np.ndarray] = [np.empty((0, 5), np.int64)]  # as `_labels` makes them
    origin: list[tuple[int, int]] = []  # of every response
    for b, w in enumerate(windows):
        branches, free = [], trunk  # free: first column not yet taken
        for turn in w.turns:
            labels.append(_labels(b, turn.start, w.token[[turn.start]], len(origin), True))
            said = w.token[turn.response : min(turn.end, turn.response + response_tokens)]
            for item in turn.items or (NO_ITEM,):
                start = turn.response
                if len(turn.items) > 1:  # a response branch: v_j [REC_END] System: text <eos>
                    tail = slice(turn.start + 1 + len(turn.items), turn.end)
                    slot = w.token[[turn.start + 1]]
                    branches.append((
                        np.concatenate([slot, w.token[tail]]),
                        np.concatenate([[item], w.item[tail]]),
                        turn.start,
                    ))  # fmt: skip
                    start = free + 1 + turn.response - tail.start
                    free += 1 + tail.stop - tail.start
                if item != NO_ITEM:
                    points.append((b, turn.start, item, len(origin)))
                labels.append(_labels(b, start, said, len(origin), False))
                origin.append((w.dialogue, turn.utterance))
        rows.append(branches)

    width = trunk + max(sum(len(t) for t, _, _ in branches) for branches in rows)
    token = np.zeros((B, width), dtype=np.int64)
    slots = np.full((B, width), NO_ITEM)
    branch = np.full((B, width), PADDING)
    limit = np.tile(np.arange(width), (B, 1))
    position = np.tile(np.arange(width), (B, 1)).clip(max=trunk - 1)
    for b, (w, branches) in enumerate(zip(windows, rows, strict=True)):
        token[b, : len(w.token)], slots[b, : len(w.token)] = w.token, w.item
        branch[b, : len(w.token)] = TRUNK
        at = trunk
        for k, (t, i, rec) in enumerate(branches, start=1):
            span = slice(at, at + len(t))
            token[b, span], slots[b, span], branch[b, span], limit[b, span] = t, i, k, rec
            position[b, span] = rec + 1 + np.arange(len(t))
            at += len(t)
    column = torch.arange(width).expand(B, width)
    point = np.array(points, dtype=np.int64).reshape(-1, 4)
    label = np.concatenate(labels)
    source = np.array(origin, dtype=np.int64).reshape(-1, 2)
    return Batch(
        token=torch.from_numpy(token),
        item=torch.from_numpy(slots),
        position=torch.from_numpy(position),
        without_position=torch.zeros(B, width, dtype=torch.bool),
        layout=Layout(torch.from_numpy(branch), torch.from_numpy(limit), column),
        shared=width,
        query_row=torch.from_numpy(point[:, 0].copy()),
        query_column=torch.from_numpy(point[:, 1].copy()),
        candidate=torch.from_numpy(point[:, 2:3].copy()),
        candidate_column=torch.empty(len(point), 0, dtype=torch.int64),
        retrieval_negative=torch.empty(len(point), 0, dtype=torch.int64),
        response_row=torch.from_numpy(label[:, 0].copy()),
        response_column=torch.from_numpy(label[:, 1].copy()),
        response_label=torch.from_numpy(label[:, 2].copy()),
        response_of=torch.from_numpy(label[:, 3].copy()),
        response_is_decision=torch.from_numpy(label[:, 4].astype(bool)),
        point_response=torch.from_numpy(point[:, 3].copy()),
        dialogue=torch.from_numpy(source[:, 0].copy()),
        utterance=torch.from_numpy(source[:, 1].copy()),
    )


def _labels(row: int, start: int, ids: np.ndarray, response: int, decision: bool) -> np.ndarray:
    """(n, 5) row, column, label, response, decision of `ids`, which stand at `start` and on."""
    column = start - 1 + np.arange(len(ids))  # a token is predicted from the one before it
    same = [np.full(len(ids), value) for value in (row, response, int(decision))]
    return np.stack([same[0], column, ids, same[1], same[2]], axis=1)


def branch_layout(limit: Tensor, first_column: int) -> Layout:
    """Layout of single-token branches, each its own: (B, C) from the ``[REC]`` columns (B, C).

    Branch numbers start far above those `pack` gives to responses.
    """
    column = first_column + torch.arange(limit.shape[1], device=limit.device).expand_as(limit)
    return Layout(branch=column + 1_000_000, limit=limit, column=column)


def add_candidates(batch: Batch, rerank_negative: Tensor, retrieval_negative: Tensor) -> Batch:
    """The batch with one branch per candidate of every point.

    The points of one turn share the turn's negatives, whose branches are laid down once.

    Args:
        rerank_negative: (P, M) catalogue rows; equal for points of the same turn.
        retrieval_negative: (P, M') catalogue rows.
    """
    P, M = rerank_negative.shape
    if P == 0:
        return batch
    B, width = batch.token.shape
    turn = batch.query_row * width + batch.query_column  # points of a turn are neighbours
    new_turn = torch.ones(P, dtype=torch.bool)
    new_turn[1:] = turn[1:] != turn[:-1]
    # each point brings its own item, the first point of each turn brings the turn's negatives
    size = 1 + M * new_turn.long()
    before = torch.cumsum(size, 0) - size
    row_start = torch.searchsorted(batch.query_row, torch.arange(B))  # first point of each row
    padded = torch.cat([before, size.sum()[None]])
    offset = before - padded[row_start[batch.query_row]]  # where the point's block starts
    own = width + offset
    leader = torch.cummax(torch.where(new_turn, torch.arange(P), 0), 0).values
    shared = own[leader][:, None] + 1 + torch.arange(M)
    candidate = torch.cat([batch.candidate[:, :1], rerank_negative], 1)
    column = torch.cat([own[:, None], shared], 1)

    extra = int((offset + size).max())
    row = batch.query_row[:, None].expand_as(column)
    item = torch.full((B, width + extra), NO_ITEM)
    item[:, :width] = batch.item
    item[row, column] = candidate
    limit = torch.arange(width + extra).repeat(B, 1)
    limit[:, :width] = batch.layout.limit
    limit[row, column] = batch.query_column[:, None].expand_as(column)
    added = branch_layout(limit[:, width:], width)
    is_candidate = item[:, width:] != NO_ITEM
    branch = torch.cat([batch.layout.branch, torch.where(is_candidate, added.branch, PADDING)], 1)

    def widen(x: Tensor, tail: Tensor) -> Tensor:
        return torch.cat([x, tail], 1)

    return replace(
        batch,
        token=widen(batch.token, torch.zeros(B, extra, dtype=torch.int64)),
        item=item,
        position=widen(batch.position, (limit[:, width:] + 1) * is_candidate),
        without_position=widen(batch.without_position, is_candidate),
        layout=Layout(branch, limit, torch.arange(width + extra).expand(B, -1)),
        candidate=candidate,
        candidate_column=column,
        retrieval_negative=retrieval_negative,
    )
