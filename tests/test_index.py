"""The nearest items by an index against all distances, sorted; ranking through either."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pecrs_lib.data import Catalogue, Dialogue, Mention, Utterance
from pecrs_lib.index import Approximate, Exact, smallest
from pecrs_lib.losses import pairwise_angular_distance
from pecrs_lib.packing import pack
from pecrs_lib.protocol import encode_windows
from pecrs_lib.ranking import Ranking, rank, read_trunks, retrieval_order, retrieve
from pecrs_lib.recommend import recommend
from tests.test_one_pass import build

N, D, Q = 700, 24, 9


@pytest.fixture
def faiss():
    return pytest.importorskip("faiss")


def vectors(n: int = N, seed: int = 0) -> Tensor:
    """Some are parallel, so that distances are equal."""
    v = torch.randn(n, D, generator=torch.Generator().manual_seed(seed))
    v[5], v[40 % n], v[n // 2] = v[2], v[2], 2 * v[2]
    return v


def slow(q: Tensor, v: Tensor, M: int) -> tuple[Tensor, Tensor]:
    """Every distance, sorted."""
    distance = pairwise_angular_distance(q, v)
    rows = retrieval_order(distance)[:, :M]
    return distance.gather(1, rows), rows


def grid(n: int, seed: int) -> Tensor:
    """Few directions, each of length 4: products are exact and most distances equal."""
    corners = torch.tensor([[2.0, 2, 2, 2], [2, -2, 2, -2], [4, 0, 0, 0], [0, 0, -4, 0]])
    return corners[torch.randint(4, (n,), generator=torch.Generator().manual_seed(seed))]


# -- the order ------------------------------------------------------------------------------------


@pytest.mark.parametrize("M", [1, 3, 50, 700])
@pytest.mark.parametrize("block", [1, 7, 64, 10_000])
def test_blocks_give_the_order_of_all_distances_ties_in_catalogue_order(block, M):
    v, q = grid(N, 0), grid(Q, 1)
    want, rows = slow(q, v, M)
    assert len(want.unique()) <= 4, "many are equal"
    got, found = Exact(v, block=block).nearest(q, M)
    assert torch.equal(found, rows) and torch.equal(got, want)


@pytest.mark.parametrize("block", [64, 10_000])
@pytest.mark.parametrize("M", [1, 100, 5_000])
def test_exact_is_the_plain_way(block, M):
    v = vectors()
    q = torch.cat([torch.randn(Q, D), v[[2, 7]]])  # two queries that are items
    want, rows = slow(q, v, M)
    got, found = Exact(v, block=block).nearest(q, M)
    assert got.shape == (Q + 2, min(M, N)) and torch.equal(found, rows)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


def test_smallest_orders_floats_of_either_sign_and_equal_ones_by_row():
    inf = torch.inf
    distance = torch.tensor([[0.0, -0.0, -1.5, inf, -2.5e-7, 3.0, -inf, 1e-38, -1.5, 0.0]])
    rows = torch.tensor([[9, 3, 8, 0, 7, 6, 5, 4, 2, 1]])
    got, found = smallest(distance, rows, 10)
    order = sorted(range(10), key=lambda k: (distance[0, k].item(), rows[0, k].item()))
    assert torch.equal(found, rows[:, order]) and torch.equal(got, distance[:, order])
    assert torch.equal(smallest(distance, rows, 3)[1], found[:, :3])


def test_memory_does_not_hold_all_distances(monkeypatch):
    """No matrix product is wider than a block."""
    seen: list[int] = []

    def watch(cos):
        seen.append(cos.numel())
        return (2 - 2 * cos).clamp_min(1e-6).sqrt()

    monkeypatch.setattr("pecrs_lib.index.chord", watch)
    Exact(vectors(), block=50).nearest(torch.randn(Q, D), 20)
    assert len(seen) == 14 and max(seen) == Q * 50


@pytest.mark.parametrize("kind", [Exact, Approximate])
def test_fewer_than_one_item_is_refused(kind, faiss):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        kind(vectors()).nearest(torch.randn(1, D), 0)


# -- the lists ------------------------------------------------------------------------------------


def recall(found: Tensor, rows: Tensor) -> float:
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(rows, found, strict=True)]))


def test_the_lists_hold_nearly_all_and_few_of_them_fewer(faiss):
    v, q = vectors(5_000), torch.randn(50, D)
    _, rows = slow(q, v, 50)
    index = Approximate(v, look=2_500)
    assert index.lists.nlist == 125
    distance, found = index.nearest(q, 50)
    assert 0.9 < recall(found, rows) < 1
    want = pairwise_angular_distance(q, v).gather(1, found)
    torch.testing.assert_close(distance, want, atol=1e-5, rtol=0)
    assert (distance.diff(dim=1) >= 0).all() and all(len(set(r.tolist())) == 50 for r in found)
    index.look = 1
    assert recall(index.nearest(q, 50)[1], rows) < recall(found, rows) - 0.05
    index.look = 5_000
    assert torch.equal(index.nearest(q, 50)[1], rows)


def test_all_items_are_found_where_all_are_asked_for(faiss):
    """Even where so many are equal that most lists are empty."""
    for v in (vectors(), torch.ones(3_000, D)):
        _, found = Approximate(v, look=1).nearest(torch.randn(3, D), 10_000)
        assert (found.sort(dim=1).values == torch.arange(len(v))).all()
    assert torch.equal(found, torch.arange(3_000).expand(3, -1)), "equal ones in catalogue order"


def test_fewer_in_the_lists_than_wanted_are_looked_for_elsewhere(faiss, monkeypatch):
    monkeypatch.setattr("pecrs_lib.index.PER_WANTED", 0)
    v, q = vectors(5_000), torch.randn(3, D)
    _, found = Approximate(v, look=1).nearest(q, 2_000)  # one list holds about 40
    assert torch.equal(found, slow(q, v, 2_000)[1])


def test_lists_of_no_items_are_refused(faiss):
    with pytest.raises(ValueError, match="need items"):
        Approximate(vectors()[:0])


def test_the_same_seed_gives_the_same_lists(faiss, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        Approximate(vectors(), seed=seed).save(tmp_path / name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_saved_and_loaded_it_is_the_same(faiss, tmp_path):
    v, q = vectors(), torch.randn(Q, D)
    index = Approximate(v)
    index.append(vectors(30, seed=1))
    index.save(tmp_path / "index")
    both = torch.cat([v, vectors(30, seed=1)])
    again = Approximate.load(tmp_path / "index", both)
    assert len(again) == N + 30 and [p.name for p in tmp_path.iterdir()] == ["index"]
    for a, b in zip(index.nearest(q, 60), again.nearest(q, 60), strict=True):
        assert torch.equal(a, b)
    again.append(both[:3])  # and goes on
    index.append(both[:3])
    again.save(tmp_path / "again")
    Approximate.load(tmp_path / "again", torch.cat([both, both[:3]]))


def test_an_index_of_other_vectors_is_refused(faiss, tmp_path):
    v, path = vectors(), tmp_path / "index"
    Approximate(v).save(path)
    moved = v.clone()
    moved[3, 4] += 1e-3
    swapped = v[torch.tensor([1, 0, *range(2, N)])]
    for other in (moved, swapped, v[:-1], torch.cat([v, v[:1]])):
        with pytest.raises(ValueError, match="other item vectors"):
            Approximate.load(path, other)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        Approximate.load(path, v)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="no index of this version"):
        Approximate.load(path, v)
    with pytest.raises(FileNotFoundError):
        Approximate.load(tmp_path / "none", v)


def test_an_interruption_leaves_nothing_behind(faiss, tmp_path, monkeypatch):
    def broken(*args):
        raise KeyboardInterrupt

    index = Approximate(vectors())
    monkeypatch.setattr(faiss, "write_index", broken)
    with pytest.raises(KeyboardInterrupt):
        index.save(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_without_faiss_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(RuntimeError, match=r'pip install "pecrs_lib\[scale\]"'):
        Approximate(vectors())
    Exact(vectors())  # needs none


# -- new items ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Exact, Approximate])
def test_appended_items_are_found_as_if_they_had_been_there(kind, faiss):
    v, q = vectors(), torch.randn(Q, D)
    whole, grown = kind(v), kind(v[:500])
    grown.append(v[500:501])
    grown.append(v[501:])
    assert len(grown) == N
    for M in (100, N):
        for a, b in zip(whole.nearest(q, M), grown.nearest(q, M), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


# -- ranking through an index ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tiny_backbone, catalogue):
    model, features = build(tiny_backbone, catalogue, rerank_from_retrieval=True)
    return model, model.encode_catalogue(features)


def ranked(model, dialogues, catalogue, v, **options) -> Ranking:
    windows = encode_windows(dialogues, catalogue, model)
    batch = pack(windows)
    trunk = read_trunks(model, batch, v)
    return rank(model, trunk, batch.query_row, batch.query_column, v, **options)


@pytest.mark.parametrize("repetition", [(0.0, 0.0), (0.6, 0.5), (-0.6, -0.5), (0.9, -1.4)])
@pytest.mark.parametrize("M", [1, 5, 20, 24, 100])
def test_through_exact_the_ranking_is_the_same(trained, catalogue, dialogues, repetition, M):
    """Also where films are drawn near, or pushed away, for having been named."""
    model, v = trained
    learned = model.queries.repetition
    before = learned.detach().clone()
    with torch.no_grad():
        learned.copy_(torch.tensor(repetition))
    try:
        plain = ranked(model, dialogues, catalogue, v, candidates=M)
        for index in (Exact(v), Exact(v, block=5)):
            other = ranked(model, dialogues, catalogue, v, candidates=M, index=index)
            for name in ("rows", "retrieved"):
                assert torch.equal(getattr(plain, name), getattr(other, name)), name
            for name in ("score", "near"):
                a, b = getattr(plain, name), getattr(other, name)
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
            assert other.distance is None
    finally:
        with torch.no_grad():
            learned.copy_(before)


def test_being_named_matters_in_that_test(trained, catalogue, dialogues):
    """Without the offset the nearest would be others, so that leaving it out would show."""
    model, v = trained
    windows = encode_windows(dialogues, catalogue, model)
    batch = pack(windows)
    trunk = read_trunks(model, batch, v)
    learned = model.queries.repetition
    before = learned.detach().clone()
    turn = (trunk, batch.query_row, batch.query_column)
    with torch.no_grad():
        learned.copy_(torch.tensor([0.6, 0.5]))
        _, rows = retrieve(model, *turn, v, 5, Exact(v))
        learned.copy_(torch.tensor([0.0, 0.0]))
        _, other = retrieve(model, *turn, v, 5, Exact(v))
        learned.copy_(before)
    assert not torch.equal(rows, other)


def test_what_is_derived_of_a_ranking_through_an_index(trained, catalogue, dialogues):
    model, v = trained
    plain = ranked(model, dialogues, catalogue, v, candidates=12)
    other = ranked(model, dialogues, catalogue, v, candidates=12, index=Exact(v))
    turn = torch.tensor([1, 1, 0])
    for a, b in (
        (plain.within(5), other.within(5)),
        (plain.of_turns(turn), other.of_turns(turn)),
    ):
        assert torch.equal(a.rows, b.rows)
        torch.testing.assert_close(a.near, b.near, atol=1e-6, rtol=0)
        assert torch.equal(a.near, a.distance.gather(1, a.rows))
    with pytest.raises(ValueError, match="without an index"):
        other.ranks(torch.zeros(len(other.rows), dtype=torch.int64))
    with pytest.raises(ValueError, match="holds 20 items, the catalogue 24"):
        ranked(model, dialogues, catalogue, v, index=Exact(v[:20]))


def test_recommendations_through_an_index_are_the_same(trained, catalogue, dialogues, faiss):
    model, v = trained
    for options in ({}, {"exclude_mentioned": True}, {"candidates": 7, "top": 5}):
        plain = recommend(model, dialogues, catalogue, v, **options)
        for index in (Exact(v, block=9), Approximate(v)):
            found = recommend(model, dialogues, catalogue, v, index=index, **options)
            for a, b in zip(plain, found, strict=True):
                assert [r.movie for r in a] == [r.movie for r in b]
                assert [r.retrieved for r in a] == [r.retrieved for r in b]
                got = [(r.score, r.distance) for r in b]
                assert got == [pytest.approx((r.score, r.distance), abs=1e-5) for r in a]


def test_a_dialogue_without_films_and_none_at_all(trained, catalogue):
    model, v = trained
    said = [Dialogue("a", (Utterance("seeker", "good old robots"),)), Dialogue("b", ())]
    plain = recommend(model, said, catalogue, v, top=24)
    found = recommend(model, said, catalogue, v, top=24, index=Exact(v))
    for a, b in zip(plain, found, strict=True):
        assert [r.movie for r in a] == [r.movie for r in b] and len(a) == 24
    assert recommend(model, [], catalogue, v, index=Exact(v)) == []


@pytest.mark.parametrize("kind", [Exact, Approximate])
def test_a_new_film_is_recommended_as_if_it_had_been_there(trained, catalogue, kind, faiss):
    """Encoded alone and appended, without training; it may even be the film that was named."""
    model, v = trained
    new = catalogue[len(catalogue) - 1]
    fresh = model.encode_catalogue(model.item_features(Catalogue((new,))))
    torch.testing.assert_close(fresh, v[-1:], atol=2e-3, rtol=1e-3)  # features are float16
    index = kind(v[:-1])
    index.append(fresh)
    grown = torch.cat([v[:-1], fresh])
    said = [
        Dialogue("new", (Utterance("seeker", "i love it", (Mention(new.id),)),)),
        Dialogue("other", (Utterance("seeker", "any good film", (Mention(catalogue[0].id),)),)),
    ]
    want = recommend(model, said, catalogue, v, top=24)
    got = recommend(model, said, catalogue, grown, top=24, index=index)
    for a, b in zip(want, got, strict=True):
        assert [r.movie for r in a] == [r.movie for r in b]
        assert new in [r.movie for r in b]
        scores = [[dataclasses.astuple(r)[1:3] for r in films] for films in (a, b)]
        np.testing.assert_allclose(*scores, atol=1e-3)


def test_the_kept_vectors_have_length_1():
    torch.testing.assert_close(Exact(vectors()).unit, F.normalize(vectors(), dim=-1))
