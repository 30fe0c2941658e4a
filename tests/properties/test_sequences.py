"""Whatever people type: control tokens stay text, and sequences keep what the model relies on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pecrs_lib.context import NO_ITEM, DialogueTokenizer, history_window, windows_of
from pecrs_lib.data.minireel import bundled_backbone
from pecrs_lib.packing import add_candidates, pack, visible
from pecrs_lib.zero_shot.titles import TitleMatcher, entries, spellings
from tests.properties.strategies import CATALOGUE, CONTROL, dialogues, said

AREA = "Special tokens, sequences and replies"
LIMITS = {"context_tokens": 32, "utterance_tokens": 24, "window": 96}


@pytest.fixture(scope="module")
def tok():
    tokenizer = AutoTokenizer.from_pretrained(bundled_backbone("reel-small"))
    return DialogueTokenizer(tokenizer, len(tokenizer))


@given(st.lists(st.one_of(said, st.sampled_from(CONTROL)), max_size=5).map("".join))
def test_typed_control_tokens(tok, words):
    """text with control tokens spelled out, encoded: no control token comes out, all text does"""
    (ids,) = tok.encode([words])
    assert not {tok.eos, tok.bos, *tok.special_ids} & {*ids}
    assert all(0 <= i < tok.item for i in ids)
    assert tok.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == words


@given(dialogues)
def test_windows(tok, dialogue):
    """dialogues cut into windows: control tokens only where the format puts them, each turn once"""
    windows = windows_of(dialogue, 0, CATALOGUE, tok, **LIMITS)
    scored = [t.utterance for w in windows for t in w.turns]
    assert scored == [k for k, u in enumerate(dialogue.utterances) if u.role == "recommender"]
    for w in windows:
        assert len(w.token) == len(w.item) <= LIMITS["window"]
        assert ((w.item >= NO_ITEM) & (w.item < len(CATALOGUE))).all()
        assert (w.token[w.item != NO_ITEM] == tok.item).all()
        for t in w.turns:
            known = [CATALOGUE.row[i] for i in dialogue.utterances[t.utterance].items
                     if i in CATALOGUE]  # fmt: skip
            assert [*t.items] == known[: len(t.items)] and t.start < t.response < t.end
            assert (w.token[t.start] == tok.rec) == bool(t.items)
            assert w.token[t.end - 1] == tok.eos
            inside = w.token[t.response : t.end - 1]
            assert not {tok.rec, tok.rec_end, tok.sep, tok.eos} & {*inside.tolist()}
    count = sum(bool(t.items) for w in windows for t in w.turns)
    assert sum((w.token == tok.rec).sum() for w in windows[:1]) >= (
        count if len(windows) == 1 else 0
    )
    coming = history_window(dialogue, CATALOGUE, tok, **LIMITS)
    assert len(coming.token) == len(coming.item) < LIMITS["window"]


@given(st.lists(dialogues, min_size=1, max_size=3), st.integers(0, 3), st.integers(1, 40))
def test_packing(tok, made, negatives, response_tokens):
    """windows packed with candidates: labels are the tokens said, and nothing sees its future"""
    windows = [w for d in made for w in windows_of(d, 0, CATALOGUE, tok, **LIMITS)]
    batch = pack(windows, response_tokens=response_tokens)
    P = len(batch.positive)
    drawn = torch.from_numpy(np.random.default_rng(0).integers(0, len(CATALOGUE), (P, negatives)))
    turn = batch.query_row * 10_000 + batch.query_column
    for p in range(1, P):  # points of a turn share its negatives
        if turn[p] == turn[p - 1]:
            drawn[p] = drawn[p - 1]
    batch = add_candidates(batch, drawn, drawn)
    B, T = batch.token.shape
    assert (batch.token[batch.query_row, batch.query_column] == tok.rec).all()
    said_at = batch.token[batch.response_row, batch.response_column + 1]
    assert (said_at[~batch.response_is_decision] == batch.response_label[
        ~batch.response_is_decision]).all()  # fmt: skip
    if P:
        rows = batch.query_row[:, None].expand_as(batch.candidate_column)
        assert (batch.item[rows, batch.candidate_column] == batch.candidate).all()
    assert batch.position.min() >= 0 and batch.position.max() < T
    seen = visible(batch.layout, batch.layout)[:, 0]
    column = torch.arange(T)
    real = batch.layout.branch >= 0
    future = column[None, :] > column[:, None]
    assert not (seen & future & real[:, :, None]).any()
    assert not (seen & real[:, :, None] & ~real[:, None, :]).any()  # padding
    assert len(batch.dialogue) == batch.responses and len(windows) == B


@given(st.lists(st.integers(0, 5_000), max_size=30), st.lists(said, max_size=3))
def test_decoding(tok, ids, titles):
    """any ids decoded with titles of any text: text, with the titles as they are"""
    ids = [i % (tok.item + 1) for i in ids]
    words = tok.decode(ids, *titles)
    words.encode()
    until = ids[: ids.index(tok.eos)] if tok.eos in ids else ids
    if titles and tok.item in until:
        assert titles[0].strip() in words or not titles[0].strip()
    plain = tok.decode(ids)
    assert plain.count("[ITEM]") >= until.count(tok.item)


@given(said, st.lists(st.sampled_from([*CATALOGUE]), min_size=1, max_size=6, unique=True))
def test_lists_in_replies(words, films):
    """a numbered list of films after any line of text, read: those films in that order"""
    reply = "Sure!\n" + "\n".join(f"{k}. {m.name}" for k, m in enumerate(films, 1))
    (found,) = TitleMatcher(CATALOGUE).in_lists([f"{reply}\n\n{'x' + words}"])
    rows = [CATALOGUE.row[m.id] for m in films]
    assert [t.row for t in found] == rows


@given(said)
def test_any_reply(words):
    """any text as a reply: parsed; rows are of the catalogue"""
    assert all(e.strip() for e in entries(words))
    assert all(isinstance(s, str) for s in spellings(words))
    matcher = TitleMatcher(CATALOGUE, popularity=np.arange(len(CATALOGUE)))
    for title in matcher.in_lists([words])[0]:
        assert title.row is None or CATALOGUE[title.row]
