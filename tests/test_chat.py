"""A conversation: films recognised and not, reactions, taking back, saving; why a film."""

from __future__ import annotations

import pytest
import torch

from pecrs_lib.chat import WORDS, Chat, spoken
from pecrs_lib.data import Catalogue, Dialogue, Movie, Utterance, read_jsonl
from pecrs_lib.decoding import GREEDY
from pecrs_lib.generation import Reply
from pecrs_lib.recommend import Recommendation, history_windows
from pecrs_lib.transcript import near_misses, say_as
from pecrs_lib.why import LEAST, nearest_said, things_said
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
        ("something like toy story, please", {"toy story": ["Toy Story"]}),
        ("Home alone! And the shining, up, her", {"Home alone": ["Home Alone"]}),  # two words
        ("I liked Toy Story, toy  stories and a toy story?", {"toy story": ["Toy Story"]}),
        ("toystory?", {}),
        ('I loved "Inception" and "Up"', {}),
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


def test_what_was_named_is_not_recommended_again(trained):
    model, v = trained
    for exclude in (True, False):
        chat = Chat(model, FILMS, v, top=6, exclude_mentioned=exclude, **GREEDY)
        ranked = [r.movie.id for r in chat.say("I loved Home Alone and The Shining").reply.ranked]
        assert len(ranked) == (4 if exclude else 6) and ("m0" in ranked) is not exclude
    for movie in FILMS:
        if movie.id not in {i for u in chat.dialogue.utterances for i in u.items}:
            chat.settings["exclude_mentioned"] = True
            chat.react(movie, "seen")
    assert chat.say("what is left?").reply.ranked == [], "no film is left, but an answer is"


def test_places_before_and_after_are_of_the_same_films(trained):
    model, v = trained
    answer = Chat(model, FILMS, v, top=6, exclude_mentioned=False, **GREEDY).say("robots")
    after, before = answer.reply.ranked, answer.retrieved
    assert [r.retrieved for r in before] == [1, 2, 3, 4, 5, 6]
    assert [r.distance for r in before] == sorted(r.distance for r in before)
    assert {r.movie.id for r in before} == {r.movie.id for r in after}
    chat = Chat(model, FILMS, v, top=6, **GREEDY)
    chat.say("I loved Home Alone and The Shining")
    left = chat.say("robots")
    assert [r.retrieved for r in left.retrieved] == list(range(1, len(left.retrieved) + 1))
    assert {r.movie.id: r for r in left.retrieved} == {r.movie.id: r for r in left.reply.ranked}
    top2 = Chat(model, FILMS, v, top=2, exclude_mentioned=False, **GREEDY).say("robots")
    assert (top2.reply.ranked, top2.retrieved) == (after[:2], before[:2])


def test_a_misspelt_film_is_put_right(chat):
    chat.say("hello")
    answer = chat.say('I loved Hoem Alone and "Hrr"')
    assert list(answer.unknown) == ["Hrr", "Hoem Alone"]
    said = chat.dialogue
    for words, movie in (("Nope", FILMS[0]), ("Hrr", Movie("x", "Nope", 2022))):
        with pytest.raises(ValueError, match="Nope"):
            chat.correct(words, movie)
    assert chat.dialogue == said
    again = chat.correct("Hoem Alone", FILMS[0])
    assert again.recognised == [FILMS[0]] and list(again.unknown) == ["Hrr"]
    assert len(chat.answers) == 2 and len(chat.dialogue) == 4
    assert chat.correct("Hrr", FILMS[3]).recognised == [FILMS[0], FILMS[3]]
    assert chat.dialogue.utterances[2].text == 'I loved Home Alone (1990) and "Her (2013)"'


def test_every_film_of_a_reply_is_mentioned():
    ranked = [Recommendation(m, 0.0, 0.0, 1) for m in FILMS]
    text = "Home Alone (1990)? Or Up (2009), Up (2009)"
    said = spoken(Reply(text, "[ITEM]? Or [ITEM], [ITEM]", ranked[0], 1.0, ranked[:2]))
    assert said.items == ("m0", "m1") and len(said.mentions) == 3
    assert [text[m.start : m.end] for m in said.mentions] == [FILMS[k].name for k in (0, 1, 1)]
    assert spoken(Reply("[ITEM]", "[ITEM]", None, 0.0, [])).mentions == ()


@pytest.mark.parametrize("how", WORDS)
def test_reactions_enter_the_dialogue(chat, how):
    answer = chat.react(FILMS[1], how)
    assert answer.recognised == [FILMS[1]]
    said = chat.dialogue.utterances[0]
    (mention,) = said.mentions
    assert said.text[mention.start : mention.end] == FILMS[1].name


@pytest.mark.parametrize(
    "text",
    ["?", "¿Qué película me recomiendas?", "一部关于机器人的电影", "🤖" * 5, "half \ud83d a letter",
     "word " * 5000, "Some Title (1999) " * 2500, "x" * 30000],
)  # fmt: skip
def test_any_line_gets_an_answer(chat, text):
    answer = chat.say(text)
    assert len(answer.reply.ranked) == 4 and answer.cut == (len(text) > 1000)
    assert len(chat.say("and then?").reply.ranked) == 4
    assert len(chat.why(FILMS.movies)) == 6
    assert chat.export().decode()


def test_bad_input_is_refused_and_changes_nothing(chat):
    for wrong in ("", "   \n"):
        with pytest.raises(ValueError, match="empty"):
            chat.say(wrong)
    with pytest.raises(ValueError, match="loved"):
        chat.react(FILMS[0], "loved")
    with pytest.raises(ValueError, match="Nope"):
        chat.react(Movie("x", "Nope", 2022), "liked")
    with pytest.raises(ValueError, match="nothing"):
        chat.why(FILMS.movies)
    assert chat.dialogue.utterances == () and chat.answers == []


def test_what_fails_leaves_the_conversation_as_it_was(chat, monkeypatch):
    chat.say("I like Incepton")
    before = chat.dialogue, list(chat.answers)

    def fail(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr("pecrs_lib.chat.respond", fail)
    for act in (
        lambda: chat.say("more"), lambda: chat.react(FILMS[0], "seen"),
        lambda: chat.correct("Incepton", FILMS[2]),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="no memory"):
            act()
        assert (chat.dialogue, chat.answers) == before


def test_a_chat_streams_and_says_the_same(trained):
    model, v = trained
    pieces: list[str] = []
    live = Chat(model, FILMS, v, on_text=pieces.append, always_recommend=True, seed=5)
    quiet = Chat(model, FILMS, v, always_recommend=True, seed=5)
    for line in ("hello", "I loved Up (2009)"):
        pieces.clear()
        assert live.say(line) == quiet.say(line)
        assert "".join(pieces) == live.answers[-1].reply.text and len(pieces) > 3


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
            assert name in ("Home Alone (1990)", "loved", "and", "toys")
            assert LEAST <= part <= 100 + 1e-4
    with torch.no_grad():
        model.queries.gate[-1].bias.fill_(3.0)  # a common factor changes nothing
    again = nearest_said(model, history, FILMS, v, FILMS.movies[:3], k=2)
    model.queries.gate[-1].bias.data.zero_()
    assert [[name for name, _ in said] for said in again] == [[n for n, _ in x] for x in found]


def test_things_said_are_whole_words_and_films(trained):
    model, _ = trained
    texts = ("Extraordinary robots; I loved Up (2009)!", "Up (2009)?")
    said = [say_as(r, t, FILMS) for r, t in zip(("seeker", "recommender"), texts, strict=True)]
    tok = model.backbone.tokenizer
    (window,) = history_windows(model, [Dialogue("d", tuple(said))], FILMS)
    things = things_said(window, tok, FILMS)
    names = ["Up (2009)", "Extraordinary", "robots", "loved", "Up (2009)"]
    assert [name for name, _ in things] == names  # films stand before their utterance
    columns = [t for _, at in things for t in at]
    assert len(columns) == len(set(columns)) and len(things[1][1]) > 1, "a word of several tokens"


def test_without_pooling_nobody_knows_why(tiny_backbone):
    model, features = build(tiny_backbone, FILMS, query_pooling=False)
    v = model.encode_catalogue(features)
    history = Dialogue("d", (Utterance("seeker", "robots"),))
    assert nearest_said(model, history, FILMS, v, FILMS.movies[:2]) == [[], []]


def test_conversations_taken_in_turns_do_not_mix(trained):
    """One model serves many people: each hears what they would have heard alone."""
    model, v = trained
    said = (
        ["I loved Home Alone", "funny, please", "and Up?"],
        ["I hate The Shining", "Inception was great", "something new"],
        ["hello", "Toy Story for my children", "have they seen Her?"],
    )
    new = [Chat(model, FILMS, v, top=4, **GREEDY) for _ in said]
    alone = [[c.say(text).reply for text in texts] for c, texts in zip(new, said, strict=True)]
    chats = [Chat(model, FILMS, v, top=4, **GREEDY) for _ in said]
    mixed = [[c.say(t[k]).reply for c, t in zip(chats, said, strict=True)] for k in range(3)]
    assert [list(heard) for heard in zip(*mixed, strict=True)] == alone
    assert [c.dialogue for c in chats] == [c.dialogue for c in new]
    assert alone[0] != alone[1]
