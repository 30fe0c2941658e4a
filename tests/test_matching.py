"""Title matching: what must match, and, above all, what must not."""

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
    match_catalogue,
    match_titles,
    most_detailed,
    read_catalogue,
)
from pecrs_lib.data.matching import normalise

FILMS = Catalogue(
    tuple(
        Movie(f"m{i}", title, year)
        for i, (title, year) in enumerate(
            [
                ("The Matrix", 1999),
                ("Halloween", 1978),
                ("Halloween", 2018),
                ("It", 2017),
                ("Her", 2013),
                ("Amélie", 2001),
                ("Fast & Furious", 2009),
                ("Toy Story 2", 1999),
                ("Jumanji: Welcome to the Jungle", 2017),
                ("Rocky II", 1979),
                ("Frozen", None),
                ("Frozen", None),
                ("Sing", None),
                ("Sing!", None),
                ("Indiana Jones and the Temple of Doom", 1984),
                ("The Little Woman", None),
            ]
        )
    )
)


@pytest.mark.parametrize(
    ("name", "outcome", "rows"),
    [
        ("The Matrix (1999)", "exact", (0,)),
        ("Matrix,  The  (1999)", "exact", (0,)),
        ("matrix", "exact", (0,)),
        ("The Matrix (2000)", "exact", (0,)),  # one year off
        ("The Matrix (2003)", "unmatched", ()),
        ("Halloween (1978)", "exact", (1,)),
        ("Halloween (2019)", "exact", (2,)),
        ("Halloween", "ambiguous", (1, 2)),
        ("Halloween (2007)", "unmatched", ()),
        ("AMELIE (2001)", "exact", (5,)),
        ("Fast and Furious (2009)", "exact", (6,)),
        ("rocky 2", "exact", (9,)),
        ("Frozen (2013)", "ambiguous", (10, 11)),
        ("Sing (2016)", "exact", (12,)),
        ("sing!", "exact", (13,)),
        # spelling
        ("Jumanjii: Welcome to the Jungel (2017)", "fuzzy", (8,)),
        ("Jumanji: Welcome to the Jungl (1995)", "unmatched", ()),
        ("Indiana Jones & the Tempel of Doom", "fuzzy", (14,)),
        ("Toy Story 3", "unmatched", ()),
        ("Toy Storyy 2", "fuzzy", (7,)),
        ("Little Women (2019)", "unmatched", ()),
        ("Jumanjie: Welcom to de Jungle", "unmatched", ()),
        ("Jumanjie: Welcom to de Jungle (2017)", "fuzzy", (8,)),
        # short titles, and parts of titles
        ("Hero (2013)", "unmatched", ()),
        ("Hers", "unmatched", ()),
        ("It Follows (2017)", "unmatched", ()),
        ("Up", "unmatched", ()),
        ("Jumanji (2017)", "unmatched", ()),
        ("Indiana Jones", "unmatched", ()),
        ("", "unmatched", ()),
        ("???", "unmatched", ()),
    ],
)
def test_match_titles(name: str, outcome: str, rows: tuple[int, ...]) -> None:
    (match,) = match_titles([name], FILMS)
    assert (match.outcome, match.rows) == (outcome, rows)
    assert match.row == (rows[0] if outcome in ("exact", "fuzzy") else None)


def test_threshold_switches_spelling() -> None:
    name = "Indiana Jones & the Tempel of Doom"
    assert match_titles([name], FILMS, threshold=101)[0].outcome == "unmatched"
    (strict,) = match_titles(["Indiana Jones Temple Doom (1984)"], FILMS)
    (lenient,) = match_titles(["Indiana Jones Temple Doom (1984)"], FILMS, threshold=75)
    assert (strict.outcome, lenient.outcome) == ("unmatched", "fuzzy")
    assert 75 <= lenient.score < 90


def test_normalise() -> None:
    assert normalise("Matrix,  The") == "the matrix"
    assert normalise("WALL·E") == normalise("wall-e") == "wall e"
    assert normalise("Ocean’s Eleven") == normalise("oceans eleven")
    assert normalise("$") == "$"
    assert normalise("卧虎藏龙") == "卧虎藏龙"


def talk(*named: tuple[str, str]) -> Dialogue:
    """One utterance per (id, words)."""
    return Dialogue(
        "d",
        tuple(Utterance("seeker", f"I saw {w}", (Mention(i, 6, 6 + len(w)),)) for i, w in named),
    )


def test_match_catalogue_changes_ids_only() -> None:
    dialogue = talk(("7", "Her"), ("8", "Matrix, The"), ("m3", "Nope"), ("9", "Gone"), ("m0", "It"))
    (keyed,), report = match_catalogue([dialogue], FILMS)
    items = [m.item for u in keyed.utterances for m in u.mentions]
    # "m3" is an unknown film here, and the catalogue's id of another one
    assert items == ["m4", "m0", "unmatched:m3", "9", "m3"]
    for before, after in zip(dialogue.utterances, keyed.utterances, strict=True):
        assert (before.role, before.text) == (after.role, after.text)
        assert [(m.start, m.end) for m in before.mentions] == [
            (m.start, m.end) for m in after.mentions
        ]
    assert report.rate == pytest.approx(3 / 5)
    assert [m.item for m in report.of("unmatched")] == ["9", "m3"]
    assert "60.0% of 5 mentions matched" in report.summary()
    plain = json.loads(json.dumps(report.to_json()))
    assert plain["exact"]["items"] == 3
    assert plain["unmatched"]["matches"][0]["name"] == "Gone"


def test_the_name_of_an_item_is_its_best_spelling() -> None:
    dialogue = talk(("7", "Halloween"), ("7", "Halloween"), ("7", "Halloween (2018)"))
    (keyed,), report = match_catalogue([dialogue], FILMS)
    assert {m.item for u in keyed.utterances for m in u.mentions} == {"m2"}
    assert report.mentions("exact") == report.mentions() == 3


def test_names_may_be_given() -> None:
    bare = Dialogue("d", (Utterance("seeker", "that one", (Mention("Halloween (1978)"),)),))
    _, without = match_catalogue([bare], FILMS)
    assert without.rate == 0
    (keyed,), report = match_catalogue([bare], FILMS, name_of=str)
    assert keyed.utterances[0].items == ("m1",)
    assert report.rate == 1
    _, unknown = match_catalogue([bare], FILMS, name_of={}.get)
    assert unknown.of("unmatched")[0].name == ""


def test_choose_settles_ambiguity_and_is_counted() -> None:
    frozen = Catalogue((Movie("a", "Frozen"), Movie("b", "frozen", directors=("Jennifer Lee",))))
    dialogue = talk(("1", "Frozen (2013)"), ("2", "Frozen"), ("3", "Thaw"))
    _, left = match_catalogue([dialogue], frozen)
    assert (left.mentions("ambiguous"), left.mentions("chosen")) == (2, 0)
    (keyed,), report = match_catalogue([dialogue], frozen, choose=most_detailed)
    assert [u.items for u in keyed.utterances] == [("b",), ("b",), ("3",)]
    assert (report.mentions("ambiguous"), report.mentions("chosen")) == (0, 2)
    twins = [Movie("a", "Frozen"), Movie("b", "Frozen")]
    assert most_detailed("Frozen", twins) is None
    _, tied = match_catalogue([dialogue], Catalogue(tuple(twins)), choose=most_detailed)
    assert tied.mentions("ambiguous") == 2


def test_no_mentions_at_all() -> None:
    keyed, report = match_catalogue([Dialogue("d", ())], FILMS)
    assert keyed == [Dialogue("d", ())]
    assert (report.matches, report.rate) == ((), 1.0)
    assert match_titles(["Up"], Catalogue(()))[0].outcome == "unmatched"


def test_real_redial_mentions_meet_the_paper_items(
    shared_data: Path, redial_dialogues: list[Dialogue]
) -> None:
    dialogues = redial_dialogues
    catalogue = read_catalogue(shared_data / "redial" / "movie_db")
    _, report = match_catalogue(dialogues, catalogue)
    named = report.mentions("exact", "fuzzy", "ambiguous") / report.mentions()
    assert 0.98 < named < 0.99  # title found, though homonyms cannot be told apart without years
    assert 0.84 < report.rate < 0.86
    assert report.mentions("fuzzy") < 20  # spelling adds next to nothing where names are curated
    names = read_catalogue(shared_data / "redial" / "movies_with_mentions.csv")
    _, own = match_catalogue(dialogues, names)
    assert own.rate > 0.98
    right = sum(names[m.row].id == m.item for m in own.matches if m.row is not None)
    matched = sum(m.row is not None for m in own.matches)
    assert right / matched > 0.99
