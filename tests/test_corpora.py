"""A data set by name."""

from __future__ import annotations

import pytest

from pecrs_lib.data import CORPORA, Catalogue, DataError, Dialogue, Movie, Utterance, load_corpus
from pecrs_lib.data import corpora as module
from pecrs_lib.data.local import load_folder


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


SIZES = {
    "inspired": {"train": 801, "valid": 99, "test": 99},
    "redial": {"train": 8102, "valid": 900, "test": 1003},
}


@pytest.mark.parametrize("name", SIZES)
def test_folders_have_the_same_three_parts(name, shared_data):
    catalogue, splits = load_folder(name, shared_data / name)
    assert {part: len(dialogues) for part, dialogues in splits.items()} == SIZES[name]
    ids = [{d.id for d in dialogues} for dialogues in splits.values()]
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])
    named = [m.item for d in splits["test"] for u in d.utterances for m in u.mentions]
    assert sum(item in catalogue for item in named) > 0.95 * len(named)


@pytest.mark.parametrize(
    ("name", "folder", "problem"),
    [
        ("minireel", ".", "'minireel' is not read from a folder"),
        ("redial", "none", "none: no such folder"),
        ("redial", "", "movie_db: no such file"),
        ("inspired", "", "id2movie.jsonl.gz: no such file"),
    ],
)
def test_a_folder_in_no_such_layout_is_refused(name, folder, problem, tmp_path):
    with pytest.raises(DataError, match=problem):
        load_folder(name, tmp_path / folder)
