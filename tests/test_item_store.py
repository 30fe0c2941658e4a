"""Features and vectors made on disk are those made in memory, bit for bit, in less memory."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import tracemalloc
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from pecrs_lib.data import Catalogue
from pecrs_lib.encoding import encode_items
from pecrs_lib.item_store import StoredTokens, store_tokens, store_vectors, stream_features
from pecrs_lib.items import tokenize_items
from pecrs_lib.memory import mapped
from pecrs_lib.model import PECRS
from tests.test_items import ToyLM, toy_tokens
from tests.test_one_pass import build


@pytest.fixture(scope="module")
def model(tiny_backbone, catalogue) -> PECRS:
    return build(tiny_backbone, catalogue)[0]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr("pecrs_lib.item_store.BLOCK", 7)


@pytest.mark.parametrize("fields", [None, ["title", "plot"]])
def test_stored_tokens_are_the_tokens(model, catalogue, fields, tmp_path):
    texts = {"item_tokens": 12} | ({"fields": fields} if fields else {})
    tokens, cut = tokenize_items(catalogue, model.backbone.tokenizer, **texts)
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        stored = store_tokens(iter(catalogue), model.backbone.tokenizer, file, **texts)
        assert [list(t) for t in stored] == tokens and stored.cut == cut > 0
        assert isinstance(stored.ids, np.memmap) and len(stored) == len(catalogue) > 3 * 7
        assert [list(t) for t in stored[2:9:3]] == tokens[2:9:3]
    with pytest.raises(IndexError, match="item 24 of 24"):
        stored[24]


def test_streamed_features_and_vectors_are_those_in_memory(model, catalogue, tmp_path):
    plain = model.item_features(catalogue)
    streamed = stream_features(model, (movie for movie in catalogue), tmp_path / "new")
    assert torch.equal(plain.values, streamed.values)
    assert torch.equal(plain.offset, streamed.offset)
    v = store_vectors(model, streamed, tmp_path / "vectors")
    assert torch.equal(v, model.encode_catalogue(plain))
    assert np.array_equal(np.fromfile(tmp_path / "vectors", np.float32), v.numpy().ravel())
    v.zero_()
    assert np.fromfile(tmp_path / "vectors", np.float32).any(), "the file stays as it is"
    assert len(list((tmp_path / "new").iterdir())) == 1, "the token ids are gone"


@pytest.mark.parametrize("padding", [False, True])
def test_vectors_written_in_chunks_are_the_same(model, catalogue, padding, monkeypatch):
    monkeypatch.setattr(model.items, "padding", padding)
    features = model.item_features(catalogue)
    with torch.no_grad():
        for chunk in (1, 5, 512):
            want = model.items.catalogue(features, chunk)
            out = torch.full_like(want, torch.nan)
            assert model.items.catalogue(features, chunk, out) is out
            assert torch.equal(out, want)


def test_the_cache_is_shared_with_features_made_in_memory(model, catalogue, tmp_path, monkeypatch):
    model.item_features(catalogue, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(model.backbone, "item_output", None)  # would be called to encode
    again = stream_features(model, catalogue, tmp_path)
    assert list(tmp_path.iterdir()) == [file] and len(again) == len(catalogue)


def test_the_name_of_a_cached_file_is_the_hash_of_all_tokens_at_once(tmp_path):
    from tests.test_items import D, cached

    tokens = toy_tokens()
    key = hashlib.sha256(json.dumps(["a", D, tokens]).encode()).hexdigest()
    cached(tmp_path, ToyLM(), tokens)
    assert [p.name for p in tmp_path.iterdir()] == [f"items-{key[:24]}.f16"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_nothing_behind(model, catalogue, tmp_path, error, monkeypatch):
    features = model.item_features(catalogue)

    def broken(*args, **kwargs):
        raise error("stop")

    monkeypatch.setattr(model.backbone, "item_output", broken)
    monkeypatch.setattr(model.items, "catalogue", broken)
    with pytest.raises(error, match="stop"):
        stream_features(model, catalogue, tmp_path)
    with pytest.raises(error, match="stop"):
        store_vectors(model, features, tmp_path / "vectors")
    assert list(tmp_path.iterdir()) == []


def test_without_films_it_says_so(model, tmp_path):
    with pytest.raises(ValueError, match="no films"):
        stream_features(model, [], tmp_path)


def test_memory_does_not_grow_with_the_features(tmp_path):
    """NumPy tells its memory to tracemalloc; mapped files are none of it."""
    dim, films = 64, 3_000
    table = torch.randn(50, dim)
    rng = np.random.default_rng(0)
    offset = np.concatenate([[0], np.cumsum(rng.integers(20, 60, films))])
    tokens = StoredTokens(rng.integers(1, 50, offset[-1]).astype(np.int32), offset, 0)
    size = int(offset[-1]) * dim * 2

    def peak(out: np.ndarray | None) -> int:
        tracemalloc.start()
        encode_items(tokens, lambda token, mask: table[token], dim=dim, out=out)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    out = np.memmap(tmp_path / "f", np.float16, "w+", shape=(int(offset[-1]), dim))
    assert peak(None) > size and peak(out) < size / 5
    assert np.array_equal(out, encode_items(tokens, lambda t, m: table[t], dim=dim).values)


@pytest.mark.skipif(sys.platform != "linux", reason="about what Linux refuses")
def test_a_file_larger_than_memory_can_be_mapped(tmp_path: Path):
    if Path("/proc/sys/vm/overcommit_memory").read_text(encoding="utf-8").strip() == "2":
        pytest.skip("this system promises no memory it does not have")
    size = 4 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        try:
            file.truncate(size)
        except OSError:
            pytest.skip("the file system takes no file that large")
        file.seek(size - 2)
        file.write(np.float16(3.5).tobytes())
    values = mapped(path, (size // 2,), np.float16)
    assert values[-1] == 3.5 and values[0] == 0
    values[-1] = 1
    assert np.memmap(path, np.float16, "r")[-1] == 3.5


def test_a_catalogue_read_film_by_film_need_not_exist(model, catalogue, tmp_path):
    """A generator of more films than a block, each made when it is asked for."""
    made = (replace(catalogue[k % 24], id=f"x{k}") for k in range(10**9))
    features = stream_features(model, islice(made, 50), tmp_path)
    twice = Catalogue(tuple(replace(catalogue[k % 24], id=f"x{k}") for k in range(50)))
    assert torch.equal(features.values, model.item_features(twice).values)
