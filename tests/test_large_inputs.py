"""Inputs far larger than any data set: read and cut in a time that grows with their size."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from pecrs_lib.context import DialogueTokenizer, windows_of
from pecrs_lib.data import (
    Catalogue,
    DataError,
    Dialogue,
    Movie,
    Utterance,
    read_catalogue,
    read_jsonl,
    write_catalogue,
)
from pecrs_lib.data.minireel import bundled_backbone
from pecrs_lib.data.spans import merge_consecutive
from pecrs_lib.transcript import find_items
from pecrs_lib.zero_shot.titles import TitleMatcher
from tests.toys import toy_catalogue

AREA = "Hostile and broken data"
CATALOGUE = toy_catalogue(12)


@pytest.fixture(scope="module")
def tok():
    tokenizer = AutoTokenizer.from_pretrained(bundled_backbone("reel-small"))
    return DialogueTokenizer(tokenizer, len(tokenizer))


def test_a_hundred_thousand_turns(tmp_path, tok, tried):
    turns = 100_000
    said = [{"role": ("seeker", "recommender")[k % 2], "text": f"hi {k}"} for k in range(turns)]
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"id": "d", "utterances": said}) + "\n")
    (dialogue,) = read_jsonl(path)
    assert len(dialogue) == turns and len(merge_consecutive(dialogue.utterances)) == turns
    alike = [Utterance("seeker", "hi")] * turns
    assert len(merge_consecutive(alike)[0].text) == 3 * turns - 1
    windows = windows_of(dialogue, 0, CATALOGUE, tok)
    assert sum(len(w.turns) for w in windows) == turns // 2
    tried("a dialogue of 100,000 turns", 1, "read, merged and cut into windows")


def test_an_utterance_of_a_megabyte(tok, tried):
    texts = ["a" * 2**20, "the film " * 2**17, "\u202e" * 2**19, "🎬" * 2**18, " " * 2**20]
    for text in texts:
        (window,) = windows_of(Dialogue("d", (Utterance("seeker", text),)), 0, CATALOGUE, tok)
        assert len(window.token) <= 1 + 192
    tried("an utterance of 1 MB", len(texts), "cut to its tokens, and counted as cut")


@pytest.mark.parametrize("piece", ["Aa (1999) ", "1. a\n", "(1999) ", '"x" ', "(", "*", " "])
def test_long_texts_are_searched_in_linear_time(piece):
    """Quadratic search took minutes here."""
    text = piece * (60_000 // len(piece))
    assert find_items(text, CATALOGUE) == ()
    assert not any(t.row is not None for t in TitleMatcher(CATALOGUE).in_lists([text])[0])


def test_titles_in_long_texts():
    film = CATALOGUE[3]
    text = f'"{film.title}" and ' * 2_000
    assert {m.item for m in find_items(text, CATALOGUE)} == {film.id}
    assert len(find_items(text, CATALOGUE)) == 2_000


def test_json_nested_too_deep_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    for depth in (10, 500, 900, 990, 5_000, 100_000):
        path.write_text('{"id": ' + "[" * depth + "]" * depth + ', "utterances": []}\n')
        with pytest.raises(DataError, match=r"x\.jsonl:1"):
            read_jsonl(path)


def test_cells_of_any_length_with_line_breaks(tmp_path):
    made = Catalogue((Movie("1", 'a "b", c\nd', 1999, plot="x\n" * 200_000),))
    write_catalogue(made, tmp_path / "c.csv")
    assert read_catalogue(tmp_path / "c.csv") == made


def test_a_blank_title_is_refused_and_does_no_harm(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"id": 1, "title": " "}\n')
    with pytest.raises(DataError, match="empty title"):
        read_catalogue(tmp_path / "c.jsonl")
    assert TitleMatcher(Catalogue((Movie("1", " "),))).in_lists(["1. Up"])
