"""Checkpoints, caches and saved results that are missing, cut short, or changed in one bit."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pecrs_lib.checkpoint import CheckpointError
from pecrs_lib.data import DataError
from pecrs_lib.data.storage import SUMS, check_sums, whole_file, write_sums, write_whole
from pecrs_lib.evaluation import Predictions
from pecrs_lib.model import PECRS
from pecrs_lib.zero_shot.answers import AnswerCache, Question
from tests.test_training import trainer

AREA = "Faults"
FLIPS = 8  # bits of every file, one at a time


@pytest.fixture(scope="module")
def saved(tiny_backbone, catalogue, dialogues, tmp_path_factory):
    """A run that is trained, and its trainer."""
    out = tmp_path_factory.mktemp("saved")
    run = trainer(tiny_backbone, catalogue, dialogues, out, epochs=1)
    run.fit()
    return run


def damages(path: Path, rng: random.Random):
    """(how, a function that damages the file in this way)."""
    whole = path.read_bytes()
    yield "missing", path.unlink
    for size in (0, len(whole) // 2, len(whole) - 2):
        yield "cut short", lambda size=size: path.write_bytes(whole[:size])
    for _ in range(FLIPS):
        at, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        changed = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
        yield "a bit flipped", lambda changed=changed: path.write_bytes(changed)


def test_a_damaged_checkpoint_is_refused_and_its_file_named(saved, tmp_path, tried):
    rng = random.Random(0)
    count = 0
    names = [p.relative_to(saved.out / "last") for p in (saved.out / "last").rglob("*")]
    for name in (n for n in names if (saved.out / "last" / n).is_file()):
        kinds = sum(1 for _ in damages(saved.out / "last" / name, rng))
        for k in range(kinds):
            saved_folder = saved.out / "last"
            folder = tmp_path / "last"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(saved_folder, folder)
            how, damage = list(damages(folder / name, random.Random(k)))[k]
            damage()
            if name.name == SUMS and (how == "missing" or not (folder / name).read_bytes()):
                continue  # as in checkpoints of older versions
            with pytest.raises((DataError, FileNotFoundError)) as caught:
                PECRS.from_pretrained(folder)
            assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
            if name.name != SUMS:
                assert name.name in str(caught.value)
            saved.out, before = tmp_path, saved.out
            try:
                with pytest.raises(CheckpointError, match="remove the folder") as caught:
                    saved.resume()
            finally:
                saved.out = before
            assert "\n" not in str(caught.value)
            count += 1
    assert count > 60
    tried(
        "checkpoint with a file missing, cut short, or one bit flipped", count,
        "refused; one line names the file",
    )  # fmt: skip


def test_checksums_are_those_of_sha256sum_and_tell_what_is_wrong(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "empty").write_bytes(b"")
    (tmp_path / "word").write_bytes(b"abc")
    write_sums(tmp_path)
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (tmp_path / SUMS).read_text() == f"{empty}  a/empty\n{abc}  word\n"
    check_sums(tmp_path)
    for line in (f"{abc}  ../word", f"{abc}  /etc/passwd", "short  word", abc):
        (tmp_path / SUMS).write_text(f"{line}\n")
        with pytest.raises(DataError, match="SHA256SUMS:1"):
            check_sums(tmp_path)
    (tmp_path / SUMS).unlink()
    check_sums(tmp_path)


def test_a_damaged_cache_of_item_features_is_made_anew(saved, catalogue, tmp_path, tried):
    model, right = saved.raw_model, saved.features.values.clone()

    def features():
        return model.item_features(catalogue, cache_dir=tmp_path).values

    assert torch.equal(features(), right)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    ways = 0
    for _, damage in damages(path, random.Random(1)):
        damage()
        assert torch.equal(features(), right)
        assert path.read_bytes() == good and [*tmp_path.iterdir()] == [path]
        ways += 1
    tried("item cache missing, cut short, or one bit flipped", ways, "noticed and made anew")


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "x"
    write_whole(path, "before")
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, whole_file(path) as partial:
            partial.write_text("half")
            raise error
        assert path.read_text() == "before" and [*tmp_path.iterdir()] == [path]
    write_whole(path, b"after")
    assert path.read_bytes() == b"after"
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "no" / "x", "")
    assert caught.value.filename == str(tmp_path / "no" / "x")


def test_damaged_predictions_are_named(tmp_path):
    n = 40
    ranks = np.arange(1.0, n + 1)
    rows = Predictions("some", *(
        {"item": np.array(["m1"] * n), "novel": np.ones(n, bool), "rank": ranks}.get(
            f, np.arange(n)
        )
        for f in list(Predictions.__dataclass_fields__)[1:]
    ))  # fmt: skip
    path = tmp_path / "p.npz"
    rows.save(path)
    assert len(Predictions.load(path).rank) == n
    refused = 0
    for how, damage in list(damages(path, random.Random(2)))[1:]:
        damage()
        try:
            Predictions.load(path)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
        else:  # bits of names and times in the archive that nobody reads
            assert how == "a bit flipped"
    assert refused > FLIPS // 2


def test_a_cut_or_damaged_answer_cache(tmp_path, tried):
    path = tmp_path / "answers.jsonl"
    cache = AnswerCache(path)
    for k in range(20):
        cache.put(AnswerCache.key(Question(0, k, (("user", str(k)),)), {}), f"answer é {k}")
    whole = path.read_bytes()
    cuts = range(0, len(whole) + 1, 7)
    for cut in cuts:  # whatever a crash leaves
        path.write_bytes(whole[:cut])
        again = AnswerCache(path)
        assert len(again) == whole[:cut].count(b"\n")
        again.put("new", "one")
        assert AnswerCache(path).get("new") == "one"
    path.write_bytes(b'{"key": "a", "answer": "\xff"}\n')
    with pytest.raises(DataError, match=r"answers\.jsonl:1"):
        AnswerCache(path)
    tried("answer cache cut off anywhere", len(cuts), "whole answers are kept, the rest dropped")
