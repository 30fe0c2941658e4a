"""Whatever a file holds: a reader gives data, or one error that names the file."""

from __future__ import annotations

import gzip
import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pecrs_lib.data import (
    Catalogue,
    DataError,
    Dialogue,
    Movie,
    Utterance,
    match_titles,
    read_catalogue,
    read_csv,
    read_jsonl,
    write_catalogue,
    write_jsonl,
)
from pecrs_lib.data.inspired import read_inspired
from pecrs_lib.data.local import recovered_catalogue
from pecrs_lib.data.processed import read_movie_db, read_processed
from pecrs_lib.data.redial import read_redial
from pecrs_lib.data.spans import merge_consecutive, split_year
from pecrs_lib.rating.judgements import read_judgements
from pecrs_lib.rating.replies import read_replies
from pecrs_lib.reproduction.runs import read_runs
from pecrs_lib.transcript import find_items, read_transcript
from pecrs_lib.zero_shot.answers import RecordedAnswers
from tests.properties.strategies import (
    CATALOGUE,
    anything,
    dialogues,
    ids,
    mostly,
    record,
    roles,
    said,
    text,
    utterances,
)

AREA = "Hostile and broken data"


def lines(records):
    """As a file; half of a surrogate pair is escaped, as JSON allows."""
    return "\n".join(json.dumps(r) for r in records).encode()


def sound(found):
    """What a reader gives can be used: every dialogue, utterance and mention holds together."""
    if isinstance(found, Catalogue):
        assert len(found.row) == len(found)
        json.dumps([m.id + m.title + m.plot for m in found]).encode()
    for dialogue in found if isinstance(found, list) else ():
        for utterance in getattr(dialogue, "utterances", ()):
            Utterance(utterance.role, utterance.text, utterance.mentions)
            utterance.text.encode()


def data_or_error(read, path, content, *, line=False):
    path.write_bytes(content)
    try:
        found = read(path)
    except DataError as error:
        assert str(path) in str(error), error
        assert len(str(error)) < 2_000
        if line:
            where = str(error).replace(str(path), "", 1)
            assert re.match(r":\d+: |: field '|: the file |: no |: a |: not JSON", where), error
        return None
    sound(found)
    return found


mention = st.one_of(
    ids, record(item=ids, start=st.integers(0, 5), end=st.integers(1, 9), drop=False)
)
own = record(
    id=ids,
    utterances=st.lists(
        mostly(record(role=roles, text=said, mentions=st.lists(mostly(mention), max_size=2))),
        max_size=3,
    ),
)
raw = record(
    conversationId=ids,
    initiatorWorkerId=st.sampled_from([1, "1", 0]), respondentWorkerId=st.just(2),
    movieMentions=st.one_of(
        st.just([]), st.dictionaries(st.sampled_from(["1", "2", "99999"]), mostly(said), max_size=3)
    ),
    messages=st.lists(
        mostly(record(senderWorkerId=st.sampled_from([1, 2]), text=said)), max_size=4
    ),
    initiatorQuestions=anything, respondentQuestions=anything,
)  # fmt: skip
turns = record(
    conversationId=ids,
    turns=st.lists(
        mostly(
            record(
                role=roles, text=said,
                movies=st.lists(mostly(st.tuples(ids, said).map(list)), max_size=2),
            )
        ),
        max_size=4,
    ),
)  # fmt: skip


@given(st.lists(mostly(own), max_size=4))
def test_own_format(place: Path, records):
    """this package's dialogues, any field wrong: read, or refused by file, line and field"""
    data_or_error(read_jsonl, place / "own.jsonl", lines(records), line=True)


@given(st.lists(dialogues, max_size=4, unique_by=lambda d: d.id))
def test_own_format_round_trip(place: Path, made):
    """dialogues of any text written and read again: equal"""
    assume(made)
    for name in ("x.jsonl", "x.jsonl.gz"):
        write_jsonl(made, place / name)
        assert read_jsonl(place / name) == made


@given(st.lists(mostly(raw), max_size=3))
def test_redial_raw(place: Path, records):
    """ReDial as published: read, or refused by file, line and field"""
    data_or_error(read_redial, place / "raw.jsonl", lines(records), line=True)


@given(st.lists(mostly(turns), max_size=3))
def test_redial_recovered(place: Path, records):
    """ReDial with speakers resolved: read, or refused by file, line and field"""
    data_or_error(read_redial, place / "turns.jsonl", lines(records), line=True)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["d1", "d2", ""]), st.sampled_from(["SEEKER", "RECOMMENDER", "seeker"]),
            said, said,
        ),
        max_size=6,
    ),
    st.booleans(),
)  # fmt: skip
def test_inspired(place: Path, rows, clean):
    """INSPIRED's tables, tabs and line breaks in cells: read, or refused by file and line"""
    cells = [[re.sub(r"[\t\n]", " ", c) if clean else c for c in row] for row in rows]
    content = "\n".join(
        "\t".join(row) for row in [["dialog_id", "speaker", "text", "movies"], *cells]
    )
    found = data_or_error(read_inspired, place / "x.tsv", content.encode(), line=True)
    if found and clean:
        assert sum(len(d.utterances) for d in found) <= len(rows)


@given(
    mostly(
        st.lists(
            mostly(
                st.tuples(
                    st.just("SEEKER"),
                    st.lists(
                        mostly(
                            st.tuples(
                                st.builds(str.__add__, st.sampled_from(["A: ", "B: ", ""]), said),
                                st.one_of(st.none(), st.lists(mostly(ids), max_size=2)),
                            )
                        ),
                        max_size=3,
                    ),
                )
            ),
            max_size=3,
        )
    ),
    st.booleans(),
)
def test_processed(place: Path, content, titles):
    """the paper authors' dialogues, wrong in any part: read, or refused by file and field"""
    path = place / "processed"
    torch.save(content, path)
    known = Catalogue((*CATALOGUE, Movie("99", ""))) if titles else None
    data_or_error(lambda p: read_processed(p, known), path, path.read_bytes())


@given(
    mostly(
        st.dictionaries(
            st.one_of(ids, st.integers(0, 3), st.sampled_from("0123")),
            mostly(st.lists(said, min_size=4, max_size=6).map("[SEP]".join)), max_size=4,
        )
    )
)  # fmt: skip
def test_movie_db(place: Path, content):
    """the paper authors' item texts, ids of both kinds: read, or refused by file and field"""
    path = place / "movie_db"
    torch.save(content, path)
    data_or_error(read_movie_db, path, path.read_bytes())


names = st.lists(said, max_size=3)
movie = record(
    id=ids, title=said, year=st.integers(1900, 2030), actors=names, directors=names, genres=names,
    plot=said,
)  # fmt: skip


@given(st.lists(mostly(movie), max_size=4))
def test_jsonl_catalogue(place: Path, records):
    """catalogues of objects: read, or refused by file, line and field"""
    data_or_error(read_catalogue, place / "c.jsonl", lines(records), line=True)


@given(st.lists(st.lists(said, min_size=7, max_size=7), max_size=4), st.sampled_from([",", "\t"]))
def test_table_catalogue(place: Path, rows, separator):
    """catalogues as tables, quotes and line breaks in cells: read, or refused by file"""
    head = ["id", "title", "year", "actors", "directors", "genres", "plot"]
    content = "\n".join(separator.join(row) for row in [head, *rows]).encode()
    name = "c.csv" if separator == "," else "c.tsv"
    data_or_error(read_catalogue, place / name, content)


roles = st.one_of(st.sampled_from(["seeker", "recommender"]), said)


@given(st.lists(st.tuples(st.sampled_from("ab"), roles, said, said), max_size=5))
def test_table_of_dialogues(place: Path, rows):
    """dialogues as tables, quotes and line breaks in cells: read, or refused by file"""
    cells = [["dialogue", "role", "text", "items"], *rows]
    content = "\n".join(",".join(row) for row in cells).encode()
    data_or_error(lambda path: read_csv(path, CATALOGUE), place / "d.csv", content)


@st.composite
def catalogues(draw):
    size = draw(st.integers(1, 4))
    name = said.filter(lambda s: s.strip())
    return Catalogue(
        tuple(
            Movie(
                f"{draw(text)}{k}", draw(name), draw(st.one_of(st.none(), st.integers(1000, 9999))),
                *(tuple(draw(st.lists(name, max_size=2))) for _ in range(3)), draw(said),
            )
            for k in range(size)
        )
    )  # fmt: skip


@given(catalogues())
def test_catalogue_round_trip(place: Path, made):
    """catalogues of any text written and read again: equal, or refused and not written"""
    write_catalogue(made, place / "r.jsonl")
    assert read_catalogue(place / "r.jsonl") == made
    (place / "r.csv").unlink(missing_ok=True)
    try:
        write_catalogue(made, place / "r.csv")
    except DataError as error:
        assert "r.csv" in str(error) and not (place / "r.csv").exists()
    else:
        assert read_catalogue(place / "r.csv") == made


def questions(path):
    return RecordedAnswers.read(path, path, "x")


READERS = [
    read_jsonl, read_csv, read_redial, read_inspired, read_processed, read_movie_db,
    read_catalogue, recovered_catalogue, read_replies, read_judgements, questions,
    *(lambda p, f=f: read_catalogue(p, f) for f in ("csv", "jsonl", "inspired", "redial")),
]  # fmt: skip
SUFFIXES = ["", ".jsonl", ".jsonl.gz", ".tsv", ".csv", ".csv.gz"]


@given(
    st.sampled_from(READERS), st.sampled_from(SUFFIXES), st.binary(max_size=200),
    st.sampled_from(["", "gzip", "utf-16", "latin-1", "bom"]),
)  # fmt: skip
def test_any_bytes(place: Path, reader, suffix, content, wrapped):
    """any bytes, gzipped or in another encoding, to every reader: read, or refused by file"""
    if wrapped in ("utf-16", "latin-1"):
        content = content.decode("latin-1").encode(wrapped)
    content = b"\xef\xbb\xbf" + content if wrapped == "bom" else content
    content = gzip.compress(content) if wrapped == "gzip" else content
    data_or_error(reader, place / f"bytes{suffix}", content)


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    """A valid file of every format, and its reader."""
    folder = tmp_path_factory.mktemp("good")
    made = [Dialogue("d", (Utterance("seeker", "hi é"), Utterance("recommender", "see it")))]
    write_jsonl(made, folder / "own.jsonl")
    write_jsonl(made, folder / "own.jsonl.gz")
    write_catalogue(CATALOGUE, folder / "c.jsonl")
    write_catalogue(CATALOGUE, folder / "c.csv")
    torch.save([("SEEKER", [("A: hi", None), ("B: [MOVIE_ID]", [1])])], folder / "processed")
    torch.save({1: "Up (2009)[SEP]a[SEP]b[SEP]c[SEP]d"}, folder / "movie_db")
    readers = [
        read_jsonl,
        read_jsonl,
        read_catalogue,
        read_catalogue,
        read_processed,
        read_movie_db,
    ]
    paths = ["own.jsonl", "own.jsonl.gz", "c.jsonl", "c.csv", "processed", "movie_db"]
    for reader, name in zip(readers, paths, strict=True):
        assert reader(folder / name)
    return [(r, (folder / n).read_bytes(), n) for r, n in zip(readers, paths, strict=True)]


@given(
    st.integers(0, 5), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)),
                                min_size=1, max_size=3), st.floats(0, 1),
)  # fmt: skip
def test_changed_bytes(place: Path, good_files, k, changes, keep):
    """a few bytes of a good file changed, and the file cut: read, or refused by file"""
    reader, content, name = good_files[k]
    changed = bytearray(content)
    for at, byte in changes:
        changed[int(at * len(changed))] = byte
    size = len(changed) if keep > 0.5 else int(2 * keep * len(changed))
    data_or_error(reader, place / name, bytes(changed[:size]))


@given(st.dictionaries(st.just("a"), anything), st.binary(max_size=20))
def test_run_files(place: Path, record, garbage):
    """result files of runs, whole or garbage: read, or refused by file"""
    folder = place / "runs"
    folder.mkdir(exist_ok=True)
    for content in (json.dumps(record).encode(), garbage):
        data_or_error(lambda path: read_runs(path.parent), folder / "r.json", content)


@given(st.lists(utterances(), max_size=8))
def test_merging(said_by_both):
    """neighbouring utterances merged: speakers alternate, and every mention spans the same words"""
    merged = merge_consecutive(said_by_both)
    assert all(a.role != b.role for a, b in itertools.pairwise(merged))

    def spelled(us):
        return [
            (u.role, m.item, m.start is not None and u.text[m.start : m.end])
            for u in us
            for m in u.mentions
        ]

    assert spelled(merged) == spelled(said_by_both)
    assert sum(map(len, (u.text for u in merged))) >= sum(map(len, (u.text for u in said_by_both)))


@given(said)
def test_titles_in_text(words):
    """any text searched for titles: spans do not overlap and spell the title"""
    found = find_items(words, CATALOGUE)
    Utterance("seeker", words, found)  # raises if spans overlap or leave the text
    for mention in found:
        film = CATALOGUE[CATALOGUE.row[mention.item]]
        (match,) = match_titles([words[mention.start : mention.end]], CATALOGUE, threshold=101)
        assert CATALOGUE[match.row] == film


@given(st.one_of(said, st.lists(st.builds("{}: {}".format, roles, said)).map("\n".join)))
def test_transcripts(words):
    """any text as a transcript: read, or refused by name and line"""
    try:
        found = read_transcript(words, CATALOGUE, "stdin")
    except DataError as error:
        assert str(error).startswith("stdin:")
    else:
        assert found.utterances


@given(catalogues())
def test_matching(made):
    """every title of any catalogue looked up: it is among the rows found"""
    for row, (film, match) in enumerate(
        zip(made, match_titles([m.name for m in made], made), strict=True)
    ):
        if split_year(film.name)[0].strip():
            assert row in match.rows or made[match.rows[0]].name.casefold() != film.name
