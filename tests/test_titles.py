"""Replies of language models → films: what must be found, and, above all, what must not."""

from __future__ import annotations

import numpy as np
import pytest

from pecrs_lib.data import Catalogue, Movie
from pecrs_lib.data.minireel import bundled
from pecrs_lib.zero_shot.recommended import agreement, found_by, found_by_substring, read_labels
from pecrs_lib.zero_shot.titles import TitleMatcher, entries, spellings, substring_hit

FILMS = Catalogue(
    tuple(
        Movie(f"m{i}", title, year)
        for i, (title, year) in enumerate(
            [
                ("It", 2017),  # 0
                ("Up", 2009),
                ("Her", 2013),
                ("The Empire Strikes Back", 1980),
                ("The Lion King", 1994),
                ("The Lion King", 2019),  # 5
                ("Home Alone", 1990),
                ("Star Wars: The Last Jedi", 2017),
                ("Mission: Impossible - Fallout", 2018),
                ("Joker", 2019),
                ("Joker", 2019),  # 10
                ("The Godfather Part II", 1974),
                ("Star Wars", 1977),
                ("Transcendence", 2014),
                ("Boys", 2014),
            ]
        )
    )
)
POPULARITY = np.arange(len(FILMS))[::-1]  # earlier films are more popular


@pytest.mark.parametrize(
    ("reply", "listed"),
    [
        ("1. Up (2009)\n2. Her", ("Up (2009)", "Her")),
        ("Sure!\n\n 1) Up\n\n 2) Her\nEnjoy! It is fun.", ("Up", "Her")),
        ("- Up\n- Her\n- It", ("Up", "Her", "It")),
        ("5. 1917\n6. 50 First Dates", ("1917", "50 First Dates")),
        ("1. Up\n2. Her\n1. It", ("Up", "Her")),  # a second list is another answer
        ("1. Up\n[|Human|] Thanks\n1. It", ("Up",)),
        ("1. Up\nUser: more\n2. It", ("Up",)),
        ("I like Up and Her.", ()),
        ("", ()),
    ],
)
def test_entries(reply: str, listed: tuple[str, ...]) -> None:
    assert entries(reply) == listed


@pytest.mark.parametrize(
    ("entry", "first", "among"),
    [
        ("The Farewell (2019) - Comedy-Drama", "The Farewell (2019)", "The Farewell (2019)"),
        ('"Up" (2009), a Pixar film', "Up (2009)", "Up (2009)"),
        ('"The Dark Knight" is great', "The Dark Knight", "The Dark Knight"),
        ("**Up** - an old man flies", "Up", "Up"),
        ("Mission: Impossible - Fallout", "Mission: Impossible - Fallout", "Mission: Impossible"),
        ("The Ring (remake)", "The Ring (remake)", "The Ring"),
    ],
)
def test_spellings(entry: str, first: str, among: str) -> None:
    assert spellings(entry)[0] == first
    assert among in spellings(entry)


@pytest.mark.parametrize(
    ("entry", "how", "row"),
    [
        ("Up", "exact", 1),
        ("IT (2017)", "exact", 0),
        ("It (1990)", "unmatched", None),
        ("Mission: Impossible - Fallout", "exact", 8),
        ("Star Wars: The Empire Strikes Back", "alias", 3),
        ("The Last Jedi (2017)", "alias", 7),
        ("The Last Jedi (1999)", "unmatched", None),
        ("Star Wars: Episode VIII - The Last Jedi", "alias", 7),
        ("Star Wars: Episode IV - A New Hope (1977)", "alias", 12),
        ("The Godfather 2", "alias", 11),
        ("The Godfather", "unmatched", None),
        ("It: Chapter 2", "unmatched", None),
        ("Home Alone 2: Lost in New York", "unmatched", None),
        ("Trancendence (2014)", "fuzzy", 13),
        ("Hers", "unmatched", None),
        ("Car chase scenes", "unmatched", None),
        ("The Lion King (2019)", "exact", 5),
        ("The Lion King", "exact", 4),  # the more popular one
        ("Joker", "exact", 9),
    ],
)
def test_titles(entry: str, how: str, row: int | None) -> None:
    (title,) = TitleMatcher(FILMS, POPULARITY).titles([entry])
    assert (title.how, title.row) == (how, row)


def test_homonyms_stay_open_where_nothing_decides() -> None:
    (title,) = TitleMatcher(FILMS).titles(["The Lion King"])
    assert (title.how, title.row, title.rows) == ("ambiguous", None, (4, 5))
    (twice,) = TitleMatcher(FILMS).titles(["Joker"])  # one film with two ids is no homonym
    assert (twice.row, twice.rows) == (9, (9, 10))


def test_aliases_and_spelling_can_be_switched_off() -> None:
    strict = TitleMatcher(FILMS, threshold=101, aliases=False)
    found = strict.titles(["The Last Jedi", "Trancendence (2014)", "Up"])
    assert [title.row for title in found] == [None, None, 1]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('I loved "It" and Up (2009).', [0, 1]),
        ("It is with her that I went up.", []),
        ("Her sister gave Her to me. Up we go!", [2]),
        ("Set It Up is a film, and so is Home Alone 2: Lost in New York.", []),
        ("We saw Home Alone, Joker, and The Empire Strikes Back!", [6, 9, 3]),
        ("the lion king", []),
        ("Lord of the Boys", []),
        ("To All the Boys I've Loved Before", []),
        ("", []),
    ],
)
def test_running_text(text: str, rows: list[int]) -> None:
    assert [title.row for title in TitleMatcher(FILMS, POPULARITY).in_text(text)] == rows


def test_substrings_are_wrong_both_ways() -> None:
    reply = "1. Star Wars: The Empire Strikes Back\n2. Something with superheroes, another hit"
    assert [t for t in ("It", "Up", "Her") if substring_hit(t, reply)] == ["It", "Up", "Her"]
    assert not substring_hit("Mission: Impossible - Fallout", "Mission Impossible: Fallout")
    (found,) = TitleMatcher(FILMS).in_lists([reply])
    assert [title.row for title in found] == [3, None]


def test_a_film_named_twice_counts_once() -> None:
    (found,) = TitleMatcher(FILMS).in_lists(["1. Up\n2. Unknown\n3. UP (2009)\n4. unknown"])
    assert [(title.text, title.row) for title in found] == [("Up", 1), ("Unknown", None)]


def test_popularity_must_fit_the_catalogue() -> None:
    with pytest.raises(ValueError, match=r"\(15,\), got \(3,\)"):
        TitleMatcher(FILMS, [1, 2, 3])


def test_the_labelled_sample_on_its_own_titles() -> None:
    """Without the real catalogue: the films of the labels are all there is to be found."""
    labels = read_labels(bundled("results") / "zero_shot_titles.csv")
    names = {name for label in labels for film in label.films for name in film}
    films = Catalogue(tuple(Movie(name, name) for name in sorted(names)))
    for sample, least in (("list", 99), ("list, hard", 80), ("text with a title", 85)):
        chosen = [label for label in labels if label.sample == sample]
        ours = agreement(found_by(TitleMatcher(films)), chosen)
        naive = agreement(found_by_substring(films), chosen)
        assert ours.recall > least and ours.precision > 85
        assert naive.precision < ours.precision
