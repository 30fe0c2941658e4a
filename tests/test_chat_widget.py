"""The chat as a widget, driven from Python: every control, every way to go wrong, nothing twice."""

from __future__ import annotations

import asyncio
import base64
import re

import pytest

from pecrs_lib.chat import Chat
from pecrs_lib.data import Catalogue, Movie, Utterance, read_jsonl
from pecrs_lib.decoding import GREEDY
from pecrs_lib.widgets import chat_html, chat_widget
from pecrs_lib.widgets.chat_widget import ChatWidget
from tests.test_chat import FILMS
from tests.test_one_pass import build

ODD = Movie("x<1>", "<i>Odd</i> & “Co”", 2001, ("A <b>",), ("B & C",), ("Cult<",), "x < y & z")
ALL = Catalogue((*FILMS.movies, ODD))


@pytest.fixture(scope="module")
def trained(tiny_backbone):
    model, features = build(tiny_backbone, ALL, query_pooling=True)
    return model, model.encode_catalogue(features)


@pytest.fixture
def widget(trained, monkeypatch):
    monkeypatch.setattr(chat_widget, "PAUSE", 0.0)
    model, v = trained
    return ChatWidget(Chat(model, ALL, v, top=4, always_recommend=True, **GREEDY))


def say(widget: ChatWidget, text: str) -> None:
    widget.line.value = text
    widget.enter.click()


def shown(widget: ChatWidget) -> list[str]:
    return [c.movie.title for c in widget.cards.children if c.layout.display != "none"]


def test_before_anything_is_said(widget):
    assert "Say what you are in the mood for" in widget.talk.value
    assert shown(widget) == [] and widget.export.value == widget.table.value == ""
    for button in (widget.undo, widget.restart):
        button.click()
    assert widget.message.value == "" and len(widget.chat.dialogue) == 0


def test_an_exchange_shows_reply_cards_and_places(widget):
    say(widget, "I loved Home Alone")
    (answer,) = widget.chat.answers
    assert widget.line.value == "" and widget.message.value == ""
    assert answer.reply.text in re.sub("<[^>]+>", "", widget.talk.value)
    assert '<span class="film">Home Alone</span>' in widget.talk.value
    assert shown(widget) == [r.movie.title for r in answer.reply.ranked[:3]]
    first = answer.reply.ranked[0].movie
    text = widget.cards.children[0].text.value
    if first is not ODD:
        assert first.name in text and first.plot in text
    assert "Nearest to it in what was said</b> (of 100): " in text and "Home Alone (1990)" in text
    assert widget.table.value.count("<tr>") == 1 + 4 and "scope" in widget.table.value
    assert "Recognised: Home Alone (1990)" in widget.notes.value


def test_the_reply_streams(widget):
    seen: list[str] = []
    widget.talk.observe(lambda change: seen.append(change.new), names="value")
    say(widget, "robots")
    growing = [s for s in seen if 'aria-busy="true"' in s]
    assert len(growing) > 3 and "robots" in growing[0]
    assert [len(s) for s in growing[1:]] == sorted(len(s) for s in growing[1:])
    assert 'aria-busy="false"' in seen[-1]


@pytest.mark.parametrize("how", ["liked", "seen", "not for me"])
def test_reactions_enter_the_dialogue(widget, how):
    say(widget, "hello")
    card = widget.cards.children[0]
    movie = card.movie
    card.buttons[how].click()
    said = widget.chat.dialogue.utterances[2]
    assert said.items == (movie.id,) and len(widget.chat.answers) == 2
    assert movie.title not in shown(widget)


def test_undo_restart_and_the_same_again(widget):
    say(widget, "hello")
    first = widget.talk.value, widget.table.value
    say(widget, "robots")
    widget.undo.click()
    assert (widget.talk.value, widget.table.value) == first
    widget.restart.click()
    assert shown(widget) == [] and widget.export.value == ""
    say(widget, "hello")
    assert (widget.talk.value, widget.table.value) == first


def test_the_link_holds_the_conversation(widget, tmp_path):
    say(widget, "I loved Home Alone, 映画")
    link = re.search(
        r'download="(.+)" href="data:application/jsonl;base64,(.+)"', widget.export.value
    )
    (tmp_path / link[1]).write_bytes(base64.b64decode(link[2]))
    (again,) = read_jsonl(tmp_path / link[1])
    assert again.utterances == widget.chat.dialogue.utterances


def test_a_misspelt_film_is_offered_and_replaced(widget):
    say(widget, 'I loved Hoem Alone and "Zzyzx Road"')
    known, unknown = sorted(widget.suggestions.children, key=lambda row: -len(row.children))
    assert "Hoem Alone" in known.children[0].value and "no film I know" in unknown.children[0].value
    known.children[1].click()
    assert widget.chat.dialogue.utterances[0].items == ("m0",) and len(widget.chat.answers) == 1
    assert [len(row.children) for row in widget.suggestions.children] == [1]  # the road is left


def test_html_stays_text(widget):
    say(widget, "<script>alert(1)</script> <img src=x> “<i>Oops</i>”")
    everything = "".join(
        part.value for part in (widget.talk, widget.notes, widget.table, *(
            row.children[0] for row in widget.suggestions.children))
    )  # fmt: skip
    assert "<script" not in everything and "<img" not in everything and "<i>" not in everything
    assert "&lt;script&gt;" in widget.talk.value
    found = widget.chat.answers[0].retrieved[0]
    odd = type(found)(ODD, 1.0, 1.0, 1)
    text = chat_html.card(odd, 1, named=True, near=[("<u>", 3.0)])
    assert not re.search("<(i|b|u)>(Odd|A|$)|<u>|Cult<<|x < y", text) and "&lt;u&gt;" in text
    assert "<i>" not in chat_html.conversation([Utterance("seeker", ODD.name)], (ODD.name, "<i>"))


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_line_is_a_sentence(widget, text):
    say(widget, text)
    assert "the line is empty" in widget.message.value and 'role="alert"' in widget.message.value
    say(widget, "hello")
    assert widget.message.value == ""


def test_a_long_line_is_answered_and_said_to_be_cut(widget):
    say(widget, "robot " * 5000)
    assert "read only the beginning" in widget.notes.value
    assert len(widget.talk.value) < 3000 and "29,999 characters" in widget.talk.value
    say(widget, "und was noch? 🤖")
    assert len(widget.chat.answers) == 2 and widget.notes.value.count("beginning") == 0


@pytest.mark.parametrize("error", [RuntimeError("out of <memory>"), KeyboardInterrupt()])
def test_an_error_is_a_sentence_and_loses_nothing(widget, monkeypatch, error):
    say(widget, "hello")
    before = widget.talk.value, shown(widget)

    def fail(*_, **__):
        widget.chat.on_text("half a rep")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("pecrs_lib.chat.respond", fail)
        say(widget, "robots")
        assert "out of &lt;memory>" in widget.message.value or "Stopped" in widget.message.value
        assert (widget.talk.value, shown(widget)) == before and widget.line.value == "robots"
        widget.cards.children[0].buttons["seen"].click()
        assert (widget.talk.value, shown(widget)) == before
    widget.enter.click()
    assert len(widget.chat.answers) == 2 and widget.message.value == ""


def test_double_clicks_do_nothing_twice(widget, monkeypatch):
    monkeypatch.setattr(chat_widget, "PAUSE", 60.0)
    say(widget, "hello")
    for button in (widget.enter, *widget.cards.children[0].buttons.values(), widget.undo):
        button.click()
    say(widget, "what I type next")
    assert len(widget.chat.answers) == 1 and widget.message.value == ""
    assert widget.line.value == "what I type next"  # not lost


def test_enter_says_the_text_that_comes_after_it(widget, monkeypatch):
    pressed = {"event": "submit"}
    widget._key(None, pressed, None)  # no front end: at once
    assert "empty" in widget.message.value

    async def front_end() -> None:
        widget.line.value = "left the field"
        assert len(widget.chat.answers) == 0
        widget._key(None, pressed, None)
        widget.line.value = "robots"  # the text comes after the key
        assert len(widget.chat.answers) == 1
        widget._key(None, pressed, None)
        await asyncio.sleep(0.05)  # no text follows
        assert "empty" in widget.message.value and len(widget.chat.answers) == 1
        widget._key(None, {"event": "other"}, None)
        widget.line.value = "left the field"
        await asyncio.sleep(0.05)
        assert len(widget.chat.answers) == 1

    asyncio.run(front_end())


def test_without_pooling_there_is_no_why(tiny_backbone, monkeypatch):
    monkeypatch.setattr(chat_widget, "PAUSE", 0.0)
    model, features = build(tiny_backbone, FILMS, query_pooling=False)
    widget = ChatWidget(Chat(model, FILMS, model.encode_catalogue(features), top=2, **GREEDY))
    say(widget, "hello")
    assert len(shown(widget)) == 2 and "Nearest" not in widget.cards.children[0].text.value
