"""Baselines on toy dialogues small enough to rank by hand, and their claims on real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pecrs_lib.baselines import (
    BASELINES,
    BM25,
    CoOccurrence,
    MentionedThenPopular,
    Popularity,
    Random,
    fit_baselines,
)
from pecrs_lib.data import Catalogue, Dialogue, Movie, Utterance
from pecrs_lib.data.redial import read_redial
from pecrs_lib.evaluation import paired_bootstrap, predict, recall_table
from tests.test_evaluation import dialogue

CATALOGUE = Catalogue(tuple(Movie(item, f"Title {item}") for item in "abcde"))
TRAIN = [
    dialogue("1", "S a", "R b", "R b"),
    dialogue("2", "S bc", "R ad"),
    dialogue("3", "S ccc", "R d"),
    dialogue("4", "R z", "S z"),
]
EMPTY = dialogue("now")


def order(scores: np.ndarray) -> str:
    """Item ids best first, ties in catalogue order."""
    return "".join(CATALOGUE[int(j)].id for j in np.argsort(-scores, kind="stable"))


class TestPopularity:
    def test_counts_mentions_by_recommenders(self) -> None:
        fitted = Popularity().fit(TRAIN, CATALOGUE)
        assert fitted.scores(EMPTY).tolist() == [1, 2, 0, 2, 0]  # c: only by seekers

    def test_ignores_the_history_and_keeps_its_counts(self) -> None:
        fitted = Popularity().fit(TRAIN, CATALOGUE)
        fitted.scores(EMPTY)[:] = -1
        assert fitted.scores(dialogue("x", "S e")).tolist() == [1, 2, 0, 2, 0]


class TestMentioned:
    def test_latest_first_then_popular(self) -> None:
        fitted = MentionedThenPopular().fit(TRAIN, CATALOGUE)
        assert order(fitted.scores(EMPTY)) == "bdace"  # popularity alone; b and d tie
        assert order(fitted.scores(dialogue("x", "S e", "R ac"))) == "caebd"
        assert order(fitted.scores(dialogue("x", "S e", "R ac", "S ee"))) == "ecabd"
        assert order(fitted.scores(dialogue("x", "S ez"))) == "ebdac"  # z is not in the catalogue


class TestCoOccurrence:
    # Dialogues with both: ab 2, ac 1, ad 1, bc 1, bd 1, cd 2.
    def test_by_hand(self) -> None:
        fitted = CoOccurrence().fit(TRAIN, CATALOGUE)
        assert order(fitted.scores(dialogue("x", "S a"))) == "bdcae"  # b 2, then d over c: popular
        assert order(fitted.scores(dialogue("x", "S c"))) == "dbace"
        # a and c: a 1, b 3, c 1, d 3, e 0; b before d by catalogue order, both recommended twice
        assert order(fitted.scores(dialogue("x", "S a", "R c"))) == "bdace"

    def test_repeats_count_once(self) -> None:
        fitted = CoOccurrence().fit(TRAIN, CATALOGUE)
        once, thrice = dialogue("x", "S ab"), dialogue("x", "S abaa")
        assert np.array_equal(fitted.scores(once), fitted.scores(thrice))

    def test_without_mentions_or_neighbours_popular(self) -> None:
        fitted = CoOccurrence().fit(TRAIN, CATALOGUE)
        for history in (EMPTY, dialogue("x", "S e"), dialogue("x", "S z")):
            assert order(fitted.scores(history)) == "bdace"

    def test_agrees_with_a_slow_loop(self, dialogues: list[Dialogue], catalogue: Catalogue) -> None:
        fitted = CoOccurrence().fit(dialogues, catalogue)
        baskets = [{m.item for u in d.utterances for m in u.mentions} for d in dialogues]
        popularity = Popularity().fit(dialogues, catalogue).scores(EMPTY)
        different = set()
        for d in dialogues:
            history = d.mentioned_before(len(d) - 1)
            together = [
                sum({i, movie.id} <= basket for basket in baskets for i in history - {movie.id})
                for movie in catalogue
            ]
            slow = np.lexsort((np.arange(len(catalogue)), -popularity, -np.array(together)))
            fast = fitted.scores(Dialogue(d.id, d.utterances[:-1]))
            assert np.argsort(-fast, kind="stable").tolist() == slow.tolist()
            different.add(tuple(slow))
        assert len(different) > 3

    def test_nothing_to_learn_from(self) -> None:
        fitted = CoOccurrence().fit([], CATALOGUE)
        assert fitted.scores(dialogue("x", "S a")).tolist() == [0] * 5


FILMS = Catalogue(
    (
        Movie("a", "Alien", 1979, ("Sigourney Weaver",), ("Ridley Scott",), ("Horror",), "A ship."),
        Movie("b", "Heat", 1995, ("Al Pacino",), ("Michael Mann",), ("Crime",), "A robbery."),
        Movie("c", "Up", 2009, ("Ed Asner",), ("Pete Docter",), ("Animation",), "A house flies."),
        Movie("d", "", plot=""),
    )
)


def said(*texts: str) -> Dialogue:
    return Dialogue("x", tuple(Utterance("seeker", text) for text in texts))


class TestBM25:
    @pytest.mark.parametrize(
        ("text", "found"),
        [("alien", 0), ("SIGOURNEY!", 0), ("michael mann", 1), ("Animation?", 2), ("robbery", 1)],
    )
    def test_every_field_is_searched(self, text: str, found: int) -> None:
        scores = BM25().fit([], FILMS).scores(said(text))
        assert scores.argmax() == found
        assert (np.delete(scores, found) == 0).all()

    def test_all_utterances_are_the_query(self) -> None:
        scores = BM25().fit([], FILMS).scores(said("alien", "house animation"))
        assert scores.argmax() == 2
        assert scores[2] > scores[0] > scores[1] == scores[3]

    def test_popularity_ranks_what_words_do_not(self) -> None:
        fitted = BM25().fit([dialogue("1", "R bbd", "R d", "R dc")], FILMS)
        for history in (EMPTY, said("", "zzz"), said("the of and")):
            assert np.argsort(-fitted.scores(history), kind="stable").tolist() == [3, 1, 2, 0]
        assert np.argsort(-fitted.scores(said("ship"))).tolist() == [0, 3, 1, 2]

    def test_catalogue_without_words_raises(self) -> None:
        with pytest.raises(ValueError, match="none of the 2 items has a word"):
            BM25().fit([], Catalogue((Movie("a", ""), Movie("b", "?"))))


class TestRandom:
    def test_depends_on_seed_dialogue_and_turn_only(self) -> None:
        catalogue = Catalogue(tuple(Movie(str(j), "") for j in range(50)))
        one, other = (Random(seed).fit([], catalogue) for seed in (1, 2))
        history = dialogue("x", "S")
        first = one.scores(history)
        one.scores(EMPTY)
        assert np.array_equal(one.scores(history), first)
        for scores in (
            other.scores(history), one.scores(dialogue("y", "S")), one.scores(dialogue("x")),
        ):  # fmt: skip
            assert not np.array_equal(scores, first)

    def test_recall_is_k_over_n(self) -> None:
        catalogue = Catalogue(tuple(Movie(str(j), "") for j in range(20)))
        dialogues = [dialogue(str(d), f"R {d % 10}") for d in range(2000)]
        row = recall_table([predict(Random().fit([], catalogue), dialogues, catalogue)], (5,), 50)
        assert row.loc[0, "R@5"] == pytest.approx(25, abs=4 * 100 * (0.25 * 0.75 / 2000) ** 0.5)


def test_order_and_names() -> None:
    fitted = fit_baselines(TRAIN, CATALOGUE, seed=5)
    assert tuple(type(system) for system in fitted) == BASELINES
    assert [system.name for system in fitted] == [
        "Random", "Popularity", "Mentioned, then popular", "Co-occurrence", "BM25",
    ]  # fmt: skip
    assert fitted[0] == Random(5)
    for system in fitted:
        scores = system.scores(dialogue("x", "S ab"))
        assert scores.shape == (5,)
        assert scores.dtype == np.float64


def test_permuting_the_catalogue_permutes_the_scores(
    dialogues: list[Dialogue], catalogue: Catalogue
) -> None:
    permutation = np.random.default_rng(0).permutation(len(catalogue))
    moved = Catalogue(tuple(catalogue[int(j)] for j in permutation))
    before, after = (fit_baselines(dialogues[:5], c)[1:] for c in (catalogue, moved))
    for history in dialogues[5:]:
        for a, b in zip(before, after, strict=True):
            scores = a.scores(history)
            assert np.array_equal(scores[permutation], b.scores(history)), a.name
            assert len(np.unique(scores)) > 1


@pytest.mark.slow
def test_co_occurrence_beats_popularity_on_redial(shared_data: Path) -> None:
    """On 1,003 held-out training dialogues; not the test set of the paper, which is not at hand."""
    train, valid = (
        read_redial(shared_data / "redial" / f"{split}.jsonl.gz") for split in ("train", "valid")
    )
    catalogue = Catalogue.of_mentions([*train, *valid])
    popular = predict(Popularity().fit(train, catalogue), valid, catalogue)
    together = predict(CoOccurrence().fit(train, catalogue), valid, catalogue)
    rows = recall_table([popular, together]).query("targets == 'all'")
    measured = rows[["R@1", "R@10", "R@50"]].to_numpy()
    np.testing.assert_allclose(measured, [[1.3, 6.6, 17.4], [3.8, 19.2, 40.3]], atol=0.3)
    assert paired_bootstrap(together, popular, 10, targets="novel").low > 10
