"""Ranking against the trunk's cache equals ranking the slow way; replies; saving and loading."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pecrs_lib.assessment import converse, predictions_of, rank_dialogues, text_metrics
from pecrs_lib.data import Catalogue, Dialogue, Mention, Utterance
from pecrs_lib.data.storage import write_sums
from pecrs_lib.decoding import GREEDY
from pecrs_lib.evaluation import recommendation_points
from pecrs_lib.generation import generate_replies, respond
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.protocol import encode_windows, rank_windows
from pecrs_lib.ranking import rank, read_trunks, score_candidates
from pecrs_lib.recommend import history_windows, next_turns, recommend
from tests.reference import points_of, three_passes
from tests.test_one_pass import CONFIG, build
from tests.toys import KINDS, save_tiny_backbone

NOTHING = torch.empty(0, dtype=torch.int64)


@pytest.fixture(scope="module")
def trained(tiny_backbone, catalogue):
    model, features = build(tiny_backbone, catalogue, rerank_from_retrieval=True)
    return model, model.encode_catalogue(features)


def slow_rank(model, window, turn, item, v, candidates):
    """Rank of the item: sort by distance, re-score the nearest one by one, list the rest after."""
    everything = torch.arange(len(v))
    result = three_passes(model, window, turn, item, v, everything, everything)
    distance, score = result.distance[1:], result.score[1:]
    order = sorted(range(len(v)), key=lambda j: (distance[j].item(), j))
    near, far = order[:candidates], order[candidates:]
    near = sorted(near, key=lambda j: -score[j].item())
    confidence = torch.softmax(score[near], 0)[0].item()
    return (near + far).index(item) + 1, order.index(item) + 1, near[0], confidence


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("from_retrieval", [False, True])
def test_ranks_equal_the_slow_way(kind, from_retrieval, catalogue, dialogues, tmp_path):
    backbone = save_tiny_backbone(tmp_path, kind)
    model, features = build(backbone, catalogue, rerank_from_retrieval=from_retrieval)
    v = model.encode_catalogue(features)
    windows = encode_windows(dialogues[:2], catalogue, model)
    with torch.inference_mode():
        ranked = rank_windows(model, windows, v, candidates=9, chunk=4)
        want = {
            (w.dialogue, t.utterance, i): slow_rank(model, w, t, i, v, 9)
            for w in windows
            for t in w.turns
            for i in points_of(w, t)
            if i is not None
        }
    key = np.stack([ranked.dialogue, ranked.utterance, ranked.item], 1).tolist()
    got = np.stack([ranked.rank, ranked.retrieval_rank, ranked.top1, ranked.confidence], 1)
    assert {tuple(k) for k in key} == set(want) and len(key) == len(want) > 3
    np.testing.assert_allclose(got, [want[tuple(k)] for k in key], rtol=1e-4)


def test_chunks_batches_and_m_change_no_score(trained, catalogue, dialogues):
    model, v = trained
    windows = encode_windows(dialogues, catalogue, model)
    a = rank_windows(model, windows, v, candidates=24, chunk=1, batch_tokens=1)
    b = rank_windows(model, windows, v, candidates=500, chunk=1000, batch_tokens=10_000)
    for name in {field.name for field in dataclasses.fields(a)} - {"rank_within"}:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-4, err_msg=name)


def test_one_pass_gives_the_ranks_of_every_smaller_m(trained, catalogue, dialogues):
    model, v = trained
    windows = encode_windows(dialogues, catalogue, model)
    found = rank_windows(model, windows, v, candidates=24, within=(1, 5, 16, 24))
    assert list(found.rank_within) == [1, 5, 16, 24]
    for m, ranks in found.rank_within.items():
        assert np.array_equal(rank_windows(model, windows, v, candidates=m).rank, ranks)
    assert np.array_equal(found.rank_within[1], found.retrieval_rank)
    assert not np.array_equal(found.rank_within[5], found.rank)


def test_more_candidates_than_positions(trained, catalogue, dialogues):
    model, v = trained
    many = v.repeat(100, 1)  # 2,400 candidates; the backbone has 1,024 positions
    windows = encode_windows(dialogues[:1], catalogue, model)
    trunk = read_trunks(model, pack(windows), v)
    row, column = torch.tensor([0]), torch.tensor([windows[0].turns[0].start])
    candidate = torch.arange(len(many))[None]
    with torch.inference_mode():
        distance = model.distance(
            trunk.batch, trunk.x, trunk.hidden, row, column, many, candidate[0] % len(v)
        )
    r = score_candidates(model, trunk, row, column, candidate, distance, many).view(100, 24)
    torch.testing.assert_close(r, r[:1].expand(100, -1), atol=1e-5, rtol=1e-5)


def test_a_live_history_is_ranked_as_in_the_protocol(trained, catalogue, dialogues):
    model, v = trained
    ranked = rank_dialogues(model, dialogues, catalogue, v, candidates=12)
    for d, t, top in zip(ranked.dialogue, ranked.utterance, ranked.top1, strict=True):
        history = Dialogue("live", dialogues[d].utterances[:t])
        (best,) = recommend(model, [history], catalogue, v, top=1, candidates=12)
        assert catalogue.row[best[0].movie.id] == top


def test_recommend_lists_scores_in_order_and_can_leave_out_the_known(trained, catalogue, dialogues):
    model, v = trained
    (items,) = recommend(model, dialogues[:1], catalogue, v, top=24)
    assert [r.score for r in items] == sorted((r.score for r in items), reverse=True)
    assert sorted(r.retrieved for r in items) == list(range(1, 25))
    named = dialogues[0].mentioned_before(len(dialogues[0]))
    (new,) = recommend(model, dialogues[:1], catalogue, v, top=24, exclude_mentioned=True)
    assert named and not named & {r.movie.id for r in new}
    assert recommend(model, [], catalogue, v) == []
    with pytest.raises(ValueError, match="candidates"):
        rank(model, None, NOTHING, NOTHING, v, candidates=0)


def test_predictions_stand_on_the_points_of_the_baselines(trained, catalogue, dialogues):
    model, v = trained
    small = Catalogue(catalogue.movies[:20])  # four films nobody can recommend
    ranked = rank_dialogues(model, dialogues, small, v[:20])
    predictions = predictions_of(ranked, dialogues, small)
    points = recommendation_points(dialogues)
    assert predictions.item.tolist() == [p.item for p in points]
    unknown = [p.item not in small for p in points]
    assert any(unknown) and np.isinf(predictions.rank).tolist() == unknown


def test_perplexity_is_the_likelihood_of_the_true_response(trained, catalogue, dialogues):
    model, v = trained
    ranked = rank_dialogues(model, dialogues[:2], catalogue, v)
    total = tokens = 0.0
    for w in encode_windows(dialogues[:2], catalogue, model):
        for t in w.turns:
            for i in points_of(w, t):
                nll = three_passes(model, w, t, i, v, NOTHING, NOTHING).nll
                total, tokens = total + nll.sum().item(), tokens + len(nll)
    assert ranked.tokens.sum() == tokens
    assert text_metrics(ranked)["perplexity"] == pytest.approx(np.exp(total / tokens), rel=1e-4)


def test_replies_do_not_depend_on_the_batch_and_repeat_with_the_seed(trained, catalogue, dialogues):
    model, v = trained
    histories = [Dialogue(d.id, d.utterances[:k]) for k, d in enumerate(dialogues)]
    before = torch.random.get_rng_state()
    together = respond(model, histories, catalogue, v, seed=3, **GREEDY)
    assert torch.equal(before, torch.random.get_rng_state())
    for history, reply in zip(histories, together, strict=True):
        (alone,) = respond(model, [history], catalogue, v, seed=3, **GREEDY)
        assert (alone.raw, alone.recommended) == (reply.raw, reply.recommended)
    sampled = [respond(model, histories, catalogue, v, seed=s)[2].raw for s in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]


def test_greedy_decoding_equals_picking_the_likeliest_token(trained, catalogue, dialogues):
    model, v = trained
    tok = model.backbone.tokenizer
    (window,) = history_windows(model, [Dialogue("d", dialogues[0].utterances[:2])], catalogue)
    (got,) = generate_replies(model, [window], [5], v, response_tokens=6, **GREEDY)
    from tests.reference import embed, run

    tail = [tok.rec, tok.item, tok.rec_end, *tok.speaker["recommender"]]
    ids = torch.tensor([*window.token, *tail])
    slots = torch.tensor([*window.item, -1, 5, -1, *[-1] * (len(tail) - 3)])
    want: list[int] = []
    for step in range(6):
        logits = model.backbone.logits(run(model, embed(model, ids, slots, v))[-1]).detach()
        logits[[tok.sep, tok.rec, tok.rec_end]] = -torch.inf
        if step < 2:
            logits[tok.eos] = -torch.inf
        token = int(logits.argmax())
        want.append(token)
        if token == tok.eos:
            break
        ids = torch.cat([ids, torch.tensor([token])])
        slots = torch.cat([slots, torch.tensor([-1])])
    assert got == want


def test_the_title_takes_the_place_of_item(trained, catalogue, dialogues, monkeypatch):
    model, v = trained
    tok = model.backbone.tokenizer
    words = tok.encode([" you like", " good"])
    said = [*words[0], tok.item, *words[1], tok.eos]
    monkeypatch.setattr("pecrs_lib.generation.generate_replies", lambda *a, **k: [said])
    (reply,) = respond(model, dialogues[:1], catalogue, v)
    best = reply.ranked[0].movie
    assert reply.raw == "you like [ITEM] good"
    assert reply.text == f"you like {best.name} good"
    assert reply.recommended is not None and reply.recommended.movie == best

    twice = [*words[0], tok.item, *words[1], tok.item, tok.eos]
    monkeypatch.setattr("pecrs_lib.generation.generate_replies", lambda *a, **k: [twice])
    (reply,) = respond(model, dialogues[:1], catalogue, v)
    second = reply.ranked[1].movie
    assert reply.text == f"you like {best.name} good {second.name}", "no film is named twice"
    assert reply.raw == "you like [ITEM] good [ITEM]"


def test_empty_and_strange_histories(trained, catalogue):
    model, v = trained
    histories = [
        Dialogue("empty", ()),
        Dialogue("blank", (Utterance("seeker", ""),)),
        Dialogue("emoji", (Utterance("seeker", "😀 مرحبا \x00 [REC] [ITEM] <|endoftext|>"),)),
        Dialogue("long", (Utterance("seeker", "good old robots " * 5_000),)),
    ]
    replies = respond(model, histories, catalogue, v, **GREEDY)
    assert [len(r.ranked) for r in replies] == [10] * 4
    assert respond(model, [], catalogue, v) == []


def test_a_reply_need_not_repeat_what_was_named(trained, catalogue):
    model, v = trained
    every = tuple(Mention(movie.id) for movie in catalogue)
    for left in (0, 1, 5):
        named = every[: len(every) - left]
        said = Dialogue("d", (Utterance("seeker", "seen them", named),))
        (reply,) = respond(
            model, [said], catalogue, v, always_recommend=True, exclude_mentioned=True, **GREEDY
        )
        assert len(reply.ranked) == left
        assert not {r.movie.id for r in reply.ranked} & set(said.utterances[0].items)
        assert reply.recommended is None or reply.recommended == reply.ranked[0]


def test_a_conversation_is_measured_turn_by_turn(trained, catalogue, dialogues):
    model, v = trained
    told = converse(model, dialogues[:3], catalogue, v, batch_size=2)
    turns = sum(u.role == "recommender" for d in dialogues[:3] for u in d.utterances)
    assert len(told.replies) == len(told.references) == turns
    for d, t, reference, yes in zip(
        told.dialogue, told.turn, told.references, told.recommends, strict=True
    ):
        assert ("[ITEM]" in reference) == yes == bool(dialogues[d].utterances[t].items)
    assert {"rouge1", "F-1", "Dist@2 per sentence"} <= set(told.metrics())


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load_change_nothing(kind, catalogue, dialogues, tmp_path):
    model, features = build(save_tiny_backbone(tmp_path / "lm", kind), catalogue)
    model.save_pretrained(tmp_path / "saved")
    again = PECRS.from_pretrained(tmp_path / "saved").eval()
    files = [p for p in (tmp_path / "saved").rglob("*") if p.is_file()]
    assert {p.suffix or p.name for p in files} == {".safetensors", ".json", "SHA256SUMS"}
    v, v_again = (m.encode_catalogue(features) for m in (model, again))
    assert torch.equal(v, v_again)
    windows = encode_windows(dialogues[:2], catalogue, model)
    a, b = (rank_windows(m, windows, v) for m in (model, again))
    for field in dataclasses.fields(a):
        assert np.array_equal(getattr(a, field.name), getattr(b, field.name)), field.name


def test_loading_says_what_is_wrong(trained, tiny_backbone, tmp_path):
    model, _ = trained
    with pytest.raises(FileNotFoundError, match=r"pecrs\.json"):
        PECRS.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "saved")
    other = save_tiny_backbone(tmp_path / "other", "opt")
    with pytest.raises(ValueError, match="other weights"):
        PECRS.from_pretrained(tmp_path / "saved", backbone=other)
    heads = load_file(tmp_path / "saved" / "heads.safetensors")
    del heads["f.mlp.0.bias"]
    save_file(heads, tmp_path / "saved" / "heads.safetensors")
    with pytest.raises(ValueError, match=r"heads\.safetensors: .*other content"):
        PECRS.from_pretrained(tmp_path / "saved")
    write_sums(tmp_path / "saved")  # whole, but of a model with other heads
    with pytest.raises(ValueError, match=r"another version.*f\.mlp\.0\.bias"):
        PECRS.from_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match="positions"):
        PECRS.from_backbone(CONFIG.with_(backbone=tiny_backbone, window=2000))


def test_a_small_share_of_the_weights_is_trained(trained):
    model, _ = trained
    table = model.parameter_table()
    assert set(table) == {"frozen", "LoRA", "tokens", "items", "queries", "f", "g"}
    trained_weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(v for k, v in table.items() if k != "frozen") == trained_weights
    assert table["tokens"] == 4 * model.backbone.dim


def test_one_reading_says_what_to_recommend_and_whether_to(tiny_backbone, catalogue, dialogues):
    """The slow way: the LM reads the trunk alone, and then the trunk with its query."""
    model, features = build(tiny_backbone, catalogue)
    v = model.encode_catalogue(features)
    tok = model.backbone.tokenizer
    turns = next_turns(model, dialogues, catalogue, v, top=5)
    assert [t.ranked for t in turns] == recommend(model, dialogues, catalogue, v, top=5)
    for turn, window in zip(turns, history_windows(model, dialogues, catalogue), strict=True):
        assert np.array_equal(turn.trunk.token, window.token)
        with torch.no_grad():
            _, hidden = model.read(pack([window]), v, torch.arange(len(v)))
            logits = model.backbone.logits(hidden[0, len(window.token) - 1])
        pair = logits[[tok.rec, tok.speaker["recommender"][0]]].softmax(0)
        assert turn.opens_with_rec == pytest.approx(float(pair[0]), abs=1e-5)
    assert len({round(t.opens_with_rec, 4) for t in turns}) > 1
