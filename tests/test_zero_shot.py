"""Questions, protocols and what they make of answers: hand-worked, then the published figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.zero_shot_text import SLOT, filled, rouge_row, slotted, text_table
from pecrs_lib.data import Catalogue, DataError, Dialogue, Mention, Movie, Utterance
from pecrs_lib.data.minireel import bundled
from pecrs_lib.evaluation import recall_table
from pecrs_lib.zero_shot.answers import AnswerCache, Question, RecordedAnswers
from pecrs_lib.zero_shot.asking import (
    SILENCE,
    at_turns,
    list_predictions,
    list_questions,
    published_predictions,
    reply_predictions,
    reply_questions,
    substring_predictions,
    transcript,
    turns_of,
)
from pecrs_lib.zero_shot.recommended import (
    Labelled,
    agreement,
    head,
    outside,
    popular,
    popularity_bands,
    repeated,
    wilson,
)
from pecrs_lib.zero_shot.titles import TitleMatcher

FILMS = Catalogue((Movie("a", "Up", 2009), Movie("b", "Her", 2013), Movie("c", "Alien", 1979)))


def said(role: str, text: str, *items: str) -> Utterance:
    return Utterance(role, text, tuple(Mention(i) for i in items))  # type: ignore[arg-type]


TALK = [
    Dialogue(
        "d",
        (
            said("recommender", "Hello"),
            said("seeker", "I liked Up", "a"),
            said("recommender", "Up is good. And Alien?", "a", "c"),
            said("recommender", "Or Her", "b"),
            said("seeker", "Fine"),
        ),
    )
]
REPLY = "Try these:\n1. Alien (1979)\n2. Nosferatu\n3. Up"


def predictions(kind: str) -> np.ndarray:
    replies = {(0, 2): REPLY, (0, 3): "Sure, no problem, another superhero!"}
    named = dict(zip(replies, TitleMatcher(FILMS).in_lists(list(replies.values())), strict=True))
    made = {
        "list": lambda: list_predictions("x", named, TALK, FILMS),
        "catalogue": lambda: list_predictions("x", named, TALK, FILMS, catalogue_only=True),
        "reply": lambda: reply_predictions("x", named, TALK, FILMS),
        "substring": lambda: substring_predictions("x", replies, TALK, FILMS),
        "first": lambda: substring_predictions("x", replies, TALK, FILMS, first_entry=True),
    }[kind]()
    assert made.item.tolist() == ["a", "c", "b"] and made.novel.tolist() == [False, True, True]
    return made.rank


@pytest.mark.parametrize(
    ("kind", "ranks"),
    [
        ("list", [3, 1, np.inf]),
        ("catalogue", [2, 1, np.inf]),
        ("reply", [1, 1, np.inf]),
        ("substring", [1, 1, 1]),  # "Her" is in "another"
        ("first", [np.inf, 1, 1]),
    ],
)
def test_protocols(kind: str, ranks: list[float]) -> None:
    assert predictions(kind).tolist() == ranks


def test_questions_hold_the_history_and_not_the_answer() -> None:
    assert turns_of(TALK) == [(0, 2), (0, 3)]
    assert transcript(TALK[0], 2) == "System: Hello\nUser: I liked Up"
    first, _ = list_questions(TALK, k=7)
    assert "7 recommendations" in first.messages[0][1] and "Alien" not in first.messages[0][1]
    first, second = reply_questions(TALK)
    assert [role for role, _ in first.messages] == ["system", "user", "assistant", "user"]
    assert first.messages[1:] == (("user", SILENCE), ("assistant", "Hello"), ("user", "I liked Up"))
    assert second.messages[-2:] == (("assistant", "Up is good. And Alien?"), ("user", SILENCE))
    assert first.chat[1] == {"role": "user", "content": SILENCE}
    with pytest.raises(ValueError, match="k = 0"):
        list_questions(TALK, k=0)


def test_merged_messages_alternate() -> None:
    talk = [Dialogue("d", (*TALK[0].utterances, said("recommender", "Up!", "a")))]
    *_, last = reply_questions(talk)
    assert last.messages[-2:] == (("assistant", "Up is good. And Alien? Or Her"), ("user", "Fine"))


def test_at_turns_keeps_the_points_of_turns() -> None:
    named = {turn: [] for turn in turns_of(TALK)}
    every = list_predictions("x", named, TALK, FILMS)
    assert at_turns(every, {(0, 3)}).item.tolist() == ["b"]
    assert len(at_turns(every, set())) == 0
    assert every.top1.tolist() == [-1, -1, -1]


def test_shares_by_hand() -> None:
    lists = {(0, 2): [0, -1, 2], (0, 3): [1, 0]}
    assert repeated(lists, TALK, FILMS, k=3).value == pytest.approx(40)  # Up, twice, of five
    assert repeated(lists, TALK, FILMS, k=1).value == pytest.approx(50)
    assert outside(lists, k=3).value == pytest.approx(20)
    assert head([5, 1, 9], share=0.4) == {2}
    assert popular(lists, {0, 2}, k=3).value == pytest.approx(75) and popular({}, {0}, 3).n == 0
    share = outside(lists, k=3)
    assert share.n == 5 and share.low == share.high == pytest.approx(20)  # a single dialogue


def test_popularity_bands_by_hand() -> None:
    lists = {(0, 2): [0, -1, 2], (0, 3): [1, 0]}
    bands = popularity_bands(lists, [5, 1, 9], k=3, edges=(0.4, 0.7))
    assert list(bands) == ["top 40 %", "40 to 70 %", "the rest", "not in the catalogue"]
    assert [band.value for band in bands.values()] == pytest.approx([20, 40, 20, 20])
    assert popularity_bands({(0, 2): [2]}, [5, 1, 9], 1, (0.4,))["top 40 %"].value == 100
    with pytest.raises(ValueError, match=r"between 0 and 1, got \(0.5, 0.2\)"):
        popularity_bands(lists, [5, 1, 9], k=3, edges=(0.5, 0.2))


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(5, 10, 23.66, 76.34), (30, 30, 88.65, 100.0), (0, 30, 0.0, 11.35), (123, 124, 95.57, 99.86)],
)
def test_wilson_against_known_values(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=0.01)


def test_wilson_of_nothing_and_of_nonsense() -> None:
    assert np.isnan(wilson(0, 0)).all()
    with pytest.raises(ValueError, match="got 4 of 3"):
        wilson(4, 3)


def test_agreement_by_hand() -> None:
    labels = [Labelled("s", "x", (("Up",), ("It", "It (2017)"))), Labelled("s", "y", ())]
    found = {"x": ["It (2017)", "Her"], "y": ["Up"]}
    made = agreement(lambda label: found[label.fragment], labels)
    assert (made.right, made.wrong, made.missed) == (1, 2, 1)
    assert made.precision == pytest.approx(100 / 3) and made.recall == pytest.approx(50)


# --- ROUGE, Table 7's last columns ---------------------------------------------------------


def test_slots_stand_for_titles() -> None:
    up = Utterance(
        "recommender", "See Up (2009), or Her!", (Mention("a", 4, 13), Mention("b", 18, 21))
    )
    assert slotted(up) == f"See {SLOT}, or {SLOT}!"
    assert slotted(said("recommender", "Up is good", "a")) == "Up is good"  # not spelt out
    assert filled(slotted(up), ["Up (2009)", "Her"]) == up.text
    assert filled(f"{SLOT} or {SLOT}", ["Up"]) == f"Up or {SLOT}"


def test_rouge_rows_by_hand() -> None:
    replies = {(0, 2): "see up", (1, 0): "no idea"}
    row = rouge_row("x", "title", replies, {(0, 2): "See Up!", (1, 0): "Alien"})
    assert row["RG-1"]["value"] == row["RG-2"]["value"] == 50  # one perfect, one worthless
    assert (row["RG-1"]["low"], row["RG-1"]["high"]) == (0, 100) and row["n"] == 2
    assert row["words"]["value"] == 2


def test_a_slot_on_both_sides_is_a_word_in_common() -> None:
    readable = [
        Dialogue(
            "d",
            (said("seeker", "hi"), Utterance("recommender", "Try Alien", (Mention("c", 4, 9),))),
        )
    ]
    pecrs = {(0, 1): f"maybe {SLOT}"}, {(0, 1): [1]}
    recorded = {"m": {(0, 1): "1. Alien\n2. Up"}}
    table = text_table(recorded, pecrs, readable, FILMS, "Up")
    rows = {(row["system"], row["films"]): row["RG-1"]["value"] for row in table}
    assert rows["m: first entry", "title"] == pytest.approx(200 / 3)  # "Alien" of "Try Alien"
    assert rows["m: list of 20", "title"] < rows["m: first entry", "title"]
    assert rows["PECRS, seed 0", "title"] == 0  # "maybe Her (2013)"
    assert rows["PECRS, seed 0", SLOT] == 50  # another film, and yet a word in common
    assert rows["one sentence for all", "title"] == 0 < rows["one sentence for all", SLOT]


# --- the cache ------------------------------------------------------------------------------


def test_the_cache_survives_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "made" / "answers.jsonl"
    cache = AnswerCache(path)
    key = AnswerCache.key(Question(0, 1, (("user", "hi"),)), {"model": "m"})
    cache.put(key, "Up\n")
    path.write_bytes(path.read_bytes() + b'{"key": "half')
    again = AnswerCache(path)
    assert len(again) == 1 and again.get(key) == "Up\n"
    again.put("other", "Her")
    assert AnswerCache(path).get("other") == "Her"
    assert "hi" not in path.read_text(encoding="utf-8")  # the key is a hash, not the prompt


def test_a_broken_cache_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"key": "k", "answer": "a"}\n[1]\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"answers\.jsonl:2"):
        AnswerCache(path)


def test_keys_tell_questions_and_settings_apart() -> None:
    question, other = Question(0, 1, (("user", "hi"),)), Question(0, 1, (("user", "ho"),))
    keys = {
        AnswerCache.key(question, {"model": "m"}),
        AnswerCache.key(other, {"model": "m"}),
        AnswerCache.key(question, {"model": "n"}),
    }
    assert len(keys) == 3
    assert AnswerCache.key(Question(5, 6, question.messages), {"model": "m"}) in keys


# --- recorded answers -----------------------------------------------------------------------


def recorded(folder: Path, **changes: object) -> RecordedAnswers:
    context = {"dialog_id": "test_0", "turn_id": "test_2", "input": "User: I liked Up"}
    row = {
        "index": 0,
        "prompt": "Here: User: I liked Up",
        "resp": {"choices": [{"message": {"content": REPLY}}]},
        "rec_list": [
            {"nearest_movie": "Alien", "min_edit_distance": 0},
            {"nearest_movie": "Up", "min_edit_distance": 5},
        ],
        "gt_list": ["Up", "Alien"],
        "prev_list": ["Up", "Comedy"],
    } | changes
    contexts, answers = folder / "test.jsonl", folder / "m.jsonl"
    contexts.write_text(json.dumps(context) + "\n", encoding="utf-8")
    answers.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return RecordedAnswers.read(answers, contexts, "m")


def test_recorded_answers_by_hand(tmp_path: Path) -> None:
    source = recorded(tmp_path)
    assert source.answer([Question(0, 2), Question(0, 3)]) == [REPLY, None]
    assert source.turns == {(0, 2)}
    plain = published_predictions(source)
    assert (plain.rank.tolist(), plain.novel.tolist()) == ([2.0, 1.0], [False, True])
    assert published_predictions(source, max_distance=2).rank.tolist() == [np.inf, 1.0]
    assert published_predictions(source, drop_seen=True).rank.tolist() == [np.inf, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "another"}, "not context 0"),
        ({"index": 4}, "not context 4"),
        ({"gt_list": None}, "not a recorded answer"),
        ({"resp": {}}, "choices"),
    ],
)
def test_recorded_answers_are_checked(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        recorded(tmp_path, **changes)
    assert "m.jsonl:1" in str(caught.value)


# What the authors' own repository has in its summaries, in percent: targets → R@1, 5, 10, 20.
PUBLISHED = {
    ("gpt-4", None, False): [(9.09, 15.81, 19.37, 26.09), (6.16, 12.32, 16.59, 23.70)],
    ("gpt-4", None, True): [(5.14, 10.28, 14.62, 19.76), (6.16, 12.32, 17.54, 23.70)],
    ("gpt-4", 2, False): [(9.09, 15.81, 20.55, 23.32), (6.64, 12.80, 18.48, 21.80)],
    ("gpt-4", 2, True): [(5.53, 11.07, 15.42, 18.18), (6.64, 13.27, 18.48, 21.80)],
    ("gpt-3.5-turbo", None, False): [(5.14, 10.67, 15.02, 20.55), (4.74, 9.95, 15.17, 20.85)],
    ("vicuna", None, False): [(6.72, 15.42, 19.37, 22.13), (3.32, 8.06, 12.80, 14.69)],
    ("baize", None, False): [(2.37, 10.28, 13.04, 16.60), (1.90, 5.69, 8.53, 11.37)],
}


@pytest.mark.parametrize("setting", PUBLISHED, ids=str)
def test_the_published_figures_come_out(
    shared_data: Path, setting: tuple[str, int | None, bool]
) -> None:
    model, max_distance, drop_seen = setting
    folder = shared_data / "llm_responses"
    source = RecordedAnswers.read(
        folder / f"inspired_{model}.jsonl.gz", folder / "inspired_test.jsonl", model
    )
    predictions = published_predictions(source, max_distance, drop_seen)
    table = recall_table([predictions], k=(1, 5, 10, 20), samples=1)
    assert table["n"].tolist() == [253, 211]
    values = table[["R@1", "R@5", "R@10", "R@20"]].to_numpy()
    assert values == pytest.approx(np.array(PUBLISHED[setting]), abs=0.005)


# --- the committed results ------------------------------------------------------------------


def test_the_result_file_has_every_model_protocol_and_baseline() -> None:
    record = json.loads((bundled("results") / "zero_shot.json").read_text(encoding="utf-8"))
    assert {"config", "commit", "hardware", "n_points", "n_points_novel"} <= set(record)
    rows = {(row["system"], row["targets"]): row for row in record["rows"]}
    for targets, n in (("all", record["n_points"]), ("novel", record["n_points_novel"])):
        systems = ["Popularity", "Mentioned, then popular", "PECRS, seed 0"]
        for model in ("gpt-4", "gpt-3.5-turbo", "vicuna", "baize"):
            systems += [f"{model}: list of 20", f"{model}: substring of reply"]
        for system in systems:
            row = rows[system, targets]
            assert row["n"] == n
            for k in (1, 10, 50):
                cell = row[f"R@{k}"]
                assert 0 <= cell["low"] <= cell["value"] <= cell["high"] <= 100
    assert rows["reel-small: log-likelihood, sum", "novel"]["n"] == record["n_points_novel"]
    (row,) = (
        row
        for row in record["as_published"]
        if (row["system"], row["targets"]) == ("gpt-4", "novel")
        and (row["max_distance"], row["drop_seen"]) == (None, False)
    )
    assert (round(row["R@1"]["value"], 1), round(row["R@10"]["value"], 1)) == (6.2, 16.6)


def test_the_result_file_has_what_recall_hides() -> None:
    record = json.loads((bundled("results") / "zero_shot.json").read_text(encoding="utf-8"))
    for share in record["shares"]:
        values = [share[name] for name in ("repeated", "popular", "outside")]
        for cell in [*values, *share["bands"].values()]:
            assert 0 <= cell["low"] <= cell["value"] <= cell["high"] <= 100 and cell["n"] > 0
        assert sum(cell["value"] for cell in share["bands"].values()) == pytest.approx(100)
    for row in record["matcher"]:
        for cell in (row["precision"], row["recall"]):
            assert cell["n"] == 0 or 0 <= cell["low"] <= cell["value"] <= cell["high"] + 1e-9
    text = {(row["system"], row["films"]): row for row in record["text"]}
    assert {row["n"] for row in text.values()} == {record["n_turns"]}
    titled, slots = text["PECRS, seed 0", "title"], text["PECRS, seed 0", SLOT]
    assert titled["RG-1"]["high"] < slots["RG-1"]["low"]  # the form alone
