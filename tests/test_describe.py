"""The paper's Table 1, on toy data by hand and on the real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pecrs_lib.data import (
    Catalogue,
    Dialogue,
    Mention,
    Movie,
    Utterance,
    describe,
    doubts,
    match_catalogue,
    read_catalogue,
    read_processed,
)


def said(role: str, *items: str) -> Utterance:
    return Utterance(role, "two words", tuple(map(Mention, items)))  # type: ignore[arg-type]


TOY = [
    Dialogue(
        "a",
        (
            said("recommender", "1"),  # first utterance: no data point
            said("seeker", "2", "9"),
            said("recommender", "3", "3", "9"),  # three points, or two in the catalogue
            said("seeker"),
            said("recommender"),
            said("seeker"),
            said("recommender", "9"),
        ),
    ),
    Dialogue("b", (said("seeker"), said("recommender"))),
    Dialogue("c", ()),
]


def test_counts_by_hand() -> None:
    counts = describe(TOY)
    assert (counts.dialogues, counts.utterances) == (3, 9)
    assert (counts.items, counts.mentions, counts.outside) == (4, 7, 0)
    assert (counts.points, counts.points_without, counts.points_with) == (6, 2, 4)
    assert counts.recommender_utterances == 5
    assert (counts.recommender_without, counts.recommender_with) == (2, 3)
    assert counts.mean_turns == pytest.approx(3)
    assert counts.mean_words == pytest.approx(2)


def test_catalogue_decides_what_an_item_is() -> None:
    counts = describe(TOY, Catalogue(tuple(Movie(i, i) for i in "123")))
    assert (counts.items, counts.mentions, counts.outside) == (3, 4, 3)
    assert (counts.points_without, counts.points_with) == (3, 2)
    assert (counts.recommender_without, counts.recommender_with) == (3, 2)


def test_nothing_to_count() -> None:
    counts = describe([])
    assert set(counts.to_json().values()) == {0}


def test_statistics_can_be_shown_and_kept() -> None:
    counts = describe(TOY)
    assert json.loads(json.dumps(counts.to_json()))["points_with"] == 4
    rows = counts.table().splitlines()
    assert len(rows) == len(counts.to_json())
    assert len({len(row) for row in rows}) == 1
    assert rows[0].split() == ["Dialogues", "3"]


def test_what_may_be_wrong_is_counted_with_its_first_places() -> None:
    films = Catalogue((Movie("up", "Up", 2009), Movie("shining", "The Shining")))
    text = "I liked Up (2009) and shining"
    fine = (Mention("up", 8, 17), Mention("shining", 22, 29))
    shifted = (Mention("up", 9, 18), Mention("shining", 18, 21))  # "p (2009) ", "and"

    def talk(name: str, *said: Utterance) -> Dialogue:
        return Dialogue(name, (*said, Utterance("recommender", "ok")))

    good = [talk("g", Utterance("seeker", text, (*fine, Mention("elsewhere"))))]
    assert doubts(good, films) == []
    bad = [talk(f"b{k}", Utterance("seeker", text, shifted)) for k in range(4)]
    odd = [Dialogue("e", ()), Dialogue("s", (Utterance("seeker", " "),))]
    found = {doubt.what: doubt for doubt in doubts([*good, *bad, *odd], films)}
    assert {what: doubt.n for what, doubt in found.items()} == {
        "dialogues without an utterance": 1,
        "dialogues in which no recommender speaks": 1,
        "utterances without text": 1,
        "mentions that begin or end inside a word": 4,
        "mentions in words unlike the title": 4,
    }
    unlike = found["mentions in words unlike the title"]
    assert unlike.places[0] == "dialogue 'b0', utterance 1, 'and' for 'The Shining'"
    assert len(unlike.places) == 3 and str(unlike).endswith("; …)")
    assert "mentions in words unlike the title" not in {d.what for d in doubts(bad)}  # no titles


def test_a_list_with_the_wrong_separator_is_doubted() -> None:
    films = Catalogue(
        (Movie("a", "A", genres=("drama", "comedy")), Movie("b", "B", genres=("x, y",)))
    )
    [doubt] = doubts([], films)
    assert str(doubt) == "genres that look like several ('|' separates them): 1 ('b', 'x, y')"


def test_real_inspired_is_the_paper_table(shared_data: Path) -> None:
    folder = shared_data / "inspired" / "pecrs"
    splits = {s: read_processed(folder / f"{s}_data_processed") for s in ("train", "dev", "test")}
    counts = describe(dialogue for split in splits.values() for dialogue in split)
    assert (counts.dialogues, counts.utterances) == (999, 21_124)
    assert (counts.points, counts.points_without, counts.points_with) == (10_122, 7_243, 2_879)
    assert counts.items == 1_662  # paper: 1,546
    assert describe(splits["train"] + splits["test"]).items == 1_540
    assert describe(splits["test"]).points_with == 279


def test_real_redial_comes_near_the_paper_table(
    shared_data: Path, redial_dialogues: list[Dialogue]
) -> None:
    """Training dialogues only, so ratios to the paper's counts per dialogue."""
    dialogues = redial_dialogues
    catalogue = read_catalogue(shared_data / "redial" / "movie_db")
    keyed, _ = match_catalogue(dialogues, catalogue, choose=lambda name, movies: movies[0])
    everything, known = describe(dialogues), describe(keyed, catalogue)
    assert known.outside == everything.mentions - known.mentions > 0
    scale = 11_348 / len(dialogues)
    paper = {"utterances": 139_557, "points": 73_999, "points_without": 31_119}
    paper["points_with"] = 42_880
    for name, count in paper.items():
        assert getattr(known, name) * scale == pytest.approx(count, rel=0.008), name
    assert abs(known.points_without * scale - 31_119) < abs(
        everything.points_without * scale - 31_119
    )
