"""What sampling may draw from, against a loop; the next token of a reply; the decoding widget."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pecrs_lib.data import Dialogue, Utterance
from pecrs_lib.decoding import GREEDY, STRATEGIES
from pecrs_lib.generation import generate_replies
from pecrs_lib.recommend import history_windows, recommend
from pecrs_lib.widgets.decoding_widget import (
    KINDS,
    arguments_of,
    decoding_widget,
    label,
    said_before,
    tried,
    turns_of,
)
from pecrs_lib.widgets.next_token import likeliest, next_token_figure, next_token_logits, truncated
from tests.test_one_pass import build
from tests.toys import toy_catalogue, toy_dialogues

CATALOGUE = toy_catalogue(12)
DIALOGUES = toy_dialogues(CATALOGUE, 6, seed=3)
NUMBERS = {"temperature": 1.0, "k": 5, "p": 0.9, "penalty": 1.0}


@pytest.fixture
def trained(tiny_backbone):
    model, features = build(tiny_backbone, CATALOGUE)
    return model.eval(), model.encode_catalogue(features)


def slow(p: list[float], top_k: int, top_p: float) -> list[float]:
    """Word by word from the likeliest, until there are k of them or they have p together."""
    kept, total = [0.0] * len(p), 0.0
    for n, j in enumerate(sorted(range(len(p)), key=lambda j: -p[j])):
        if (top_k and n >= top_k) or total >= top_p:
            break
        kept[j] = p[j]
        total += p[j]
    return [x / sum(kept) for x in kept]


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (1, 1.0), (3, 1.0), (0, 0.5), (0, 0.9)])
def test_truncation_is_what_a_loop_finds(top_k, top_p):
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = truncated(logits, top_k=top_k, top_p=top_p)
    want = [slow(row.softmax(-1).tolist(), top_k, top_p) for row in logits]
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert truncated(logits[0], top_k=top_k, top_p=top_p).shape == (9,)


def test_temperature_sharpens():
    p = torch.tensor([0.5, 0.3, 0.2])
    torch.testing.assert_close(truncated(p.log(), temperature=0.5), p**2 / (p**2).sum())
    assert truncated(p.log(), temperature=1e-3)[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"temperature": 0.0}, "temperature"), ({"top_k": -1}, "top_k"), ({"top_p": 0.0}, "top_p"),
     ({"top_p": 1.1}, "top_p")],
)  # fmt: skip
def test_wrong_numbers_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        truncated(torch.zeros(3), **wrong)


@pytest.mark.parametrize("recommends", [True, False])
def test_the_likeliest_next_token_is_what_greedy_decoding_says(trained, recommends):
    model, v = trained
    tok = model.backbone.tokenizer
    for dialogue in DIALOGUES[:3]:
        history = Dialogue(dialogue.id, dialogue.utterances[:3])
        best = recommend(model, [history], CATALOGUE, v, top=1)[0][0].movie
        item = CATALOGUE.row[best.id] if recommends else None
        windows = history_windows(model, [history], CATALOGUE)
        (reply,) = generate_replies(model, windows, [item], v, **GREEDY)
        logits = next_token_logits(model, history, CATALOGUE, v, recommends=recommends).clone()
        logits[[tok.eos, tok.sep, tok.rec, tok.rec_end]] = -torch.inf  # as generation has it
        assert int(logits.argmax()) == reply[0]


def test_a_begun_reply_goes_on(trained):
    model, v = trained
    history = Dialogue("d", DIALOGUES[0].utterances[:3])
    plain, begun, slot = (
        next_token_logits(model, history, CATALOGUE, v, said=said)
        for said in ("", "Have you seen", "Have you seen [ITEM]")
    )
    assert not torch.allclose(plain, begun) and not torch.allclose(begun, slot)
    words, ids = likeliest(slot, model.backbone.tokenizer, 10**6)
    assert len(words) == len(ids) == len(slot) and {"[ITEM]", "(end)"} <= set(words)


def test_its_picture_has_a_bar_per_word():
    figure = next_token_figure(["a", "b"], [0.7, 0.3], [1.0, 0.0])
    assert len(figure.axes[0].patches) == 4


# -- the widget -----------------------------------------------------------------------------------


def test_every_strategy_of_the_table_can_be_chosen():
    chosen = [arguments_of(kind, beams=4, **NUMBERS) for kind in KINDS]
    for name, row in STRATEGIES.items():
        assert any(set(row) <= set(one) for one in chosen), name
    with pytest.raises(ValueError, match="nucleus"):
        arguments_of("magic", **NUMBERS)
    assert label("greedy", GREEDY, 3) == "greedy"
    sampled = arguments_of("top-k sampling", **NUMBERS)
    assert label("top-k sampling", sampled, 3) == "top-k sampling, k = 5, seed 3"


def test_a_turn_is_answered_under_each_setting(trained):
    model, v = trained
    dialogue = next(d for d in DIALOGUES if turns_of(d))
    settings = {"greedy": GREEDY, "again": GREEDY}
    rows = tried(model, dialogue, turns_of(dialogue)[0], CATALOGUE, v, settings)
    assert list(rows.index) == list(settings)
    same = rows.drop(columns="ms")
    assert same.loc["greedy"].equals(same.loc["again"])


def test_the_widget_keeps_what_was_tried_and_forgets_it_with_the_dialogue(trained):
    model, v = trained
    panel = decoding_widget(model, CATALOGUE, v, DIALOGUES)
    assert not panel.message.value and "greedy" in panel.below.value
    panel.controls["kind"].value = "top-k sampling"
    panel.controls["seed"].value = 2
    assert not panel.message.value
    assert all(name in panel.below.value for name in ("greedy", "seed 0", "seed 2"))
    panel.controls["turn"].index = 1
    assert "greedy" not in panel.below.value and "seed 2" in panel.below.value
    panel.controls["begun"].value = "Have you <b>"
    assert not panel.message.value
    with pytest.raises(ValueError, match="recommender"):
        decoding_widget(model, CATALOGUE, v, [Dialogue("d", (Utterance("seeker", "hi"),))])


def test_what_was_said_is_text_and_not_html():
    shown = said_before(Dialogue("d", (Utterance("seeker", "<b>hi</b>"),)))
    assert "&lt;b&gt;hi" in shown and "<b>" not in shown
