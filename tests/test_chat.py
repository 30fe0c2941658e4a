"""A conversation: films recognised and not, reactions, taking back, saving; why a film."""

from __future__ import annotations

import pytest
import torch

from pecrs_lib.chat import WORDS, Chat, nearest_said
from pecrs_lib.data import Catalogue, Dialogue, Movie, Utterance, read_jsonl
from pecrs_lib.decoding import GREEDY
from pecrs_lib.transcript import near_misses, say_as
from tests.test_one_pass import build

FILMS = Catalogue(
    tuple(
        Movie(f"m{k}", title, year, plot=plot)
        for k, (title, year, plot) in enumerate([
            ("Home Alone", 1990, "a boy defends his house"), ("Up", 2009, "balloons lift a house"),
            ("Inception", 2010, "thieves steal dreams"), ("Her", 2013, "a man loves a voice"),
            ("The Shining", 1980, "a hotel in winter"), ("Toy Story", 1995, "toys come alive"),
        ])
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny_backbone):
    model, features = build(tiny_backbone, FILMS, query_pooling=True)
    return model, model.encode_catalogue(features)


@pytest.fixture
def chat(trained):
    model, v = trained
    return Chat(model, FILMS, v, top=4, **GREEDY)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("I loved Home Alone", {}),
        ("I loved Hoem Alone", {"Hoem Alone": ["Home Alone"]}),
        ('have you seen "Incepton"?', {"Incepton": ["Inception"]}),
        ('have you seen "Zzyzx Road"?', {"Zzyzx Road": []}),
        ("Something like The Shinning (1980), please", {"The Shinning (1980)": ["The Shining"]}),
        ("I like Tom Hanks and Denzel Washington", {}),
        ("nothing here", {}),
        ("", {}),
    ],
)
def test_titles_that_nobody_bears(text, want):
    found = near_misses(text, FILMS)
    assert {words: [m.title for m in near] for words, near in found.items()} == want


def test_an_exchange(chat):
    answer = chat.say("I loved Home Alone and Incpetion. Something new?")
    assert [m.title for m in answer.recognised] == ["Home Alone"]
    assert [m.title for near in answer.unknown.values() for m in near] == ["Inception"]
    assert len(answer.reply.ranked) == 4
    assert [u.role for u in chat.dialogue.utterances] == ["seeker", "recommender"]
    assert chat.dialogue.utterances[0].items == ("m0",)


@pytest.mark.parametrize("how", WORDS)
def test_reactions_enter_the_dialogue(chat, how):
    answer = chat.react(FILMS[1], how)
    assert answer.recognised == [FILMS[1]]
    said = chat.dialogue.utterances[0]
    (mention,) = said.mentions
    assert said.text[mention.start : mention.end] == FILMS[1].name


@pytest.mark.parametrize(
    "text", ["?", "¿Qué película me recomiendas?", "一部关于机器人的电影", "🤖" * 5, "word " * 3000]
)
def test_any_line_gets_an_answer(chat, text):
    assert len(chat.say(text).reply.ranked) == 4
    assert len(chat.say("and then?").reply.ranked) == 4


def test_bad_input_is_refused_and_changes_nothing(chat):
    for wrong in ("", "   \n"):
        with pytest.raises(ValueError, match="empty"):
            chat.say(wrong)
    with pytest.raises(ValueError, match="loved"):
        chat.react(FILMS[0], "loved")
    with pytest.raises(ValueError, match="Nope"):
        chat.react(Movie("x", "Nope", 2022), "liked")
    assert chat.dialogue.utterances == () and chat.answers == []


def test_undo_restart_and_repeat(chat):
    assert not chat.undo()
    first = chat.say("hello").reply
    second = chat.say("a comedy").reply
    assert chat.undo() and len(chat.answers) == 1 and len(chat.dialogue) == 2
    assert chat.say("a comedy").reply == second
    chat.restart()
    assert len(chat.dialogue) == 0 and chat.say("hello").reply == first


def test_a_saved_conversation_is_read_again(chat, tmp_path):
    with pytest.raises(ValueError, match="nothing"):
        chat.save(tmp_path / "none.jsonl")
    chat.say("I loved Home Alone")
    chat.save(tmp_path / "talk.jsonl")
    (again,) = read_jsonl(tmp_path / "talk.jsonl")
    assert again.utterances == chat.dialogue.utterances


def test_what_speaks_for_a_film_is_what_was_said(trained):
    model, v = trained
    text = "I loved Home Alone (1990) and toys"
    history = Dialogue("d", (say_as("seeker", text, FILMS),))
    found = nearest_said(model, history, FILMS, v, FILMS.movies[:3], k=2)
    assert len(found) == 3
    for said in found:
        assert len(said) <= 2 and [part for _, part in said] == sorted(
            (part for _, part in said), reverse=True
        )
        for name, part in said:
            assert name == "Home Alone (1990)" or name in "User: I loved and toys"
            assert 0 < part <= 100 + 1e-4
    with torch.no_grad():
        model.queries.gate[-1].bias.fill_(3.0)  # a common factor changes nothing
    again = nearest_said(model, history, FILMS, v, FILMS.movies[:3], k=2)
    model.queries.gate[-1].bias.data.zero_()
    assert [[name for name, _ in said] for said in again] == [[n for n, _ in x] for x in found]


def test_without_pooling_nobody_knows_why(tiny_backbone):
    model, features = build(tiny_backbone, FILMS, query_pooling=False)
    v = model.encode_catalogue(features)
    history = Dialogue("d", (Utterance("seeker", "robots"),))
    assert nearest_said(model, history, FILMS, v, FILMS.movies[:2]) == [[], []]
