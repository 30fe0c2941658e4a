"""Items as text, pooling that ignores padding, features that do not depend on how they are made."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pecrs_lib.backbone import Backbone
from pecrs_lib.data import Catalogue, Movie
from pecrs_lib.encoding import DIGEST, cached_features, encode_items
from pecrs_lib.items import FIELDS, ItemEncoder, ItemFeatures, item_fields, pool, tokenize_items

D = 8
FILM = Movie(
    id="m",
    title="Up",
    year=2009,
    actors=("Ed Asner", "Jordan Nagai"),
    directors=("Pete Docter",),
    genres=("Comedy",),
    plot="A house  flies.",
)
BARE = Movie("b", "Bare")


@pytest.fixture(scope="module")
def backbone(tiny_backbone: str) -> Backbone:
    return Backbone.load(tiny_backbone, lora_rank=4)


class ToyLM:
    """Causal outputs that depend on token and past, never on padding; counts what it is given."""

    def __init__(self) -> None:
        self.table = torch.randn(50, D, generator=torch.Generator().manual_seed(0))
        self.shapes: list[tuple[int, int]] = []

    def __call__(self, token: Tensor, mask: Tensor) -> Tensor:
        self.shapes.append((len(token), token.shape[1]))
        x = self.table[token].cumsum(1) / (1 + torch.arange(token.shape[1]))[:, None]
        return x.masked_fill(~mask[..., None], 7e4)  # beyond float16: padding must never be kept


def toy_tokens(n: int = 17) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, 50, rng.integers(1, 12)).tolist() for _ in range(n)]


def toy_features(n: int = 17) -> ItemFeatures:
    return encode_items(toy_tokens(n), ToyLM(), dim=D)


def item(features: ItemFeatures, j: int) -> Tensor:
    return features.values[features.offset[j] : features.offset[j + 1]]


# -- text -----------------------------------------------------------------------------------------


def test_fields_in_the_papers_order():
    assert item_fields(FILM) == [
        "Up (2009)", "Ed Asner, Jordan Nagai", "Pete Docter", "Comedy", "A house  flies.",
    ]  # fmt: skip
    assert item_fields(BARE) == ["Bare", "", "", "", ""]


@pytest.mark.parametrize("dropped", FIELDS)
def test_a_dropped_field_leaves_its_place_empty(dropped):
    kept = [name for name in FIELDS if name != dropped]
    expected = item_fields(FILM)
    expected[FIELDS.index(dropped)] = ""
    assert item_fields(FILM, kept) == item_fields(FILM, kept[::-1]) == expected


def test_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match=r"unknown item fields \['actor', 'year'\].*directors"):
        item_fields(FILM, ["title", "actor", "year"])


def test_the_item_text_as_tokens(backbone):
    tok = backbone.tokenizer
    w = lambda text: tok.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    [full, bare], cut = tokenize_items(Catalogue((FILM, BARE)), tok)
    S = tok.sep
    assert full == [
        *w(" Up (2009)"), S, *w(" Ed Asner, Jordan Nagai"), S, *w(" Pete Docter"), S,
        *w(" Comedy"), S, *w(" A house flies."),
    ]  # fmt: skip
    assert bare == [*w(" Bare"), S, S, S, S] and cut == 0
    [part], _ = tokenize_items(Catalogue((FILM,)), tok, fields=("title", "plot"))
    assert part == [*w(" Up (2009)"), S, S, S, S, *w(" A house flies.")]
    assert tokenize_items(Catalogue((Movie("n", ""),)), tok)[0] == [[S, S, S, S]]


def test_long_texts_are_cut_and_counted(backbone):
    both = Catalogue((FILM, BARE))
    full, _ = tokenize_items(both, backbone.tokenizer)
    n = len(full[0])
    assert tokenize_items(both, backbone.tokenizer, item_tokens=n) == (full, 0)
    short, cut = tokenize_items(both, backbone.tokenizer, item_tokens=n - 1)
    assert short == [full[0][:-1], full[1]] and cut == 1


def test_control_tokens_in_a_text_stay_text(backbone):
    tok = backbone.tokenizer
    [ids], _ = tokenize_items(Catalogue((Movie("x", "[SEP] <|endoftext|> [ITEM]"),)), tok)
    assert ids.count(tok.sep) == 4 and tok.item not in ids and tok.eos not in ids


# -- pooling and heads ----------------------------------------------------------------------------


def test_pool_by_hand():
    C = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(pool(C, torch.zeros(2), mask), torch.tensor([[0.5, 0.5]]))
    w = torch.tensor([np.log(3.0), 0.0]).float()  # scores log 3 and 0: weights 3/4 and 1/4
    torch.testing.assert_close(pool(C, w, mask), torch.tensor([[0.75, 0.25]]))


def test_pool_agrees_with_a_loop_and_starts_as_the_mean():
    features, w = toy_features(), torch.randn(D)
    C, mask = features.gather(torch.arange(17))
    for j, pooled in enumerate(pool(C, w, mask)):
        own = item(features, j).float()
        weight = torch.exp(own @ w) / torch.exp(own @ w).sum()
        slow = sum(weight[k] * own[k] for k in range(len(own)))
        torch.testing.assert_close(pooled, slow, atol=1e-6, rtol=1e-5)
        mean = pool(C, torch.zeros(D), mask)[j]
        torch.testing.assert_close(mean, own.mean(0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rubbish", [0.0, -1e30, 1e30])
def test_padding_changes_nothing(rubbish):
    C, w = torch.randn(3, 5, D), torch.randn(D)
    mask = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    # a w against the padding, or along it: its score must not win
    wide = torch.cat([C, torch.full((3, 4, D), rubbish)], 1)
    wide_mask = torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], 1)
    expected = pool(C, w, mask)
    torch.testing.assert_close(pool(wide, w, wide_mask), expected, atol=1e-6, rtol=1e-6)
    C[~mask] = rubbish
    torch.testing.assert_close(pool(C, w, mask), expected, atol=1e-6, rtol=1e-6)


def test_pooling_over_padding_agrees_with_a_loop():
    """Every text is as long as the longest beside it; what is behind its end says nothing."""
    features, encoder = toy_features(), ItemEncoder(D, scale=1.0, padding=True)
    torch.nn.init.normal_(encoder.w)
    rows = torch.tensor([3, 0, 11, 5])
    C, mask = features.gather(rows)
    w = encoder.w.detach()
    longest = max(len(item(features, int(j))) for j in rows)
    for j, pooled in zip(rows, encoder.pool(C, mask), strict=True):
        own = item(features, int(j)).float()
        score = [float(token @ w) for token in own] + [0.0] * (longest - len(own))
        total = sum(math.exp(s) for s in score)
        slow = sum(math.exp(s) / total * token for s, token in zip(score, own, strict=False))
        torch.testing.assert_close(pooled, slow, atol=1e-6, rtol=1e-5)
    mean = ItemEncoder(D, scale=1.0, pooling=False, padding=True).pool(C, mask)
    summed = torch.stack([item(features, int(j)).float().sum(0) for j in rows])
    torch.testing.assert_close(mean.detach(), summed / longest, atol=1e-6, rtol=1e-5)


def test_with_padding_an_item_depends_on_its_neighbours_and_without_it_does_not():
    features, length = toy_features(), [len(t) for t in toy_tokens()]
    short, long = int(np.argmin(length)), int(np.argmax(length))
    for padding in (False, True):
        encoder = ItemEncoder(D, scale=1.0, padding=padding)
        encoder.fit(features)
        alone = encoder(*features.gather(torch.tensor([short])))
        beside = encoder(*features.gather(torch.tensor([short, long])))[:1]
        same = torch.allclose(alone, beside, atol=1e-6)
        assert same != padding
        again = encoder(*features.gather(torch.tensor([long, short])))[1:]
        torch.testing.assert_close(again, beside, atol=1e-6, rtol=1e-6)


def test_with_padding_the_catalogue_is_encoded_in_its_order(monkeypatch):
    monkeypatch.setattr("pecrs_lib.items.BESIDE", 4)
    features, encoder = toy_features(), ItemEncoder(D, scale=0.3, padding=True)
    encoder.fit(features)
    torch.nn.init.normal_(encoder.w)
    slow = [encoder(*features.gather(torch.arange(k, min(k + 4, 17)))) for k in range(0, 17, 4)]
    torch.testing.assert_close(encoder.catalogue(features), torch.cat(slow), atol=1e-6, rtol=1e-5)


def test_permuting_items_permutes_vectors_and_permuting_tokens_changes_nothing():
    encoder, features = ItemEncoder(D, scale=1.0), toy_features()
    torch.nn.init.normal_(encoder.w)
    C, mask = features.gather(torch.arange(17))
    v, order = encoder(C, mask), torch.randperm(17)
    torch.testing.assert_close(encoder(C[order], mask[order]), v[order], atol=1e-6, rtol=1e-5)
    shuffle = torch.randperm(C.shape[1])
    moved = encoder(C[:, shuffle], mask[:, shuffle])
    torch.testing.assert_close(moved, v, atol=1e-6, rtol=1e-5)
    assert (v[0] - v[1]).abs().max() > 1e-2


@pytest.mark.parametrize("scale", [0.02, 1.0])
def test_item_vectors_start_on_the_scale_of_words(scale):
    v = ItemEncoder(64, scale)(torch.randn(500, 1, 64), torch.ones(500, 1, dtype=torch.bool))
    assert 0.9 * scale < v.std() < 1.1 * scale


def test_item_vectors_are_scaled_heads_of_standardised_pools():
    features, encoder = toy_features(), ItemEncoder(D, scale=0.3)
    encoder.fit(features)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(torch.randn(p.shape))
    C, mask = features.gather(torch.arange(17))
    z = (pool(C, encoder.w, mask) - encoder.standardise.mean) / encoder.standardise.std
    slow = 0.3 * (z + encoder.h_item.mlp(z))
    torch.testing.assert_close(encoder(C, mask), slow, atol=1e-6, rtol=1e-5)
    assert "scale" not in dict(encoder.named_parameters()) and "scale" in encoder.state_dict()


@pytest.mark.parametrize("chunk", [1, 5, 512])
def test_fit_standardises_the_pooled_features_of_the_catalogue(chunk):
    features, encoder = toy_features(), ItemEncoder(D, scale=0.3)
    torch.nn.init.normal_(encoder.w)
    encoder.fit(features, chunk=chunk)
    C, mask = features.gather(torch.arange(17))
    pooled = pool(C, encoder.w, mask)
    assert (pooled.mean(0).abs() > 0.05).any() and (pooled.std(0) - 1).abs().min() > 0.05
    z = encoder.standardise(pooled)
    torch.testing.assert_close(z.mean(0), torch.zeros(D), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(D), atol=1e-5, rtol=0)
    v = encoder.catalogue(features)  # so the catalogue starts on the scale of words
    torch.testing.assert_close(v.std(0, correction=0), torch.full((D,), 0.3), atol=1e-5, rtol=0)
    assert not encoder.standardise.mean.requires_grad


# -- features -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_tokens", [1, 13, 40, 4096])
def test_encoding_in_batches_equals_one_at_a_time(batch_tokens):
    tokens, lm = toy_tokens(), ToyLM()
    features = encode_items(tokens, lm, dim=D, batch_tokens=batch_tokens)
    assert len(features) == 17 and features.values.dtype == torch.float16
    longest = max(map(len, tokens))
    assert all(n * length <= max(batch_tokens, longest) for n, length in lm.shapes)
    assert sum(n for n, _ in lm.shapes) == 17
    if batch_tokens == 4096:
        assert len(lm.shapes) == 1
    for j, ids in enumerate(tokens):
        alone = lm(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))[0]
        assert torch.equal(item(features, j), alone.half())


def test_the_real_thing_in_batches_equals_one_at_a_time(backbone, catalogue):
    tokens, _ = tokenize_items(catalogue, backbone.tokenizer)
    assert len({len(t) for t in tokens}) > 3, "different lengths, or padding is not tested"
    features = encode_items(tokens, backbone.item_output, dim=backbone.dim, batch_tokens=700)
    for j in (0, 5, 23):
        ids = torch.tensor([tokens[j]])
        alone = backbone.item_output(ids, torch.ones_like(ids, dtype=torch.bool))[0]
        # float16 keeps eleven bits: 2e-3 of numbers up to about 4
        torch.testing.assert_close(item(features, j).float(), alone, atol=2e-3, rtol=1e-3)


def test_progress_sees_every_batch_and_out_is_written_into():
    seen: list[slice] = []

    def watch(batches):
        for batch in batches:
            seen.append(batch)
            yield batch

    tokens = toy_tokens()
    out = np.full((sum(map(len, tokens)), D), np.nan, np.float16)
    features = encode_items(tokens, ToyLM(), dim=D, batch_tokens=40, progress=watch, out=out)
    assert len(seen) > 2 and seen[0].start == 0 and seen[-1].stop >= 17
    assert np.array_equal(out, toy_features().values.numpy())
    assert features.values.data_ptr() == out.ctypes.data


def test_items_that_cannot_be_encoded_are_refused():
    for tokens, which in (([[1], [], [2]], 1), ([], 0)):
        with pytest.raises(ValueError, match=f"item {which} has no text"):
            encode_items(tokens, ToyLM(), dim=D)
    for value in (7e4, float("nan")):
        with pytest.raises(ValueError, match="float16"):
            encode_items([[1]], lambda t, m, x=value: torch.full((*t.shape, D), x), dim=D)


def test_gather_pads_with_zeros():
    features = toy_features()
    rows = torch.tensor([4, 0, 4])
    C, mask = features.gather(rows)
    length = [len(item(features, int(j))) for j in rows]
    assert C.shape == (3, max(length), D) and C.dtype == torch.float32
    assert mask.sum(1).tolist() == length
    for k, j in enumerate(rows.tolist()):
        assert torch.equal(C[k, : length[k]], item(features, j).float())
        assert (C[k, length[k] :] == 0).all()


@pytest.mark.parametrize("chunk", [1, 5, 17, 512])
def test_chunks_of_the_catalogue_change_nothing(chunk):
    features, encoder = toy_features(), ItemEncoder(D, scale=1.0)
    torch.nn.init.normal_(encoder.w)
    slow = []
    for j in range(17):
        C = item(features, j).float()[None]
        slow.append(encoder(C, torch.ones(C.shape[:2], dtype=torch.bool))[0])
    v = encoder.catalogue(features, chunk=chunk)
    torch.testing.assert_close(v, torch.stack(slow), atol=1e-6, rtol=1e-5)
    v.sum().backward()
    assert encoder.w.grad.abs().max() > 0, "pooling is trained through the catalogue"


# -- the cache ------------------------------------------------------------------------------------


def cached(folder: Path, lm, tokens=None, backbone: str = "a", dim: int = D) -> ItemFeatures:
    return cached_features(tokens or toy_tokens(), lm, dim=dim, backbone=backbone, cache_dir=folder)


def test_the_second_call_reads_the_file(tmp_path):
    lm, folder = ToyLM(), tmp_path / "made" / "when missing"
    first = cached(folder, lm)
    calls = len(lm.shapes)
    second = cached(folder, lm)
    assert calls > 0 and len(lm.shapes) == calls
    for features in (first, second):
        assert torch.equal(features.values, toy_features().values)
        assert torch.equal(features.offset, toy_features().offset)
    [file] = folder.iterdir()
    assert file.stat().st_size == first.values.numel() * 2 + DIGEST


def test_another_text_or_backbone_is_another_file(tmp_path):
    lm, tokens = ToyLM(), toy_tokens()
    changed = [list(t) for t in tokens]
    changed[3][0] = 1 + changed[3][0] % 49
    moved = [tokens[0] + tokens[1][:1], tokens[1][1:] or [1], *tokens[2:]]
    cached(tmp_path, lm)
    for n, options in enumerate(
        ({"tokens": changed}, {"tokens": tokens[::-1]}, {"tokens": moved}, {"backbone": "b"}),
        start=2,
    ):
        calls = len(lm.shapes)
        got = cached(tmp_path, lm, **options)
        assert len(lm.shapes) > calls and len(list(tmp_path.iterdir())) == n
        fresh = encode_items(options.get("tokens", tokens), ToyLM(), dim=D)
        assert torch.equal(got.values, fresh.values)


def test_a_truncated_file_is_made_again(tmp_path):
    lm = ToyLM()
    cached(tmp_path, lm)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-2])
    calls = len(lm.shapes)
    assert torch.equal(cached(tmp_path, lm).values, toy_features().values)
    assert len(lm.shapes) > calls and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_nothing_behind(tmp_path, error):
    def broken(token, mask):
        raise error("stop")

    with pytest.raises(error, match="stop"):
        cached(tmp_path, broken)
    assert list(tmp_path.iterdir()) == []


def test_the_file_cannot_be_changed_through_the_tensor(tmp_path):
    features = cached(tmp_path, ToyLM())
    [file] = tmp_path.iterdir()
    before = file.read_bytes()
    features.values.zero_()
    del features
    assert file.read_bytes() == before
    assert torch.equal(cached(tmp_path, ToyLM()).values, toy_features().values)


def test_pooling_and_head_left_out_are_the_mean_and_the_identity():
    C, mask = torch.randn(3, 5, D), torch.arange(5) < torch.tensor([[5], [2], [1]])
    C = C * mask[..., None]
    bare = ItemEncoder(D, 0.5, pooling=False, head=False)
    assert not list(bare.parameters())
    mean = C.sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(bare(C, mask), 0.5 * mean)
    for pooling, head in ((True, False), (False, True), (True, True)):
        encoder = ItemEncoder(D, 0.5, pooling=pooling, head=head)
        torch.testing.assert_close(encoder(C, mask), bare(C, mask))  # where training starts
        names = {name.split(".")[0] for name, _ in encoder.named_parameters()}
        assert ("w" in names, "h_item" in names) == (pooling, head)
