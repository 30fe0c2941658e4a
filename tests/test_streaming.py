"""Streaming: the pieces are the final text, whatever the tokens are, and no reply changes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pecrs_lib.context import DialogueTokenizer
from pecrs_lib.data import Dialogue, Utterance
from pecrs_lib.data.minireel import bundled_backbone
from pecrs_lib.decoding import GREEDY, STRATEGIES, diverse
from pecrs_lib.generation import respond
from pecrs_lib.streaming import TextStream
from tests.test_one_pass import build

HISTORY = Dialogue("a", (Utterance("seeker", "I like robots"),))
TITLES = ["Amélie (2001)", "千と千尋の神隠し", "Up  "]
CASES = {
    **{n: s for n, s in STRATEGIES.items() if n in ("greedy", "beam search")},
    "top-k": {"do_sample": True, "top_k": 25},
    "diverse": diverse(0.5, beams=2),
    "one group": diverse(0.5, beams=1),
}


@pytest.fixture(scope="module")
def trained(tiny_backbone, catalogue):
    model, features = build(tiny_backbone, catalogue)
    return model, model.encode_catalogue(features)


@pytest.fixture(scope="module")
def tok():
    tokenizer = AutoTokenizer.from_pretrained(bundled_backbone("reel-small"))
    return DialogueTokenizer(tokenizer, len(tokenizer))


def streamed(tok, ids):
    pieces: list[str] = []
    stream = TextStream(tok, TITLES, pieces.append)
    stream.put(torch.zeros(1, 0, dtype=torch.long))  # the prompt
    for token in ids:
        stream.put(torch.tensor([token]))
    stream.end()
    return pieces


@pytest.mark.parametrize("name", CASES)
def test_streaming_changes_no_reply_and_loses_no_letter(trained, catalogue, name):
    model, v = trained
    asked = {"always_recommend": True, "seed": 3, **CASES[name]}
    for seed in range(4):
        asked["seed"] = seed
        pieces: list[str] = []
        (plain,) = respond(model, [HISTORY], catalogue, v, **asked)
        before = torch.random.get_rng_state()
        (live,) = respond(model, [HISTORY], catalogue, v, on_text=pieces.append, **asked)
        assert live == plain and "".join(pieces) == plain.text
        assert torch.equal(torch.random.get_rng_state(), before)
        beams = name in ("beam search", "diverse", "one group")
        assert (len(pieces) <= 1) if beams else (len(pieces) > 3), pieces


def test_letters_of_several_tokens_and_titles_come_whole(tok):
    text = " Wie wär's mit 🤖 und 一部电影"
    ids = [*tok.encode([text])[0], tok.item, *tok.encode([" or"])[0], tok.item, tok.eos, 5]
    assert len(ids) > len(text), "some letters are several tokens"
    pieces = streamed(tok, ids)
    assert "".join(pieces) == tok.decode(ids, *TITLES)
    assert "".join(pieces).endswith("一部电影 Amélie (2001) or 千と千尋の神隠し")
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert any("Amélie (2001)" in piece for piece in pieces)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_tokens_at_all(tok, data):
    known = st.integers(0, len(tok.tokenizer) - 1)
    bytes_only = st.integers(0, 260)  # mostly broken letters
    ids = data.draw(st.lists(st.one_of(known, bytes_only, st.just(tok.item)), max_size=25))
    assert "".join(streamed(tok, ids)) == tok.decode(ids, *TITLES)


def test_one_reply_at_a_time(trained, catalogue):
    model, v = trained
    with pytest.raises(ValueError, match="not 2"):
        respond(model, [HISTORY] * 2, catalogue, v, on_text=lambda text: None, **GREEDY)
    assert respond(model, [], catalogue, v, on_text=lambda text: None) == []
