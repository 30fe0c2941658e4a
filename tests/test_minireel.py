"""The bundled data set: complete, made by the simulator as it stands, and as its card says."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections import Counter, defaultdict
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from experiments import minireel
from pecrs_lib.baselines import CoOccurrence, Popularity
from pecrs_lib.data import (
    Catalogue,
    DataError,
    Dialogue,
    Interaction,
    Utterance,
    bundled,
    check_mentions,
    load_interactions,
    load_minireel,
    load_oracle,
)
from pecrs_lib.evaluation import recommendation_points
from pecrs_lib.simulator.simulate import simulate
from pecrs_lib.simulator.world import Knobs

Splits = dict[str, list[Dialogue]]
FOLDER = bundled("minireel")
MADE = ("train.jsonl.gz", "valid.jsonl.gz", "test.jsonl.gz", "oracle.jsonl.gz")


@pytest.fixture(scope="module")
def loaded() -> tuple[Catalogue, Splits]:
    return load_minireel()


@pytest.fixture(scope="module")
def films(loaded: tuple[Catalogue, Splits]) -> Catalogue:
    return loaded[0]


@pytest.fixture(scope="module")
def splits(loaded: tuple[Catalogue, Splits]) -> Splits:
    return loaded[1]


@pytest.fixture(scope="module")
def raw() -> dict[str, list[dict[str, Any]]]:
    """The dialogues as the files have them, with the workers' numbers."""
    return {s: [json.loads(line) for line in unzipped(f"{s}.jsonl.gz")] for s in minireel.SPLITS}


@pytest.fixture(scope="module")
def interactions() -> list[Interaction]:
    return load_interactions()


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return json.loads(minireel.RESULT.read_text(encoding="utf-8"))


def unzipped(name: str, folder: Path = FOLDER) -> list[bytes]:
    return gzip.decompress((folder / name).read_bytes()).splitlines(keepends=True)


def named(dialogues: list[Dialogue]) -> set[str]:
    return {item for d in dialogues for u in d.utterances for item in u.items}


def targets(dialogues: list[Dialogue]) -> set[str]:
    return {point.item for point in recommendation_points(dialogues)}


# the files


def test_the_files_load(films, splits):
    assert len(films) == 600
    assert {s: len(many) for s, many in splits.items()} == {
        "train": 3200,
        "valid": 300,
        "test": 500,
    }
    assert {s: len(many) for s, many in splits.items()} == minireel.SIZES
    every = [d for many in splits.values() for d in many]
    assert len({d.id for d in every}) == len(every)
    assert check_mentions(every, films) == []
    assert len({movie.name for movie in films}) == len(films), "a name tells a film"


def test_a_mention_spans_the_name_of_its_film(films, splits):
    for d in splits["valid"]:
        for u in d.utterances:
            for m in u.mentions:
                assert u.text[m.start : m.end] == films[films.row[m.item]].name


def test_an_unknown_name_is_refused():
    with pytest.raises(DataError, match="'maxireel' is missing"):
        bundled("maxireel")


def test_films_are_complete(films):
    for movie in films:
        assert movie.title.strip() and movie.year and 1900 < movie.year <= 2018, movie
        assert len(set(movie.actors)) == len(movie.actors) == 3, movie
        assert len(set(movie.directors)) == len(movie.directors) >= 1, movie
        assert len(set(movie.genres)) == len(movie.genres) >= 1, movie
        assert all(v == v.strip() != "" for v in movie.actors + movie.directors + movie.genres)
        assert 15 <= len(movie.plot.split()) <= 60, movie.plot


def test_plots_do_not_give_their_titles_away(films):
    for movie in films:
        title = minireel.plain(movie.title)
        assert title and f" {title} " not in f" {minireel.plain(movie.plot)} ", movie.name


def test_no_two_plots_share_eight_words(films):
    owners: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for movie in films:
        words = minireel.plain(movie.plot).split()
        for k in range(len(words) - 7):
            owners[tuple(words[k : k + 8])].add(movie.name)
    assert len(owners) > 10 * len(films)
    assert not {run: names for run, names in owners.items() if len(names) > 1}


def test_theme_phrases_mostly_use_other_words_than_the_theme():
    phrases = json.loads((FOLDER / "themes.json").read_text(encoding="utf-8"))["phrases"]
    small = {"a", "an", "and", "in", "of", "one", "the"}
    for tag, many in phrases.items():
        own = set(minireel.plain(tag).split()) - small
        same = [p for p in many if own & set(minireel.plain(p).split())]
        assert len(same) <= 2, f"{tag}: the card says at most two, found {same}"


def test_simulating_again_gives_the_same_bytes(films, stored, monkeypatch, tmp_path):
    assert stored["seed"] == minireel.SEED and Knobs(**stored["knobs"]) == Knobs()
    again = simulate(films, FOLDER, minireel.SIZES, Knobs(), minireel.SEED)
    rows = [*again.dialogues.values(), again.oracle]
    for name, made in zip(MADE, rows, strict=True):
        assert minireel.lines(made) == b"".join(unzipped(name)), f"{name}: run the experiment"
    shutil.copy(FOLDER / "films.jsonl", tmp_path)
    monkeypatch.setattr(minireel, "FOLDER", tmp_path)
    minireel.write(again)
    for name in (*MADE, "interactions.csv.gz"):
        assert unzipped(name, tmp_path) == unzipped(name), f"{name}: run the experiment"


# the splits


def test_no_seeker_stands_in_two_splits(raw):
    seekers = {s: {d["initiatorWorkerId"] for d in many} for s, many in raw.items()}
    assert all(len(many) > 50 for many in seekers.values())
    assert sum(map(len, seekers.values())) == len(set().union(*seekers.values()))


def test_cold_films_are_named_in_test_alone(films, splits, interactions):
    seen = named(splits["train"]) | named(splits["valid"])
    watched = {i.item for i in interactions if i.split != "test"}
    cold = {movie.id for movie in films} - seen - watched
    assert 20 <= len(cold & targets(splits["test"])) <= len(cold)
    assert len(cold) >= Knobs().cold
    assert len(cold) < 2 * Knobs().cold, "the other films are known from training"


def test_interactions_count_from_zero_seeker_by_seeker(films, interactions):
    assert all(i.item in films for i in interactions)
    groups = [(s, list(rows)) for s, rows in groupby(interactions, key=lambda i: i.seeker)]
    assert len({s for s, _ in groups}) == len(groups) > 1000, "each seeker's rows stand together"
    for seeker, rows in groups:
        assert [i.time for i in rows] == list(range(len(rows))), seeker
        assert len({i.split for i in rows}) == 1, seeker
        when = [-1 if i.dialogue is None else int(i.dialogue) for i in rows]
        assert when[0] == -1 and when == sorted(when), f"{seeker}: what they had seen comes first"
    assert 0.3 < sum(i.liked for i in interactions) / len(interactions) < 0.9


def test_interactions_agree_with_the_dialogues(raw, interactions):
    said = {d["conversationId"]: (s, d) for s, many in raw.items() for d in many}
    split = {str(d["initiatorWorkerId"]): s for s, d in said.values()}
    assert {i.seeker: i.split for i in interactions} == split
    for i in interactions:
        if i.dialogue is not None:
            s, d = said[i.dialogue]
            assert (s, str(d["initiatorWorkerId"])) == (i.split, i.seeker)
            assert i.item in d["movieMentions"]


def test_the_oracle_knows_every_recommendation(splits):
    ranks = load_oracle()
    assert all(1 <= rank <= 600 for rank in ranks.values())
    points = [
        (many[p.dialogue].id, p.turn, p.item)
        for many in splits.values()
        for p in recommendation_points(many)
    ]
    assert len(recommendation_points(splits["test"])) > 1500
    assert Counter(points) == Counter(ranks.keys()), "one rank for each, and none besides"


# the result file and the card


def test_the_card_shows_the_result_file(stored, monkeypatch, tmp_path):
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    emptied = card
    for name in ("statistics", "difficulty"):
        emptied, n = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", r"\1\2", emptied, flags=re.DOTALL
        )
        assert n == 1
    assert len(emptied) < len(card) - 1000
    (tmp_path / "README.md").write_text(emptied, encoding="utf-8")
    monkeypatch.setattr(minireel, "FOLDER", tmp_path)
    minireel.card(stored)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == card, "run the experiment"


def test_the_statistics_are_those_of_the_files(splits, stored):
    every = [d for s in minireel.SPLITS for d in splits[s]]
    assert minireel.statistics(every) == pytest.approx(stored["statistics"]["MiniReel"], rel=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "utterances per dialogue", "words per utterance", "distinct-2 of 100,000",
        "distinct-2 of 500,000", "films named per dialogue", "by the recommender",
    ],
)  # fmt: skip
def test_dialogues_are_like_redials(stored, name):
    ours, theirs = (stored["statistics"][c][name] for c in ("MiniReel", "ReDial (as many)"))
    assert ours == pytest.approx(theirs, rel=0.2)


def test_distinct_2_by_hand():
    """On and on and on: the pairs are (on, and), (and, on), twice each."""
    dialogue = Dialogue("a", (Utterance("seeker", "On and on and on"),))
    assert minireel.distinct_2([dialogue], 2) == 1
    assert minireel.distinct_2([dialogue], 4) == 1 / 2
    assert minireel.distinct_2([dialogue, dialogue], 8) == 1 / 4
    assert minireel.distinct_2([dialogue], 5) is None, "too few pairs"


def test_the_stored_difficulty_can_be_computed_again(films, splits, stored, monkeypatch):
    def fit(train: list[Dialogue], catalogue: Catalogue) -> list[Popularity | CoOccurrence]:
        return [baseline().fit(train, catalogue) for baseline in (Popularity, CoOccurrence)]

    monkeypatch.setattr(minireel, "fit_baselines", fit)
    found = minireel.difficulty(films, splits)
    kept = {(r["system"], r["targets"]): r for r in stored["difficulty"]}
    systems = {"Popularity", "Co-occurrence", "Oracle"}
    assert {(r["system"], r["targets"]) for r in found} == {
        (s, t) for s in systems for t in ("all", "novel")
    }
    for row in found:
        old = kept[row["system"], row["targets"]]
        assert (row["n"], row["Unique"]) == (old["n"], old["Unique"])
        for k in ("R@1", "R@10", "R@50"):
            assert row[k] == pytest.approx(old[k], rel=1e-9)


def test_the_oracle_is_far_above_the_baselines(stored):
    kept = {(r["system"], r["targets"]): r for r in stored["difficulty"]}
    names = {system for system, _ in kept} - {"Oracle"}
    assert names == {"Random", "Popularity", "Mentioned, then popular", "Co-occurrence", "BM25"}
    for t in ("all", "novel"):
        for k, factor in (("R@1", 3), ("R@10", 2), ("R@50", 1.5)):
            best = max(kept[name, t][k]["high"] for name in names)
            assert kept["Oracle", t][k]["low"] > factor * best


def test_no_sentence_of_a_plot_was_found_elsewhere(stored):
    """One plot shares eight words in a row with another text, less than half a sentence."""
    shared = {film: len(hits) for film, hits in stored["plots"]["shared"].items()}
    assert shared == {"Just Go With It (2011)": 1} and stored["plots"]["n"] == 8
    assert stored["plots"]["plots compared"] > 10_000
    assert stored["facts"]["films"] == 600 and stored["facts"]["not found"] == []


# with other tables


def test_plots_share_what_the_card_says(films, stored, shared_data):
    assert minireel.check_plots(films, shared_data) == stored["plots"]


def test_every_film_stands_in_the_tables(films, stored, shared_data):
    found = minireel.check_facts(films, shared_data / "movies" / "movies_merged.jsonl.gz")
    assert found["not found"] == []
    assert found == stored["facts"]
