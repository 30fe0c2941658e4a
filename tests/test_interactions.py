"""Interactions: one form for four sources, split by time, and complaints that name the line."""

from __future__ import annotations

import gzip
import json

import pytest

from pecrs_lib.data import DataError, load_interactions, load_minireel
from pecrs_lib.data.interactions import (
    Interactions,
    leave_one_out,
    read_amazon,
    read_minireel_interactions,
    read_movielens,
    read_redial_forms,
)

TOY = Interactions(("a", "b", "c", "d"), ("A",) * 4, ("A.",) * 4, ((0, 2, 1), (3, 1, 0, 2), (1,)))


def test_leave_one_out_takes_the_last_two():
    split = leave_one_out(TOY.at_least(3))
    assert split.train.users == ((0,), (3, 1))
    assert split.valid == (2, 0) and split.test == (1, 2)
    with pytest.raises(DataError, match="user 2 has 1 items"):
        leave_one_out(TOY)


@pytest.mark.parametrize("users", [((0, 4),), ((-1,),), ((2, 2),)])
def test_what_no_user_can_have(users):
    with pytest.raises(DataError, match="user 0"):
        TOY.of(users)


def test_as_many_titles_and_texts_as_items():
    with pytest.raises(DataError, match="3 different"):
        Interactions(("a", "b", "c", "a"), ("A",) * 4, ("A.",) * 4, ())
    with pytest.raises(DataError, match="3 titles"):
        Interactions(TOY.items, ("A",) * 3, TOY.texts, ())


def test_minireel_parts_share_films_but_no_seeker():
    catalogue, splits = load_minireel()
    parts = {name: read_minireel_interactions(name) for name in splits}
    rows = load_interactions()
    for name, part in parts.items():
        assert part.items == tuple(movie.id for movie in catalogue)
        assert len(part.users) == len({r.seeker for r in rows if r.split == name and r.liked})
        liked = {(r.seeker, r.item) for r in rows if r.split == name and r.liked}
        assert sum(map(len, part.users)) == len(liked)
    first = [r.item for r in rows if r.seeker == rows[0].seeker and r.liked]
    assert [catalogue[j].id for j in parts["train"].users[0]] == list(dict.fromkeys(first))
    assert catalogue[0].plot[:30] in parts["train"].texts[0]
    with pytest.raises(DataError, match="no part 'dev'"):
        read_minireel_interactions("dev")


FLAGS = "0|1" + "|0" * 17  # Action


def movielens(folder, ratings, films=f"1|Caf\xe9 (1995)|||x|{FLAGS}\n2|Up|||x|{FLAGS}\n"):
    (folder / "u.item").write_text(films, encoding="latin-1")
    (folder / "u.data").write_text(ratings, encoding="latin-1")
    return folder


@pytest.mark.parametrize("separator", "\t|")
def test_movielens_in_both_forms(tmp_path, separator):
    ratings = "10|2|5|30\n9|1|1|7\n10|1|3|20\n".replace("|", separator)
    if separator == "|":
        ratings = "user|item|rating|timestamp\n" + ratings
    found = read_movielens(movielens(tmp_path, ratings))
    assert found.titles == ("Café (1995)", "Up") and found.texts[1] == "Up. Action."
    assert found.users == ((0,), (0, 1)), "users by number, items by time"


@pytest.mark.parametrize(
    ("ratings", "complaint"),
    [
        ("1|1|5|3\n1|7|5|3\n", r"u\.data:2: no item '7'"),
        ("1|1|5|soon\n", r"u\.data:1: not a time: 'soon'"),
        ("1|1|5\n", r"u\.data:1: 3 cells"),
        ("x|1|5|3\n", r"u\.data:1: not a number: 'x'"),
    ],
)
def test_broken_movielens(tmp_path, ratings, complaint):
    with pytest.raises(DataError, match=complaint):
        read_movielens(movielens(tmp_path, ratings))


def test_broken_movielens_films(tmp_path):
    with pytest.raises(DataError, match=r"u\.item:2: item '1' again"):
        read_movielens(movielens(tmp_path, "", f"1|A|||x|{FLAGS}\n1|B|||x|{FLAGS}\n"))
    with pytest.raises(DataError, match=r"u\.item:1: genres"):
        read_movielens(movielens(tmp_path, "", f"1|A|||x|{FLAGS.replace('1', '2')}\n"))


def conversation(form, **more):
    said = [{"text": "have you seen @9 or @10?"}, {"text": "I liked @10 and @9"}]
    films = {"7": "Up  (2009)", "9": "Heat (1995)", "10": "Her"}
    return {"movieMentions": films, "messages": said, "initiatorQuestions": form} | more


def test_what_seekers_of_redial_liked(tmp_path):
    liked, not_liked, unsaid = ({"liked": n} for n in (1, 0, 2))
    rows = [
        conversation({"7": liked, "10": liked, "9": liked}),
        conversation({"7": unsaid, "10": not_liked, "9": liked, "11": liked}),
        conversation([]),
        conversation([], movieMentions=[]),
    ]
    path = tmp_path / "train_data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_redial_forms(path)
    assert found.items == ("7", "9", "10") and found.titles == ("Up (2009)", "Heat (1995)", "Her")
    assert found.users == ((1, 2, 0), (1,), (), ())
    path.write_text(json.dumps(conversation({"7": {}})) + "\n")
    with pytest.raises(DataError, match=r"train_data\.jsonl:1: field 'initiatorQuestions\.7"):
        read_redial_forms(path)


def test_real_redial_forms(shared_data):
    found = read_redial_forms(shared_data / "redial" / "raw_train_partial.jsonl.gz")
    assert len(found.users) == 2270
    assert sum(map(len, found.users)) == 9628


def amazon(folder, sequences, texts="B2 soap\nB1 red brush\n"):
    for name, text in (("sequences", sequences), ("item_text", texts)):
        (folder / f"amazon_beauty_{name}.txt.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def test_amazon(tmp_path):
    found = read_amazon(amazon(tmp_path, "U9 B2 B1 B2\nU1 B1\n"), "beauty")
    assert found.items == ("B1", "B2") and found.texts == ("red brush", "soap")
    assert found.users == ((1, 0), (0,)), "a second time counts for nothing"
    nameless = read_amazon(amazon(tmp_path, "U9 B2\n", "B2 \n"), "beauty")
    assert nameless.texts == ("B2",)
    with pytest.raises(DataError, match=r"sequences\.txt\.gz:2: item 'B7' has no text"):
        read_amazon(amazon(tmp_path, "U9 B2\nU1 B7\n"), "beauty")
    with pytest.raises(DataError, match=r"item_text\.txt\.gz:2: an id and a phrase"):
        read_amazon(amazon(tmp_path, "U9 B2\n", "B2 soap\nB1\n"), "beauty")
    with pytest.raises(DataError, match=r"item_text\.txt\.gz:2: item 'B2' again"):
        read_amazon(amazon(tmp_path, "U9 B2\n", "B2 soap\nB2 brush\n"), "beauty")


def test_real_movielens(shared_data):
    found = read_movielens(shared_data / "interactions" / "ml-100k")
    assert (len(found), len(found.users)) == (1682, 943)
    assert sum(map(len, found.users)) == 100_000
    assert found.texts[0] == "Toy Story (1995). Animation, Children's, Comedy."


@pytest.mark.parametrize(
    ("name", "users", "items"),
    [("beauty", 22_363, 12_101), ("toys", 19_412, 11_924), ("sports", 35_598, 18_357)],
)
def test_real_amazon(shared_data, name, users, items):
    found = read_amazon(shared_data / "interactions", name)
    assert (len(found.users), len(found)) == (users, items)
    assert min(map(len, found.users)) >= 5
