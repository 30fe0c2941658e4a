"""Readers: what they return on hand-written files, and what they say about broken ones."""

from __future__ import annotations

import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pecrs_lib.data import (
    FORMATS,
    Catalogue,
    DataError,
    Dialogue,
    Mention,
    Movie,
    Utterance,
    check_mentions,
    read_catalogue,
    read_dialogues,
    read_inspired,
    read_jsonl,
    read_movie_db,
    read_processed,
    read_redial,
    split_by_dialogue,
    write_catalogue,
    write_jsonl,
)
from pecrs_lib.data.files import json_records
from pecrs_lib.data.readers import likely_format
from pecrs_lib.data.redial import _raw
from pecrs_lib.data.spans import locate, merge_consecutive, split_year


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def spanned(utterance: Utterance) -> list[tuple[str, str | None]]:
    return [
        (m.item, None if m.start is None else utterance.text[m.start : m.end])
        for m in utterance.mentions
    ]


def raw(**changes: Any) -> dict[str, Any]:
    """A conversation in ReDial's raw form; worker 7 seeks, worker 8 recommends."""
    record: dict[str, Any] = {
        "conversationId": "c1",
        "initiatorWorkerId": 7,
        "respondentWorkerId": 8,
        "movieMentions": {"11": "Up  (2009)", "12": "Why Him%3F (2016)", "13": None},
        "initiatorQuestions": {"11": {"suggested": 0}, "12": {"suggested": 1}},
        "respondentQuestions": [],
        "messages": [
            {"senderWorkerId": 7, "text": "I &quot;like&quot; @11"},
            {"senderWorkerId": 7, "text": "and @99, @13"},
            {"senderWorkerId": 8, "text": "Seen @12? @11!"},
        ],
    }
    return {key: value for key, value in (record | changes).items() if value != "absent"}


# ReDial


def test_redial_raw_form(tmp_path: Path) -> None:
    (dialogue,) = read_redial(lines(tmp_path / "train.jsonl", raw()))
    assert dialogue.id == "c1"
    seeker, recommender = dialogue.utterances
    assert (seeker.role, recommender.role) == ("seeker", "recommender")
    assert seeker.text == 'I "like" Up (2009) and @99, @13'
    assert spanned(seeker) == [("11", "Up (2009)"), ("13", "@13")]
    assert recommender.text == "Seen Why Him? (2016)? Up (2009)!"
    assert spanned(recommender) == [("12", "Why Him? (2016)"), ("11", "Up (2009)")]


def test_redial_unmerged_keeps_messages(tmp_path: Path) -> None:
    (dialogue,) = read_redial(lines(tmp_path / "x.jsonl", raw()), merge=False)
    assert [u.role for u in dialogue.utterances] == ["seeker", "seeker", "recommender"]
    assert spanned(dialogue.utterances[1]) == [("13", "@13")]


def test_redial_array_gzip_and_byte_order_mark_read_alike(tmp_path: Path) -> None:
    expected = read_redial(lines(tmp_path / "a.jsonl", raw(), raw(conversationId="c2")))
    array = json.dumps([raw(), raw(conversationId="c2")], indent=1)
    (tmp_path / "a.json").write_text("﻿" + array, encoding="utf-8")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    assert read_redial(tmp_path / "a.json") == expected
    assert read_redial(tmp_path / "a.jsonl.gz") == expected


def test_redial_ids_fall_back_to_the_line(tmp_path: Path) -> None:
    path = lines(tmp_path / "train.jsonl", raw(), raw(), raw(conversationId=None))
    assert [d.id for d in read_redial(path)] == ["c1", "train:2", "train:3"]


def test_redial_without_mentions_or_messages(tmp_path: Path) -> None:
    silent = raw(movieMentions=[], messages=[])
    alone = raw(conversationId=5, messages=[{"senderWorkerId": 8, "text": "😀 @11 \u0007"}])
    empty, one = read_redial(lines(tmp_path / "x.jsonl", silent, alone))
    assert empty.utterances == ()
    assert one.id == "5"
    assert one.utterances == (
        Utterance("recommender", "😀 Up (2009) \u0007", (Mention("11", 2, 11),)),
    )


def test_redial_infers_roles_from_the_forms(tmp_path: Path) -> None:
    unknown = raw(initiatorWorkerId="absent", respondentWorkerId="absent")
    path = lines(tmp_path / "x.jsonl", unknown)
    known = lines(tmp_path / "y.jsonl", raw())
    assert read_redial(path) == read_redial(known)
    swapped = unknown | {"initiatorQuestions": {"11": {"suggested": 1}, "12": {"suggested": 0}}}
    (dialogue,) = read_redial(lines(path, swapped))
    assert [u.role for u in dialogue.utterances] == ["recommender", "seeker"]


def test_redial_refuses_to_guess_roles(tmp_path: Path) -> None:
    tied = raw(
        initiatorWorkerId="absent",
        respondentWorkerId="absent",
        initiatorQuestions={"11": {"suggested": 2}},
    )
    with pytest.raises(DataError, match=r"x\.jsonl:2: field 'initiatorWorkerId'"):
        read_redial(lines(tmp_path / "x.jsonl", raw(), tied))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"messages": "absent"}, "field 'messages': missing"),
        ({"messages": {}}, "field 'messages': a list"),
        ({"respondentWorkerId": 7}, "both initiator and respondent"),
        ({"respondentWorkerId": 9}, r"field 'messages\[2\].senderWorkerId': worker 8"),
        ({"messages": [{"senderWorkerId": 7}]}, r"field 'messages\[0\].text': missing"),
        ({"messages": [{"senderWorkerId": 7, "text": None}]}, r"messages\[0\].text': a string"),
        ({"movieMentions": ["Up"]}, "field 'movieMentions'"),
        ({"movieMentions": {"11": 3}}, "field 'movieMentions.11'"),
    ],
)
def test_redial_says_where_it_is_wrong(tmp_path: Path, changes: dict[str, Any], where: str) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl:1: .*" + where):
        read_redial(lines(tmp_path / "x.jsonl", raw(**changes)))


def test_redial_recovered_form(tmp_path: Path) -> None:
    turns = [
        {"role": "seeker", "text": "Jumanji  (2017) was ok", "movies": [["1", "Jumanji  (2017)"]]},
        {"role": "seeker", "text": "Up", "movies": []},
        {
            "role": "recommender",
            "text": "Up, Up or Upgrade",
            "movies": [["2", "Up"], ["3", "Up"], ["4", "Heat"]],
        },
    ]
    (dialogue,) = read_redial(lines(tmp_path / "v.jsonl", {"conversationId": None, "turns": turns}))
    assert dialogue.id == "v:1"
    assert dialogue.utterances == (
        Utterance("seeker", "Jumanji (2017) was ok Up", (Mention("1", 0, 14),)),
        Utterance(
            "recommender",
            "Up, Up or Upgrade",
            (Mention("2", 0, 2), Mention("3", 4, 6), Mention("4")),
        ),
    )


def test_real_redial_forms_agree(shared_data: Path, redial_dialogues: list[Dialogue]) -> None:
    """The raw and the resolved form of one corpus: the same words by the same roles."""
    dialogues = read_redial(shared_data / "redial" / "raw_train_partial.jsonl.gz")
    resolved = redial_dialogues
    assert (len(dialogues), len(resolved)) == (2270, 10005)
    assert len({d.id for d in resolved}) == 10005

    def words(dialogue: Dialogue) -> tuple[tuple[str, str], ...]:
        return tuple((u.role, " ".join(u.text.split())) for u in dialogue.utterances)

    known = {words(d): d for d in resolved}
    pairs = [(d, known[words(d)]) for d in dialogues]
    assert all(m.start is not None for d in dialogues for u in d.utterances for m in u.mentions)
    same = sum([u.items for u in a.utterances] == [u.items for u in b.utterances] for a, b in pairs)
    # in the others the resolved form lacks mentions, mostly of names without a year
    assert same >= 2100


def test_real_redial_role_inference(shared_data: Path) -> None:
    """The numbers of the module's docstring: roles inferred where they are known."""
    right = wrong = refused = 0
    for record in json_records(shared_data / "redial" / "raw_train_partial.jsonl.gz"):
        truth = _raw(record)
        for key in ("initiatorWorkerId", "respondentWorkerId"):
            del record.value[key]
        try:
            guessed = _raw(record)
        except DataError:
            refused += 1
            continue
        right += guessed == truth
        wrong += guessed != truth
    assert (right, wrong, refused) == (2244, 5, 21)


# INSPIRED

HEADER = "dialog_id\tutt_id\tspeaker\tturn_id\ttext\ttext_with_placeholder\tmovies"


def inspired(path: Path, *rows: tuple[str, str, str, str]) -> Path:
    body = [f"{d}\t{i}\t{s}\t1\t{text}\t-\t{m}" for i, (d, s, text, m) in enumerate(rows)]
    path.write_text("\n".join([HEADER, *body]) + "\n", encoding="utf-8")
    return path


def test_inspired_rows_become_dialogues(tmp_path: Path) -> None:
    path = inspired(
        tmp_path / "dev.tsv",
        ("a", "RECOMMENDER", 'Hi "you"', ""),
        ("a", "SEEKER", "I like QUOTATION_MARKfrozen 2QUOTATION_MARK", "Frozen  2 (2019)"),
        ("a", "SEEKER", "and It", "Avengers: Endgame (2019); It (1990)"),
        ("b", "SEEKER", "Steins gate", "Steins;Gate (2011);Akira ()"),
    )
    a, b = read_inspired(path)
    assert (a.id, b.id) == ("a", "b")
    assert a.utterances[0] == Utterance("recommender", 'Hi "you"')
    assert a.utterances[1].text == 'I like "frozen 2" and It'
    assert spanned(a.utterances[1]) == [
        ("Frozen 2 (2019)", "frozen 2"),
        ("It (1990)", "It"),
        ("Avengers: Endgame (2019)", None),
    ]
    assert spanned(b.utterances[0]) == [("Steins;Gate (2011)", "Steins gate"), ("Akira ()", None)]


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        ([("a", "SEEKER", "x", ""), ("b", "BOT", "x", "")], ":3: field 'speaker'"),
        (
            [("a", "SEEKER", "x", ""), ("b", "SEEKER", "x", ""), ("a", "SEEKER", "x", "")],
            ":4: field 'dialog_id'",
        ),
        ([("", "SEEKER", "x", "")], ":2: field 'dialog_id': missing"),
        ([("a", "SEEKER", "x\ty", "")], ":2: 8 cells, the header has 7"),
        ([], "no rows"),
    ],
)
def test_inspired_says_where_it_is_wrong(
    tmp_path: Path, rows: list[tuple[str, str, str, str]], where: str
) -> None:
    with pytest.raises(DataError, match=where):
        read_inspired(inspired(tmp_path / "dev.tsv", *rows))


def test_inspired_needs_its_columns(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("dialog_id\ttext\n1\thi\n")
    with pytest.raises(DataError, match="field 'speaker': column missing"):
        read_inspired(tmp_path / "x.tsv")


def test_real_inspired(shared_data: Path) -> None:
    """Raw and processed INSPIRED agree in dialogues, merged utterances and mentions."""
    folder = shared_data / "inspired"
    for split, utterances in (("dev", 2053), ("test", 2089)):
        dialogues = read_inspired(folder / f"{split}.tsv")
        processed = read_processed(folder / "pecrs" / f"{split}_data_processed")
        assert len(dialogues) == len(processed) == 99
        assert sum(map(len, dialogues)) == sum(map(len, processed)) == utterances
        mentions = [m for d in dialogues for u in d.utterances for m in u.mentions]
        assert sum(m.start is not None for m in mentions) / len(mentions) > 0.85
        assert not any("QUOTATION_MARK" in u.text for d in processed for u in d.utterances)


# The authors' files


def test_processed_dialogues(tmp_path: Path) -> None:
    path = tmp_path / "dev_data_processed"
    utterances = [
        ("A: QUOTATION_MARKhiQUOTATION_MARK", None),
        ("B: [MOVIE_ID]s, [MOVIE_ID]", [7, 8]),
    ]
    torch.save([("SEEKER", utterances)], path)
    (dialogue,) = read_processed(path)
    assert dialogue.id == "dev_data_processed:0"
    assert dialogue.utterances == (
        Utterance("recommender", '"hi"'),
        Utterance("seeker", "[MOVIE_ID]s, [MOVIE_ID]", (Mention("7", 0, 10), Mention("8", 13, 23))),
    )
    (named,) = read_processed(path, Catalogue((Movie("7", "Up", 2009),)))
    assert spanned(named.utterances[1]) == [("7", "Up (2009)"), ("8", "[MOVIE_ID]")]
    assert named.utterances[1].text == "Up (2009)s, [MOVIE_ID]"


class Evil:
    """Unpickling it would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ([("SEEKER", [("A: [MOVIE_ID]", [1, 2])])], r"\[0\]\[1\]\[0\]': 1 .* 2 ids"),
        ([("SEEKER", [("A: [MOVIE_ID]", None)])], "0 ids"),
        ([("SEEKER", [("hello", None)])], r"\[0\]\[1\]\[0\]\[0\]': must start"),
        ([("SEEKER", [("A: [MOVIE_ID]", [None])])], "an id"),
        ([("SEEKER",)], r"field '\[0\]'"),
        ({"a": 1}, "a list is expected"),
        ([Evil()], "refused"),
    ],
)
def test_processed_says_where_it_is_wrong(tmp_path: Path, content: Any, where: str) -> None:
    torch.save(content, tmp_path / "x")
    with pytest.raises(DataError, match=where):
        read_processed(tmp_path / "x")


def test_not_a_torch_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "y").write_bytes(b"some text")
    for name in "xy":
        with pytest.raises(DataError, match=r"not a torch\.save file"):
            read_processed(tmp_path / name)


def test_movie_db(tmp_path: Path) -> None:
    texts = {
        3: "up (2009) [SEP] Ed Asner, Jordan Nagai [SEP] nan [SEP] Animation, ,  [SEP] A  house",
        1: "it [SEP]  [SEP]  [SEP]  [SEP] nan",
    }
    torch.save(texts, tmp_path / "movie_db")
    catalogue = read_catalogue(tmp_path / "movie_db")
    assert catalogue == read_movie_db(tmp_path / "movie_db")
    assert catalogue.movies == (
        Movie("3", "up", 2009, ("Ed Asner", "Jordan Nagai"), (), ("Animation",), "A house"),
        Movie("1", "it"),
    )
    torch.save({1: "it [SEP] x"}, tmp_path / "movie_db")
    with pytest.raises(DataError, match=r"field '\[1\]': 5 parts .* got 2"):
        read_movie_db(tmp_path / "movie_db")


# This package's own format

TALK = Dialogue(
    "d1",
    (
        Utterance(
            "seeker", "I liked Up (2009) 😀\u2028\t\u0000", (Mention("m1", 8, 17), Mention("m2"))
        ),
        Utterance("recommender", ""),
    ),
)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_jsonl_round_trip(tmp_path: Path, name: str) -> None:
    dialogues = [TALK, Dialogue("empty", ()), Dialogue("ä", (Utterance("seeker", '"\\ \r\n'),))]
    write_jsonl(dialogues, tmp_path / name)
    assert read_jsonl(tmp_path / name) == dialogues
    first = (tmp_path / name).read_bytes()
    write_jsonl(read_jsonl(tmp_path / name), tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


def test_jsonl_integers_are_ids(tmp_path: Path) -> None:
    utterance = {"role": "seeker", "text": "Up", "mentions": [4, {"item": 5}]}
    (dialogue,) = read_jsonl(lines(tmp_path / "x.jsonl", {"id": 3, "utterances": [utterance]}))
    assert dialogue == Dialogue("3", (Utterance("seeker", "Up", (Mention("4"), Mention("5"))),))


def mention(**changes: Any) -> dict[str, Any]:
    return {"id": "d", "utterances": [{"role": "seeker", "text": "Up", "mentions": [changes]}]}


@pytest.mark.parametrize(
    ("record", "where"),
    [
        ([], "at 1"),
        ({"utterances": []}, "field 'id': missing"),
        ({"id": True, "utterances": []}, "field 'id': an id"),
        ({"id": "", "utterances": []}, "field 'id': an id"),
        ({"id": "d", "utterances": [], "turns": 1}, "unknown field 'turns'"),
        (
            {"id": "d", "utterances": [{"role": "bot", "text": ""}]},
            r"utterances\[0\].role': .*'bot'",
        ),
        ({"id": "d", "utterances": [{"role": ["seeker"], "text": ""}]}, r"utterances\[0\].role"),
        ({"id": "d", "utterances": [{"role": "seeker"}]}, r"utterances\[0\].text': missing"),
        ({"id": "d", "utterances": [{"role": "seeker", "text": "\ud83d"}]}, "surrogate"),
        (mention(item="m", start=0), r"utterances\[0\].mentions\[0\].end': missing"),
        (mention(item="m", start=0, end=3), r"mentions\[0\]': \[0, 3\) is no slice"),
        (mention(item="m", start=-1, end=2), "is no slice"),
        (mention(item="m", start=0, end=True), "an integer"),
        (mention(item=1.5), r"mentions\[0\].item': an id"),
        (mention(id="m"), "unknown field 'id'"),
    ],
)
def test_jsonl_says_where_it_is_wrong(tmp_path: Path, record: Any, where: str) -> None:
    if record == []:
        where = r"field '\[0\]': an object"
        path = tmp_path / "x.jsonl"
        path.write_text("[1]")
    else:
        where = r"x\.jsonl:2: .*" + where
        path = lines(tmp_path / "x.jsonl", {"id": "ok", "utterances": []}, record)
    with pytest.raises(DataError, match=where):
        read_jsonl(path)


def test_jsonl_overlap_and_order(tmp_path: Path) -> None:
    spans = [{"item": "a", "start": 0, "end": 4}, {"item": "b", "start": 2, "end": 5}]
    for mentions in (spans, [spans[1] | {"start": 4}, spans[0]]):
        utterance = {"role": "seeker", "text": "12345", "mentions": mentions}
        with pytest.raises(DataError, match=r"x\.jsonl:1: field 'utterances\[0\]\.mentions'"):
            read_jsonl(lines(tmp_path / "x.jsonl", {"id": 1, "utterances": [utterance]}))


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'{"id": 1, "utterances": [], "id": 2}', r"x\.jsonl:1: field 'id': this key occurs twice"),
        (b'{"id": 1, "utterances": []}\n{"id": 1, "utterances": []}', "is the id of line 1"),
        (b'\n{"id": 1,', r"x\.jsonl:2: not JSON"),
        (b"\n \n", "blank lines only"),
        (b'{"id": "\xe9", "utterances": []}', r"x\.jsonl:1: not UTF-8: byte 0xe9"),
        ('{"id": 1}'.encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"id": "a\tb", "utterances": []}', "not JSON"),
    ],
)
def test_jsonl_broken_files(tmp_path: Path, content: bytes, where: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=where):
        read_jsonl(tmp_path / "x.jsonl")


def test_jsonl_writes_nothing_it_could_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with pytest.raises(DataError, match="occurs twice"):
        write_jsonl([TALK, TALK], path)
    with pytest.raises(DataError, match="surrogate"):
        write_jsonl([Dialogue("d", (Utterance("seeker", "\ud83d"),))], path)
    assert not path.exists()


def test_check_mentions() -> None:
    twice = Dialogue(
        "d2", (Utterance("seeker", "", (Mention("m3"), Mention("m2"), Mention("m2"))),)
    )
    assert check_mentions([TALK, twice], Catalogue((Movie("m1", "Up"),))) == [("m2", 3), ("m3", 1)]
    assert check_mentions([TALK], Catalogue((Movie("m1", "Up"), Movie("m2", "It")))) == []


# One door


def test_read_dialogues_reads_every_format(tmp_path: Path) -> None:
    lines(tmp_path / "redial", raw())
    inspired(tmp_path / "inspired", ("a", "SEEKER", "hi", ""))
    torch.save([("SEEKER", [("A: [MOVIE_ID]", [7])])], tmp_path / "pecrs")
    write_jsonl([TALK], tmp_path / "jsonl")
    (tmp_path / "csv").write_text(ROWS)
    catalogue = Catalogue((Movie("7", "Up"),))
    texts = {
        name: read_dialogues(tmp_path / name, name, catalogue)[0].utterances[0].text
        for name in FORMATS
    }
    assert texts["pecrs"] == "Up"
    assert texts["jsonl"] == TALK.utterances[0].text
    for name in FORMATS:  # and each says which format a file of another one is
        for other in set(FORMATS) - {name}:
            with pytest.raises(DataError, match=f"looks like format '{name}'"):
                read_dialogues(tmp_path / name, other)


def test_read_dialogues_on_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match=re.escape(str(tmp_path)) + ": this is a folder"):
        read_dialogues(tmp_path, "redial")
    with pytest.raises(DataError, match="no such file"):
        read_dialogues(tmp_path / "none", "redial")
    with pytest.raises(DataError, match="the file is empty"):
        read_dialogues(tmp_path / "empty", "pecrs")
    with pytest.raises(DataError, match="unknown dialogue format 'tsv'; known are redial"):
        read_dialogues(tmp_path / "empty", "tsv")
    (tmp_path / "x.jsonl.gz").write_bytes(b"no gzip at all")
    with pytest.raises(DataError, match="broken gzip"):
        read_dialogues(tmp_path / "x.jsonl.gz", "jsonl")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DataError, match="no dialogue"):
        read_dialogues(tmp_path / "x.json", "jsonl")


# Catalogues

FILMS = Catalogue(
    (
        Movie(
            "1", "Up", 2009, ("Ed Asner",), ("Pete Docter", "Bob Peterson"), ("Comedy",), "A\nb."
        ),
        Movie("x", 'The "Matrix", again', None, plot="😀 | \t,"),
    )
)


@pytest.mark.parametrize("name", ["c.csv", "c.jsonl", "c.csv.gz", "c.jsonl.gz"])
def test_catalogue_round_trip(tmp_path: Path, name: str) -> None:
    write_catalogue(FILMS, tmp_path / name)
    assert read_catalogue(tmp_path / name) == FILMS


def test_csv_catalogue_is_lenient_where_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(b"\xef\xbb\xbfid,title,year,genres\r\n1,Up,2009.0, Comedy | |Drama\r\n\r\n")
    assert read_catalogue(path).movies == (Movie("1", "Up", 2009, genres=("Comedy", "Drama")),)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("id,title\n1,Up\n1,It\n", r"c\.csv:3: id '1' is the id of line 2"),
        ('id,title,plot\n1,Up,"a\nb"\n2,It\n', r"c\.csv:4: 2 cells, the header has 3"),
        (
            "id,year\n1,2000\n",
            r"c\.csv:1: the column 'title' is missing, add it; the header has id, year",
        ),
        ("id,title,year\n1,Up,soon\n", r"c\.csv:2: field 'year': a year"),
        ("id,title,director\n1,Up,x\n", "unknown column 'director'; known are id, title, year"),
        (
            "name,year,director\nUp,2009,x\n",
            "the columns 'id', 'title' are missing, add them; unknown columns 'name', 'director';",
        ),
        (
            "title,year\nUp,2009\n",
            r"c\.csv:1: the column 'id' is missing, add it; the header has title, year",
        ),
        (
            "\nid;title\n1;Up\n",
            r"c\.csv:2: the separator is ';': save the table with commas or tabs",
        ),
        (
            "1,Up\n2,It\n",
            r"c\.csv:1: the first line must name the columns, id,title,.*it is '1,Up'",
        ),
        ('id\ttitle\n1\t"Up" is a film\n', r"c\.csv:2: not a table: .*quotation mark"),
        ("id,title,id\n1,Up,2\n", "a column occurs twice"),
        ("id,title\n1,\n", "empty title"),
        ("id,title\n,Up\n", "field 'id': an id"),
        ("id,title\n", "no movie"),
        ('id,title\n1,"Up\n', "not a table"),
    ],
)
def test_csv_catalogue_says_where_it_is_wrong(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(DataError, match=where):
        read_catalogue(tmp_path / "c.csv")


def test_catalogue_formats(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("movieId,movieName,nbMentions\n5,Why Him%3F  (2016),3\n6,S,1\n")
    assert read_catalogue(tmp_path / "m.csv").movies == (
        Movie("5", "Why Him?", 2016),
        Movie("6", "S"),
    )
    (tmp_path / "m.tsv").write_text(
        "title\tyear\tgenre\tdirector\tactors\tshort_plot\tlong_plot\n"
        'Frozen 2\t2019\tFamily, Music\tA, B\tC\t\tIt\'s "cold".\n'
        'Frozen 2 (2019)\tN/A\t\t\t\t"Cold\n'
        "Lost\t2004–2010\t\t\t\t\t\n".replace('\t"Cold\n', '\t"Cold\t\n')
    )
    first, second, third = read_catalogue(tmp_path / "m.tsv")
    assert first == Movie(
        "Frozen 2 (2019)",
        "Frozen 2",
        2019,
        ("C",),
        ("A", "B"),
        ("Family", "Music"),
        'It\'s "cold".',
    )
    assert second == Movie("Frozen 2 (2019) #2", "Frozen 2", 2019, plot='"Cold')
    assert third.id == "Lost (2004)"
    with pytest.raises(DataError, match="unknown catalogue format 'xml'"):
        read_catalogue(tmp_path / "m.csv", format="xml")
    with pytest.raises(DataError, match="first line must name the columns"):
        read_catalogue(tmp_path / "m.csv", format="csv")
    (tmp_path / "own.tsv").write_text('id\ttitle\tgenres\n1\t"""Up"", again"\tComedy|Drama\n')
    assert read_catalogue(tmp_path / "own.tsv").movies == (
        Movie("1", '"Up", again', genres=("Comedy", "Drama")),
    )
    (tmp_path / "own.tsv").write_text("name_of_film\tyear\nUp\t2009\n")
    with pytest.raises(DataError, match=r"own\.tsv:2: .*INSPIRED.*'id': a table of your own"):
        read_catalogue(tmp_path / "own.tsv")
    with pytest.raises(DataError, match=r"suffix '\.xls'"):
        read_catalogue(tmp_path / "m.xls")


def test_jsonl_catalogue_says_where_it_is_wrong(tmp_path: Path) -> None:
    path = lines(tmp_path / "c.jsonl", {"id": 1, "title": "Up", "actors": ["x", 3]})
    with pytest.raises(DataError, match=r"c\.jsonl:1: field 'actors\[1\]'"):
        read_catalogue(path)
    path = lines(path, {"id": 1, "title": "Up"}, {"id": "1", "title": "It"})
    with pytest.raises(DataError, match=r"c\.jsonl:2: id '1' is the id of line 1"):
        read_catalogue(path)


def test_csv_cannot_hold_everything(tmp_path: Path) -> None:
    for movie in (Movie("1", "Up", actors=("a|b",)), Movie("1", "Up", plot="a\r\nb")):
        with pytest.raises(DataError, match="movie '1'"):
            write_catalogue(Catalogue((movie,)), tmp_path / "c.csv")
        write_catalogue(Catalogue((movie,)), tmp_path / "c.jsonl")
        assert read_catalogue(tmp_path / "c.jsonl").movies == (movie,)
    assert not (tmp_path / "c.csv").exists()


def test_real_catalogues(shared_data: Path) -> None:
    items = read_catalogue(shared_data / "redial" / "movie_db")
    assert len(items) == 6176
    assert all(movie.title and movie.year is None for movie in items)
    assert not any("nan" in movie.directors for movie in items)
    names = read_catalogue(shared_data / "redial" / "movies_with_mentions.csv")
    assert len(names) == 6924
    assert names[names.row["75828"]] == Movie("75828", "Ninja Assassin", 2009)


# Spans


def test_locate_prefers_long_titles_and_exact_spelling() -> None:
    text = "it was Toy Story 2, toy story; The-Matrix. It!"
    named = [("s", "Toy Story"), ("s2", "Toy Story 2"), ("i", "It"), ("m", "Matrix"), ("u", "Up")]
    assert [(m.item, text[m.start : m.end] if m.end else None) for m in locate(text, named)] == [
        ("s2", "Toy Story 2"),
        ("s", "toy story"),
        ("m", "Matrix"),
        ("i", "It"),
        ("u", None),
    ]


def test_merge_shifts_spans_and_keeps_empty_turns() -> None:
    up = Utterance("seeker", "Up", (Mention("1", 0, 2), Mention("2")))
    turns = [Utterance("seeker", ""), up, up, Utterance("recommender", ""), up]
    merged = merge_consecutive(turns)
    assert [u.role for u in merged] == ["seeker", "recommender", "seeker"]
    assert spanned(merged[0]) == [("1", "Up"), ("2", None), ("1", "Up"), ("2", None)]
    assert merged[0].text == "Up Up"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Up  (2009)", ("Up", 2009)),
        ("The Woman in Black (2012 film)", ("The Woman in Black", 2012)),
        ("Akira ()", ("Akira", None)),
        ("(500) Days of Summer", ("(500) Days of Summer", None)),
        ("1917", ("1917", None)),
        ("(2007)", ("(2007)", None)),
        ("Up (the film)", ("Up (the film)", None)),
    ],
)
def test_split_year(name: str, expected: tuple[str, int | None]) -> None:
    assert split_year(name) == expected


# Splits


def talks(n: int) -> list[Dialogue]:
    return [Dialogue(f"d{i}", (Utterance("seeker", f"talk {i // 2}"),)) for i in range(n)]


def test_split_is_seeded_and_keeps_duplicates_together() -> None:
    dialogues = talks(100)  # in pairs of equal words
    train, valid, record = split_by_dialogue(dialogues, share=0.2, seed=3)
    assert len(train) == 80 and len(valid) == 20
    assert {d.id for d in train} | {d.id for d in valid} == {d.id for d in dialogues}
    assert not {d.utterances for d in train} & {d.utterances for d in valid}
    assert (record["seed"], record["share"], record["train"], record["valid"]) == (3, 0.2, 80, 20)
    again = split_by_dialogue(dialogues[::-1], share=0.2, seed=3)
    assert again.record == record  # the order of the input does not matter
    assert again.valid == valid[::-1]
    other = split_by_dialogue(dialogues, share=0.2, seed=4)
    assert other.record["valid_ids_sha256"] != record["valid_ids_sha256"]


def test_split_refuses_an_empty_side() -> None:
    for share in (0.0, 1.0, -0.1):
        with pytest.raises(DataError, match="share"):
            split_by_dialogue(talks(10), share=share)
    with pytest.raises(DataError, match=r"1 distinct dialogues .* at least 2 are needed"):
        split_by_dialogue(talks(2))
    train, valid, _ = split_by_dialogue(talks(4), share=0.99)
    assert (len(train), len(valid)) == (2, 2)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv.gz", ".jsonl.gz"])
def test_a_catalogue_of_nothing_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"films{suffix}"
    path.write_bytes(gzip.compress(b"") if suffix.endswith("gz") else b"")
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_catalogue(path)


ROWS = """dialogue,role,text,items
d1,seeker,"I liked Up (2009), and its score",m1
d1,recommender,"Then see brave,
or ""Her""!",m3|m2
d2,seeker,hello,
d2,recommender,Something with no name,m1 | m9
"""


def films() -> Catalogue:
    named = (("m1", "Up", 2009), ("m2", "Brave", 2012), ("m3", "Her", 2013))
    return Catalogue(tuple(Movie(*film) for film in named))


def test_dialogues_as_a_table(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(ROWS)
    first, second = read_dialogues(path, "csv", films())
    assert [u.role for u in first.utterances] == ["seeker", "recommender"]
    named = [[(m.item, u.text[m.start : m.end]) for m in u.mentions] for u in first.utterances]
    assert named == [[("m1", "Up (2009)")], [("m2", "brave"), ("m3", "Her")]]
    assert second.utterances[1].mentions == (Mention("m1"), Mention("m9"))
    assert second.utterances[0].mentions == ()
    plain = read_dialogues(path, "csv")  # without titles there is nothing to look for
    assert [u.items for u in plain[0].utterances] == [("m1",), ("m3", "m2")]
    assert likely_format(path) == "csv"
    with pytest.raises(DataError, match="looks like format 'csv'"):
        read_dialogues(path, "jsonl")
    tabs = tmp_path / "own.tsv"
    rows = csv.reader(ROWS.splitlines(keepends=True))
    with tabs.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    assert read_dialogues(tabs, "csv", films()) == [first, second]
    with pytest.raises(DataError, match="looks like format 'csv'"):
        read_dialogues(tabs, "inspired")


def test_roles_have_two_names_each(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(
        "dialogue,role,text,items\nd,User,a,\nd,SYSTEM,b,\nd,seeker,c,\nd,recommender,d,\n"
    )
    said = [
        {"role": r, "text": t}
        for r, t in zip(("User", "SYSTEM", "seeker", "recommender"), "abcd", strict=True)
    ]
    (tmp_path / "own.jsonl").write_text(json.dumps({"id": "d", "utterances": said}))
    for name in ("csv", "jsonl"):
        (dialogue,) = read_dialogues(tmp_path / f"own.{name}", name)
        assert [u.role for u in dialogue.utterances] == ["seeker", "recommender"] * 2


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("dialogue,role,text\nd1,seeker,hi\n", (":1: ", "'items' is missing")),
        ("dialogue,role,text,items,when\nd1,seeker,hi,,1\n", (":1: ", "when")),
        ("d1,seeker,hi,m1\n", (":1: ", "dialogue,role,text,items", "'d1,seeker,hi,m1'")),
        ("dialogue;role;text;items\nd1;seeker;a, b;\n", (":1: ", "';'", "commas or tabs")),
        (
            "dialogue,role,text,items\nd1,assistant,hi,\n",
            (":2: ", "'role'", "seeker (or user)", "recommender (or system)", "'assistant'"),
        ),
        ("dialogue,role,text,items\n,seeker,hi,\n", (":2: ", "dialogue")),
        (
            "dialogue,role,text,items\na,seeker,x,\nb,seeker,y,\na,recommender,z,\n",
            (":4: ", "'a'", "line 2"),
        ),
        ("dialogue,role,text,items\n", ("no dialogue",)),
    ],
)
def test_what_is_wrong_with_a_table_of_dialogues(tmp_path: Path, rows: str, words: Any) -> None:
    path = tmp_path / "own.csv"
    path.write_text(rows)
    with pytest.raises(DataError) as caught:
        read_dialogues(path, "csv", films())
    for word in (str(path), *words):
        assert word in str(caught.value)
