"""The simulator of dialogues: its words, its seekers, its knobs, and what its oracle knows."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pecrs_lib.baselines import Popularity
from pecrs_lib.data import Dialogue, bundled, read_catalogue, read_redial
from pecrs_lib.data.jsonl import write_bytes
from pecrs_lib.evaluation import predict, recall_table, recommendation_points
from pecrs_lib.simulator.conversation import Conversation
from pecrs_lib.simulator.grammar import Typist, clause, expand, pieces, recall
from pecrs_lib.simulator.simulate import Simulation, simulate
from pecrs_lib.simulator.world import Knobs, World, make_seeker

FOLDER = bundled("minireel")
FILMS = read_catalogue(FOLDER / "films.jsonl")
HIDDEN = json.loads((FOLDER / "themes.json").read_text(encoding="utf-8"))
GRAMMAR = json.loads((FOLDER / "grammar.json").read_text(encoding="utf-8"))
SLOTS = {"piece", "clause", "person", "person2", "taste", "film", "film2"}
SYMBOL = re.compile(r"\{([^{}]*)\}")
KINDS = ("genre", "theme", "person", "era")


@cache
def corpus(
    seed: int = 0, train: int = 0, valid: int = 0, test: int = 60, **knobs: Any
) -> Simulation:
    n = {"train": train, "valid": valid, "test": test}
    return simulate(FILMS, FOLDER, n, replace(Knobs(), **knobs), seed)


def whole(seed: int = 0) -> Simulation:
    return corpus(seed, train=200, valid=40, test=80)


def dialogues(simulation: Simulation) -> list[dict[str, Any]]:
    return [d for many in simulation.dialogues.values() for d in many]


def texts(simulation: Simulation) -> list[str]:
    return [m["text"] for d in dialogues(simulation) for m in d["messages"]]


def ids(text: str) -> list[str]:
    return re.findall(r"@(\d+)", text)


def named(simulation: Simulation, *splits: str) -> set[str]:
    found = {i for s in splits for d in simulation.dialogues[s] for i in d["movieMentions"]}
    watched = (s.history for s in simulation.seekers if s.split in splits)
    return found | {FILMS[seen["row"]].id for history in watched for seen in history}


def read(rows: list[dict[str, Any]], path: Path) -> list[Dialogue]:
    write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode(), path)
    return read_redial(path)


def talk(seed: int = 0, **knobs: Any) -> Conversation:
    """A conversation that has not begun."""
    world, shown = World(FILMS, FOLDER, replace(Knobs(), **knobs)), np.ones(len(FILMS))
    return Conversation(world, shown, make_seeker(world, shown, 0, "test", seed), 0, seed)


# the corpus


def test_the_seed_decides_all():
    first, again = (simulate(FILMS, FOLDER, {"train": 6, "test": 6}, seed=s) for s in (1, 1))
    other = simulate(FILMS, FOLDER, {"train": 6, "test": 6}, seed=2)
    assert json.dumps(first.dialogues) == json.dumps(again.dialogues)
    assert first.oracle == again.oracle and first.seekers == again.seekers
    assert texts(first) != texts(other)
    assert [s.taste for s in first.seekers] != [s.taste for s in other.seekers]


def test_as_many_dialogues_as_asked_for():
    simulation = simulate(FILMS, FOLDER, {"valid": 0, "train": 5, "test": 3})
    assert {s: len(many) for s, many in simulation.dialogues.items()} == {
        "valid": 0, "train": 5, "test": 3,
    }  # fmt: skip
    assert [d["conversationId"] for d in dialogues(simulation)] == [str(k) for k in range(8)]
    assert [s.id for s in simulation.seekers] == list(range(len(simulation.seekers)))
    assert simulate(FILMS, FOLDER, {"train": 0}) == Simulation({"train": []}, [], [])


def test_speakers_alternate():
    for d in dialogues(whole()):
        senders = [m["senderWorkerId"] for m in d["messages"]]
        assert all(a != b for a, b in pairwise(senders)), d["conversationId"]
        assert set(senders) == {d["initiatorWorkerId"], d["respondentWorkerId"]}
        assert all(m["text"].strip() for m in d["messages"]), d["conversationId"]
        assert [m["messageId"] for m in d["messages"]] == list(range(len(senders)))


def test_films_in_texts_stand_in_the_lists():
    name = {movie.id: movie.name for movie in FILMS}
    for d in dialogues(whole()):
        said = {i for m in d["messages"] for i in ids(m["text"])}
        assert d["movieMentions"] == {i: name[i] for i in said}
        for form in (d["initiatorQuestions"], d["respondentQuestions"]):
            assert set(form) == said
            assert all(set(f) == {"suggested", "seen", "liked"} for f in form.values())


def test_forms_tell_who_named_a_film_first():
    for d in dialogues(whole()):
        first: dict[str, int] = {}
        for m in d["messages"]:
            for i in ids(m["text"]):
                first.setdefault(i, int(m["senderWorkerId"] == d["respondentWorkerId"]))
        assert {i: form["suggested"] for i, form in d["initiatorQuestions"].items()} == first


def test_the_reader_finds_every_mention(tmp_path):
    rows = dialogues(whole())
    seen = read(rows, tmp_path / "all.jsonl")
    assert [d.id for d in seen] == [row["conversationId"] for row in rows]
    for d, row in zip(seen, rows, strict=True):
        assert [[m.item for m in u.mentions] for u in d.utterances] == [
            ids(m["text"]) for m in row["messages"]
        ]
        assert [u.role == "seeker" for u in d.utterances] == [
            m["senderWorkerId"] == row["initiatorWorkerId"] for m in row["messages"]
        ]
        assert not any("@" in u.text for u in d.utterances)


def test_no_seeker_stands_in_two_splits():
    simulation = whole()
    split = {s.id: s.split for s in simulation.seekers}
    seekers = {s: {d["initiatorWorkerId"] for d in ds} for s, ds in simulation.dialogues.items()}
    assert sum(map(len, seekers.values())) == len(split) == len(simulation.seekers)
    for s, workers in seekers.items():
        assert workers == {k for k, theirs in split.items() if theirs == s}
        recommenders = {d["respondentWorkerId"] for d in simulation.dialogues[s]}
        assert not recommenders & set(split)


def test_cold_films_are_for_the_test_split():
    cold = 300
    half, full = (corpus(0, 150, 60, 90, cold=n) for n in (cold, 0))
    shown, everything = named(half, "train", "valid"), named(full, "train", "valid")
    assert len(shown) <= len(FILMS) - cold < len(everything), "they would have been named"
    assert len(named(half, "test") - shown) > cold / 2


def test_seekers_remember_in_order():
    simulation = whole()
    said = {d["conversationId"]: d for d in dialogues(simulation)}
    for seeker in simulation.seekers:
        before = [seen for seen in seeker.history if seen["conversation"] is None]
        later = seeker.history[len(before) :]
        assert len(before) >= 6 and len({seen["row"] for seen in before}) == len(before)
        assert all(seen["conversation"] is not None for seen in later), "the past comes first"
        order = [seen["conversation"] for seen in later]
        assert order == sorted(order)
        for seen in later:
            d = said[str(seen["conversation"])]
            offered = [
                i for m in d["messages"] if m["senderWorkerId"] == d["respondentWorkerId"]
                for i in ids(m["text"])
            ]  # fmt: skip
            assert d["initiatorWorkerId"] == seeker.id
            assert FILMS[seen["row"]].id in offered
    assert sum(len(s.history) for s in simulation.seekers) > 14 * len(simulation.seekers)


def test_a_taste_has_likes_and_dislikes():
    world = World(FILMS, FOLDER, Knobs())
    for seeker in whole().seekers:
        bad = [world.kind[k] for k, w in seeker.taste.items() if w < 0]
        assert len(bad) <= 2 and set(bad) <= {"genre", "theme"}
        assert {world.kind[k] for k, w in seeker.taste.items() if w > 0} & {"genre", "theme"}


@pytest.mark.parametrize("cold", [-1, len(FILMS), len(FILMS) + 7])
def test_a_wrong_number_of_cold_films(cold):
    with pytest.raises(ValueError, match=rf"cold={cold} of {len(FILMS)}"):
        simulate(FILMS, FOLDER, {"train": 1}, Knobs(cold=cold))


def test_a_negative_number_of_dialogues():
    with pytest.raises(ValueError, match="'valid': -3"):
        simulate(FILMS, FOLDER, {"train": 1, "valid": -3})


# the oracle


def test_oracle_ranks_belong_to_recommendations(tmp_path):
    simulation = whole()
    said = {d["conversationId"]: d for d in dialogues(simulation)}
    for o in simulation.oracle:
        message = said[o["conversation"]]["messages"][o["turn"]]
        assert 1 <= o["rank"] <= len(FILMS)
        assert message["senderWorkerId"] == said[o["conversation"]]["respondentWorkerId"]
        assert o["movie"] in ids(message["text"])
    seen = read(dialogues(simulation), tmp_path / "all.jsonl")
    points = [(seen[p.dialogue].id, p.turn, p.item) for p in recommendation_points(seen)]
    assert points == [(o["conversation"], o["turn"], o["movie"]) for o in simulation.oracle]


def test_the_oracle_is_far_above_popularity(tmp_path):
    simulation = whole()
    train = read(simulation.dialogues["train"], tmp_path / "train.jsonl")
    test = read(simulation.dialogues["test"], tmp_path / "test.jsonl")
    fame = predict(Popularity().fit(train, FILMS), test, FILMS)
    number = {d.id for d in test}
    ranks = [o["rank"] for o in simulation.oracle if o["conversation"] in number]
    oracle = replace(fame, name="Oracle", rank=np.array(ranks, float))
    table = recall_table([fame, oracle], samples=500).set_index(["targets", "system"])
    for targets in ("all", "novel"):
        best, popular = table.loc[(targets, "Oracle")], table.loc[(targets, "Popularity")]
        for k, factor in ((10, 3), (50, 2)):
            assert best[f"R@{k}_low"] > factor * popular[f"R@{k}_high"]


def test_p_is_a_distribution_over_shown_films():
    c = talk()
    c.shown[:200] = 0
    c.known = set(c.mood)
    assert c.p().sum() == pytest.approx(1)
    assert (c.p()[:200] == 0).all() and (c.p()[200:] > 0).all()
    c.name(300, "seeker", 1, 1)
    c.name(301, "seeker", 1, 0)
    assert c.p().sum() == pytest.approx(1)
    assert c.p()[300] == pytest.approx(c.knobs.repeat) and c.p()[301] == 0


# the words


@pytest.fixture(scope="module")
def said() -> Iterator[list[tuple[str, int, bool]]]:
    """What a conversation says: symbol, number of films given, whether a taste was given."""
    calls = []
    original = Conversation.say

    def say(self, role, symbol, *rows, taste=None):
        calls.append((symbol, len(rows), taste is not None))
        original(self, role, symbol, *rows, taste=taste)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Conversation, "say", say)
        simulate(FILMS, FOLDER, {"test": 250}, Knobs(change=0.5, talkativeness=2))
    yield calls


def inside(starts: Iterable[str]) -> set[str]:
    """Every symbol and slot that the symbols may lead to, themselves included."""
    found, todo = set(), set(starts)
    while todo:
        name = todo.pop()
        found.add(name)
        symbols = {s.removesuffix(":up") for a in GRAMMAR.get(name, ()) for s in SYMBOL.findall(a)}
        todo |= symbols - found
    return found


def test_every_symbol_is_defined():
    assert not SLOTS & set(GRAMMAR)
    alternatives = [(s, a) for s, many in GRAMMAR.items() for a in many]
    phrases = [(tag, p) for tag, many in HIDDEN["phrases"].items() for p in many]
    for symbol, text in alternatives + phrases:
        assert not re.search(r"[{}]", SYMBOL.sub("", text)), f"a loose brace: {symbol}: {text}"
        for name in SYMBOL.findall(text):
            assert name.removesuffix(":up") in SLOTS | set(GRAMMAR), f"{symbol}: {text}"
    assert all(GRAMMAR.values()), "no symbol without alternatives"


def test_no_symbol_leads_back_to_itself():
    for name, alternatives in GRAMMAR.items():
        below = {s.removesuffix(":up") for a in alternatives for s in SYMBOL.findall(a)}
        assert name not in inside(below), f"{name} would never end"


def test_every_symbol_is_reachable(said):
    world = World(FILMS, FOLDER, Knobs(theme_films=1, person_films=1))
    tastes = {name for name in world.names if name in GRAMMAR}
    starts = {symbol for symbol, _, _ in said}
    assert starts <= set(GRAMMAR)
    assert set(GRAMMAR) <= inside(starts | tastes)
    assert inside(starts) >= SLOTS


def test_symbols_get_the_films_and_tastes_they_name(said):
    for symbol, rows, taste in set(said):
        slots = inside([symbol]) & SLOTS
        assert rows >= 1 or "film" not in slots, symbol
        assert rows >= 2 or "film2" not in slots, symbol
        assert taste or "taste" not in slots, f"{symbol} would name an arbitrary taste"


def test_every_theme_has_eight_phrases():
    tags = {tag for film in HIDDEN["films"].values() for tag in film["themes"]}
    assert tags == set(HIDDEN["phrases"])
    for tag in tags:
        assert len(set(HIDDEN["phrases"][tag])) == len(HIDDEN["phrases"][tag]) == 8, tag
    assert set(HIDDEN["films"]) == {movie.id for movie in FILMS}


def test_genres_and_eras_have_names():
    names = World(FILMS, FOLDER, Knobs()).names
    assert all(n in GRAMMAR for n in names if n.startswith(("genre:", "era:")))
    assert {n.split(":")[0] for n in names} == set(KINDS)


def test_expand():
    rng = random.Random(0)
    grammar = {"a": ["x {b}"], "b": ["big {c}"], "c": ["cat"]}
    slots = {"film": lambda: "up", "c": lambda: "{d}", "d": lambda: "slot"}
    assert expand("{a}", grammar, {}, rng) == "x big cat"
    assert expand("{a:up} {film} {film:up}", grammar, slots, rng) == "X big slot up Up"
    assert expand("no symbols", {}, {}, rng) == "no symbols"
    assert {expand("{n}", {"n": ["1", "2"]}, {}, rng) for _ in range(30)} == {"1", "2"}
    assert expand("{genre:Drama}", {"genre:Drama": ["plays"]}, {}, rng) == "plays"
    for text in ("{nobody}", "{nobody:up}", "{lost}"):
        with pytest.raises(KeyError, match="nobody"):
            expand(text, {"lost": ["so {nobody}"]}, {}, rng)


def test_what_is_recalled_of_a_plot():
    plot = "A boy finds the old map of his father; they sail. The sea answers."
    assert clause(plot) == "a boy finds the old map of his father"
    assert clause("Rome burns. So it goes.") == "Rome burns"
    found = pieces(plot)
    assert found[0][0] == "a" and all(3 <= len(words) <= 8 for words in found)
    assert pieces("Nobody came.") == [["Nobody", "came"]]
    rng = random.Random(0)
    for movie in FILMS:
        text = recall(pieces(movie.plot), rng)
        assert text.lower() in movie.plot.lower()
        assert len(text.split()) >= 2


def test_nobody_works_with_themselves():
    """A director who acts in the film is one person, not "Mel Brooks and Mel Brooks"."""
    rows = [j for j, m in enumerate(FILMS) if set(m.actors) & set(m.directors)]
    assert len(rows) > 10
    c = talk()
    c.world.grammar["tell"] = ["{person}|{person2}"]
    for row in rows * 10:
        c.say("recommender", "tell", row)
    pairs = [text.split("|") for text in c.turns[0][1]]
    assert [a for a, b in pairs if a == b] == []


# the typist


LONG = "You'll see @12, @345! Nobody's home in the old house of @6. Is it so? It is, friends."


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
def test_a_typist_leaves_numbers_whole(noise):
    for seed in range(60):
        rng = random.Random(seed)
        text = Typist(noise, rng).type(LONG)
        assert re.findall(r"@\d+\S*", text) == ["@12,", "@345!", "@6."]
        assert text == " ".join(text.split())


def test_without_noise_only_capitals_and_the_full_stop_change():
    seen = set()
    for seed in range(60):
        text = Typist(0.0, random.Random(seed)).type(LONG)
        assert text.lower().rstrip(".") == LONG.lower().rstrip(".")
        seen.add((text == text.lower(), text.endswith(".")))
    assert len(seen) == 4, "each habit with and without the other"
    assert Typist(0.0, random.Random(1)).type("so   it\n goes").lower() == "so it goes"


def test_a_typist_keeps_their_habits():
    for seed in range(20):
        typist = Typist(0.0, random.Random(seed))
        assert len({typist.type(LONG) for _ in range(5)}) == 1


# the knobs


def famous(simulation: Simulation) -> float:
    """Share of mentions that go to the 60 most famous films."""
    order = sorted(HIDDEN["films"], key=lambda i: HIDDEN["films"][i]["fame"])
    every = [i for text in texts(simulation) for i in ids(text)]
    return float(np.isin(every, order[:60]).mean())


def oracle_recall(simulation: Simulation) -> float:
    return float(np.mean([o["rank"] <= 10 for o in simulation.oracle]))


def repeated(simulation: Simulation) -> float:
    """Share of recommendations of a film that an earlier message names."""
    said = {d["conversationId"]: d["messages"] for d in dialogues(simulation)}
    earlier = [
        {i for m in said[o["conversation"]][: o["turn"]] for i in ids(m["text"])}
        for o in simulation.oracle
    ]
    again = [o["movie"] in e for o, e in zip(simulation.oracle, earlier, strict=True)]
    return float(np.mean(again))


def length(simulation: Simulation) -> float:
    return sum(len(text.split()) for text in texts(simulation)) / len(dialogues(simulation))


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


@cache
def vocabulary() -> set[str]:
    """Every word that the grammar, the phrases, the names and the plots can give."""
    sources = [a for many in (*GRAMMAR.values(), *HIDDEN["phrases"].values()) for a in many]
    sources += [text for m in FILMS for text in (m.plot, *m.actors, *m.directors, *m.genres)]
    return {word for text in sources for word in words(SYMBOL.sub(" ", text))}


def misspelt(simulation: Simulation) -> float:
    """Share of words outside the vocabulary."""
    every = [word for text in texts(simulation) for word in words(text)]
    return sum(word not in vocabulary() for word in every) / len(every)


def changes(simulation: Simulation) -> float:
    """Sentences of changed minds per dialogue."""
    starts = [words(a.split("{")[0]) for a in GRAMMAR["change"]]
    wanted = [" ".join(start) for start in starts if len(start) > 1]
    assert len(wanted) > 3
    every = [" ".join(words(text)) for text in texts(simulation)]
    return sum(text.count(w) for text in every for w in wanted) / len(dialogues(simulation))


def first_wish(simulation: Simulation) -> float:
    """Words of the longer of the seeker's first two messages: a greeting, and what they want."""
    mine = [
        [m["text"] for m in d["messages"] if m["senderWorkerId"] == d["initiatorWorkerId"]]
        for d in dialogues(simulation)
    ]
    return float(np.mean([max(len(text.split()) for text in said[:2]) for said in mine]))


@pytest.mark.parametrize(
    ("measure", "knob", "values", "factor"),
    [
        (famous, "popularity", (0.0, 0.45, 1.5), 1.4),
        (oracle_recall, "sharpness", (0.0, 2.0, 5.0), 1.4),
        (oracle_recall, "miss", (0.8, 0.4, 0.0), 1.3),
        (repeated, "repeat", (0.0, 0.12, 0.5), 2.0),
        (length, "talkativeness", (0.3, 1.0, 2.0), 1.2),
        (misspelt, "noise", (0.0, 0.055, 0.2), 2.0),
        (changes, "change", (0.0, 0.3, 1.0), 1.5),
        (first_wish, "openness", (1, 5), 1.15),
    ],
)
def test_a_knob_moves_what_it_says(
    measure: Callable[[Simulation], float], knob: str, values: tuple[float, ...], factor: float
):
    found = [measure(corpus(5, **{knob: value})) for value in values]
    assert all(high > factor * low for low, high in pairwise(found)), found
    if knob in ("repeat", "noise", "change"):
        assert found[0] == 0, "0 means none at all"


def test_drift_names_films_of_the_person_instead_of_the_mood():
    for drift in (0.0, 1.0):
        conversation = talk(drift=drift)
        common = conversation.world.features.sum(0).argsort()[-2:].tolist()
        conversation.seeker.taste, conversation.mood = {common[0]: 9.0}, {common[1]: 9.0}
        for _ in range(20):
            conversation.name_liked()
        fits = conversation.world.features[list(conversation.named)][:, common].mean(0)
        assert fits[0 if drift else 1] > 0.9 > 0.7 > fits[1 if drift else 0]


def test_ties_of_the_oracle_are_broken_by_the_order_of_the_catalogue(monkeypatch):
    conversation = talk()
    p = np.zeros(len(FILMS))
    p[[3, 5, 9]] = 0.2, 0.4, 0.4
    monkeypatch.setattr(conversation, "p", p.copy)
    for row, rank in ((5, 1), (9, 2), (3, 3)):
        conversation.oracle.clear()
        monkeypatch.setattr(conversation, "draw", lambda p, row=row: row)
        conversation.recommend()
        assert conversation.oracle[0]["rank"] == rank


def test_visits_share_seekers():
    single, several = corpus(5, visits=1.0), corpus(5, visits=6.0)
    assert len(single.seekers) == len(dialogues(single)) > 3 * len(several.seekers)


def test_intuition_weighs_what_was_not_said():
    guesser, listener = talk(intuition=1.0), talk(intuition=0.0)
    assert guesser.mood == listener.mood
    for c in (guesser, listener):
        silent = c.p()
        c.known = set(c.mood)
        assert np.allclose(silent, c.p()) == (c is guesser)
    listener.known = set()
    fame = listener.world.fame
    assert np.allclose(listener.p(), fame / fame.sum()), "who has heard nothing goes by fame"
    guesser.known = listener.known = set(listener.mood)
    assert np.allclose(listener.p(), guesser.p())


def test_habit_prefers_the_first_name():
    share = []
    for habit in (0.0, 2.0, 9.0):
        c = talk(habit=habit)
        column = c.world.kind.index("theme")
        drawn = [c.word(column) for _ in range(400)]
        share.append(drawn.count(c.world.words[column][0]) / len(drawn))
    assert share[0] == pytest.approx(1 / 8, abs=0.06)
    assert share[1] == pytest.approx(1 / sum((1 + k) ** -2.0 for k in range(8)), abs=0.09)
    assert share[2] > 0.98


def test_rare_themes_and_people_are_nobodys_taste():
    for knob, kind in (("theme_films", "theme"), ("person_films", "person")):
        world = World(FILMS, FOLDER, replace(Knobs(), **{knob: 10}))
        often = world.features.sum(axis=0)[[k == kind for k in world.kind]]
        assert len(often) and often.min() >= 10
        none = World(FILMS, FOLDER, replace(Knobs(), **{knob: len(FILMS) + 1}))
        assert set(none.kind) == set(KINDS) - {kind}
