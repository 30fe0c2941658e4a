"""A data set by name."""

from __future__ import annotations

import pytest

from pecrs_lib.data import CORPORA, Catalogue, DataError, Dialogue, Movie, Utterance, load_corpus
from pecrs_lib.data import corpora as module


def test_minireel_needs_no_network():
    catalogue, splits = load_corpus()
    assert len(catalogue) == 600
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 3200, "valid": 300, "test": 500
    }  # fmt: skip


def test_another_name_is_refused():
    with pytest.raises(DataError, match="'imdb'; choose one of minireel, inspired, redial"):
        load_corpus("imdb")


@pytest.mark.parametrize("name", CORPORA[1:])
def test_downloaded_sets_have_three_parts(name, monkeypatch):
    files = {f"{part}_data_processed": part for part in ("train", "dev", "test")}
    asked = []

    def fetch(dataset):
        asked.append(dataset)
        return files | {"movie_db": "db"}

    def read(part, catalogue):
        return [Dialogue(f"{part}{k}", (Utterance("seeker", f"{part} {k}"),)) for k in range(20)]

    monkeypatch.setattr(module, "fetch", fetch)
    monkeypatch.setattr(module, "read_movie_db", lambda path: Catalogue((Movie("1", "Up"),)))
    monkeypatch.setattr(module, "read_processed", read)
    _, splits = load_corpus(name)
    assert asked == [f"{name}-pecrs"]
    ids = {part: {d.id for d in dialogues} for part, dialogues in splits.items()}
    assert set(ids) == {"train", "valid", "test"} and all(ids.values())
    assert not ids["train"] & ids["valid"] and all(i.startswith("test") for i in ids["test"])
    assert all(i.startswith("dev" if name == "inspired" else "train") for i in ids["valid"])
