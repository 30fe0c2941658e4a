"""What must not matter does not: padding, batching, the future, the other candidates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from pecrs_lib.context import Window, encode_dialogues
from pecrs_lib.data import Dialogue
from pecrs_lib.packing import PADDING, TRUNK, Layout, add_candidates, branch_layout, pack, visible
from tests.test_one_pass import build, windows_for, with_negatives


@pytest.fixture(scope="module", params=[False, True], ids=["as the paper", "as TINY"])
def trained(request, tiny_backbone, catalogue):
    changes = {"rerank_from_retrieval": request.param, "query_pooling": request.param}
    return build(tiny_backbone, catalogue, **changes)


def outputs(model, features, batch):
    """Everything a batch says: query vectors, candidate scores, token losses."""
    v = model.items.catalogue(features)
    x, hidden = model.read(batch, v, torch.arange(len(v)))
    at = batch.query_row, batch.query_column
    distance = model.distance(batch, x, hidden, *at, v, torch.arange(len(v)))
    to_candidates = distance.gather(1, batch.candidate)
    q = hidden[batch.query_row[:, None], batch.candidate_column]
    return distance, model.candidate_scores(q, to_candidates), model.token_nll(hidden, batch)


def slow_visible(query: Layout, key: Layout) -> torch.Tensor:
    """The attention rule in words, one pair at a time."""
    B, Q, K = len(query.branch), query.branch.shape[1], key.branch.shape[1]
    out = torch.zeros(B, 1, Q, K, dtype=torch.bool)
    for b in range(B):
        for q in range(Q):
            for k in range(K):
                if key.branch[b, k] == TRUNK:
                    out[b, 0, q, k] = key.column[b, k] <= query.limit[b, q]
                elif key.branch[b, k] == query.branch[b, q]:
                    out[b, 0, q, k] = key.column[b, k] <= query.column[b, q]
    return out


def test_the_mask_equals_the_rule_in_words(trained, catalogue, dialogues):
    model, _ = trained
    layout = with_negatives(pack(windows_for(model, dialogues[:3], catalogue)), 24, m=3).layout
    assert torch.equal(visible(layout, layout), slow_visible(layout, layout))
    ahead = branch_layout(torch.tensor([[4, 4, 9]] * 3), first_column=layout.branch.shape[1])
    assert torch.equal(visible(ahead, layout), slow_visible(ahead, layout))


def test_every_real_token_sees_itself_and_no_padding(trained, catalogue, dialogues):
    model, _ = trained
    layout = with_negatives(pack(windows_for(model, dialogues[:3], catalogue)), 24, m=3).layout
    mask = visible(layout, layout)[:, 0]
    real = layout.branch != PADDING
    assert mask.diagonal(dim1=1, dim2=2)[real].all()
    assert not (mask & real[:, :, None] & ~real[:, None, :]).any()


def test_batching_and_padding_change_nothing(trained, catalogue, dialogues):
    model, features = trained
    windows = windows_for(model, dialogues[:4], catalogue)
    together = with_negatives(pack(windows), 24, m=2)
    d, r, nll = outputs(model, features, together)
    p = t = 0
    for window in windows:
        alone = pack([window])
        n = len(alone.positive)
        alone = add_candidates(
            alone, together.candidate[p : p + n, 1:], together.retrieval_negative[p : p + n]
        )
        one_d, one_r, one_nll = outputs(model, features, alone)
        torch.testing.assert_close(one_d, d[p : p + n], atol=1e-5, rtol=1e-5)
        if n:
            torch.testing.assert_close(one_r, r[p : p + n], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one_nll, nll[t : t + len(one_nll)], atol=1e-5, rtol=1e-5)
        p, t = p + n, t + len(one_nll)
    assert p == len(d) and t == len(nll)


def test_the_future_changes_no_score_of_the_past(trained, catalogue, dialogues):
    model, features = trained
    tok = model.backbone.tokenizer
    window = max(windows_for(model, dialogues, catalogue), key=lambda w: len(w.token))
    turn = next(t for t in window.turns if t.items)
    changed = dataclasses.replace(window, token=window.token.copy(), item=window.item.copy())
    rng = np.random.default_rng(0)
    after = slice(turn.start + 1, None)
    changed.token[after] = rng.integers(1, tok.item, len(changed.token[after]))
    slot = changed.item >= 0
    slot[: turn.start + 1] = False
    changed.item[slot] = (changed.item[slot] + 7) % len(catalogue)
    n = len(turn.items)
    negatives = torch.tensor([[20, 21, 22, 23]]).expand(n, -1)

    def first_turn(w: Window):
        only = dataclasses.replace(w, turns=(turn,))
        batch = add_candidates(pack([only]), negatives, negatives)
        d, r, nll = outputs(model, features, batch)
        return d, r, nll[batch.response_is_decision]

    for a, b in zip(first_turn(window), first_turn(changed), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
    # and the test can see a change: moving the past moves the scores
    changed.token[1] = (changed.token[1] + 1) % tok.item
    assert not torch.allclose(first_turn(window)[1], first_turn(changed)[1], atol=1e-4)


def test_candidates_are_blind_to_each_other(trained, catalogue, dialogues):
    model, features = trained
    packed = pack(windows_for(model, dialogues[:2], catalogue))
    batch = with_negatives(packed, 24, m=6)
    _, r, nll = outputs(model, features, batch)
    other = batch.candidate[:, 1:].clone()
    other[:, 0] = (other[:, 0] + 5) % 24  # one candidate of every turn becomes another item
    _, r_other, nll_other = outputs(
        model, features, add_candidates(packed, other, batch.retrieval_negative)
    )
    same = [0, *range(2, 7)]
    torch.testing.assert_close(r_other[:, same], r[:, same], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(nll_other, nll, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(r_other[:, 1], r[:, 1], atol=1e-4)


def test_permuting_candidates_permutes_scores(trained, catalogue, dialogues):
    model, features = trained
    packed = pack(windows_for(model, dialogues[:2], catalogue))
    batch = with_negatives(packed, 24, m=6)
    order = torch.randperm(6)
    moved = add_candidates(packed, batch.candidate[:, 1:][:, order], batch.retrieval_negative)
    _, r, _ = outputs(model, features, batch)
    _, r_moved, _ = outputs(model, features, moved)
    torch.testing.assert_close(r_moved[:, 1:], r[:, 1:][:, order], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(r_moved[:, 0], r[:, 0], atol=1e-6, rtol=1e-6)


def test_every_item_of_a_turn_is_a_point_with_its_own_response(trained, catalogue, dialogues):
    model, _ = trained
    windows = windows_for(model, dialogues, catalogue)
    batch = pack(windows)
    wanted = [i for w in windows for t in w.turns for i in t.items]
    assert batch.positive.tolist() == wanted
    assert batch.responses == sum(max(1, len(t.items)) for w in windows for t in w.turns)
    assert len(set(batch.point_response.tolist())) == len(wanted)
    decided = int(batch.response_is_decision.sum())
    assert decided == sum(len(w.turns) for w in windows)


def test_windows_without_turns_and_turns_without_items(trained, catalogue):
    model, features = trained
    silent = Dialogue("quiet", ())
    windows = encode_dialogues([silent], catalogue, model.backbone.tokenizer)
    batch = with_negatives(pack(windows), 24)
    losses = model(batch, features)
    assert losses.points == losses.responses == 0
    assert (losses.recall + losses.rerank + losses.gen).item() == 0.0
