"""One pass over trunk and branches equals three passes per data point, gradients included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pecrs_lib.config import Config
from pecrs_lib.context import Window, encode_dialogues
from pecrs_lib.data import Catalogue, Dialogue
from pecrs_lib.data.local import inspired_folder
from pecrs_lib.heads import Standardise
from pecrs_lib.items import ItemFeatures
from pecrs_lib.losses import joint_loss
from pecrs_lib.model import PECRS, Losses
from pecrs_lib.negatives import draw_negatives, own_item
from pecrs_lib.packing import Batch, add_candidates, pack
from tests.reference import points_of, three_passes
from tests.toys import KINDS, save_tiny_backbone

CONFIG = Config(
    context_tokens=64, utterance_tokens=48, window=192, gamma=0.7, lora_rank=4, query_pooling=True
)


def build(backbone: str, catalogue: Catalogue, **changes) -> tuple[PECRS, ItemFeatures]:
    model = PECRS.from_backbone(CONFIG.with_(backbone=backbone, **changes))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # LoRA starts at zero; move everything so that everything is tested
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    for part in (m for m in model.modules() if isinstance(m, Standardise)):
        spread = 0.5 + torch.rand(model.backbone.dim, generator=generator)
        mean = torch.randn(model.backbone.dim, generator=generator)
        part.fit(mean + spread * torch.randn(99, model.backbone.dim, generator=generator))
    return model.eval(), model.item_features(catalogue)


def windows_for(model: PECRS, dialogues: list[Dialogue], catalogue: Catalogue) -> list[Window]:
    return encode_dialogues(
        dialogues, catalogue, model.backbone.tokenizer,
        context_tokens=CONFIG.context_tokens, utterance_tokens=CONFIG.utterance_tokens,
        window=CONFIG.window,
    )  # fmt: skip


def with_negatives(
    batch: Batch, n_items: int, m: int = 5, share: bool = True, seed: int = 0
) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    group = batch.query_row * batch.token.shape[1] + batch.query_column
    rerank, retrieval = (
        draw_negatives(n_items, group, size, generator=generator, share_over_batch=share)
        for size in (m, m + 2)
    )
    return add_candidates(batch, rerank, retrieval)


def reference_losses(
    model: PECRS, windows: list[Window], batch: Batch, features: ItemFeatures
) -> Losses:
    v = model.items.catalogue(features)
    recall = rerank = gen = torch.zeros(())
    point = responses = 0
    for window in windows:
        for turn in window.turns:
            for k, item in enumerate(points_of(window, turn)):
                nothing = torch.empty(0, dtype=torch.int64)
                retrieval = rerank_rows = nothing
                if item is not None:
                    assert batch.positive[point] == item
                    retrieval = batch.retrieval_negative[point]
                    rerank_rows = batch.candidate[point, 1:]
                result = three_passes(model, window, turn, item, v, retrieval, rerank_rows)
                nll = result.nll
                if k == 0:
                    nll = torch.cat([result.decision[None], nll])
                gen = gen + nll.mean()
                if item is not None:  # a negative that is the item itself is left out
                    near = [0, *(1 + n for n, j in enumerate(retrieval) if j != item)]
                    log_p = F.log_softmax(-result.distance[near] / CONFIG.temperature, 0)
                    recall = recall - log_p[0]
                    kept = [0, *(1 + n for n, j in enumerate(rerank_rows) if j != item)]
                    rerank = rerank - F.log_softmax(result.score[kept], 0)[0]
                    point += 1
                responses += 1
    n = responses
    return Losses(recall / n, rerank / n, gen / n, point, responses)


def gradients(model: PECRS, losses: Losses) -> dict[str, torch.Tensor]:
    model.zero_grad()
    joint_loss(losses.recall, losses.rerank, losses.gen, alpha=0.5, beta=1.0, gamma=0.7).backward()
    trained = ((n, p) for n, p in model.named_parameters() if p.requires_grad)
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in trained}


def assert_equal_passes(model, features, windows, batch):
    fast, slow = model(batch, features), reference_losses(model, windows, batch, features)
    assert (fast.points, fast.responses) == (slow.points, slow.responses)
    for name in ("recall", "rerank", "gen"):
        torch.testing.assert_close(getattr(fast, name), getattr(slow, name), atol=1e-5, rtol=1e-5)
    got, want = gradients(model, fast), gradients(model, slow)
    assert set(got) == set(want)
    for name, gradient in want.items():
        atol = 1e-6 + 2e-5 * float(gradient.abs().max())
        torch.testing.assert_close(got[name], gradient, atol=atol, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("from_retrieval", [False, True])
def test_one_pass_equals_three(kind, share, from_retrieval, catalogue, dialogues, tmp_path):
    backbone = save_tiny_backbone(tmp_path, kind)
    model, features = build(backbone, catalogue, rerank_from_retrieval=from_retrieval)
    windows = windows_for(model, dialogues[:3], catalogue)
    batch = with_negatives(pack(windows), len(catalogue), share=share)
    assert len(batch.positive) > 4
    assert_equal_passes(model, features, windows, batch)


@pytest.mark.parametrize("from_retrieval", [False, True])
def test_dot_products_are_in_the_retrieval_loss_alone(
    from_retrieval, tiny_backbone, catalogue, dialogues
):
    changes = {"rerank_from_retrieval": from_retrieval}
    model, features = build(tiny_backbone, catalogue, dot_product=True, **changes)
    windows = windows_for(model, dialogues[:3], catalogue)
    batch = with_negatives(pack(windows), len(catalogue))
    assert_equal_passes(model, features, windows, batch)
    by_angles, _ = build(tiny_backbone, catalogue, **changes)
    one, other = model(batch, features), by_angles(batch, features)
    assert torch.equal(one.rerank, other.rerank) and torch.equal(one.gen, other.gen)
    assert (one.recall - other.recall).abs() > 0.01


@pytest.mark.parametrize("m", [5, 22])
@pytest.mark.parametrize("from_retrieval", [False, True])
def test_draws_that_hit_a_points_own_item(m, from_retrieval, tiny_backbone, catalogue, dialogues):
    model, features = build(tiny_backbone, catalogue, rerank_from_retrieval=from_retrieval)
    windows = windows_for(model, dialogues[:3], catalogue)
    batch = with_negatives(pack(windows), len(catalogue), m=m)
    for negative in (batch.candidate[:, 1:], batch.retrieval_negative):
        hit = own_item(torch.cat([batch.positive[:, None], negative], 1)).any(1)
        assert hit.any() and (m == 22 or not hit.all()), "some points, and not others"
    assert_equal_passes(model, features, windows, batch)


def test_against_nothing_but_itself_an_item_always_wins(tiny_backbone, catalogue, dialogues):
    model, features = build(tiny_backbone, catalogue, rerank_from_retrieval=True)
    batch = pack([
        w
        for w in windows_for(model, dialogues, catalogue)
        if all(len(turn.items) < 2 for turn in w.turns)  # points of a turn share their negatives
    ])  # fmt: skip
    own = batch.positive[:, None]
    losses = model(add_candidates(batch, own, own), features)
    assert losses.points > 0 and losses.recall == losses.rerank == 0
    for name, gradient in gradients(model, losses).items():
        assert torch.isfinite(gradient).all(), name


def test_one_pass_equals_three_on_real_dialogues(shared_data, tiny_backbone):
    catalogue, splits = inspired_folder(shared_data / "inspired")
    catalogue = Catalogue(catalogue.movies[:200])  # the others stay text
    model, features = build(tiny_backbone, catalogue)
    recommending = [
        d
        for d in splits["valid"]
        if sum(i in catalogue for u in d.utterances if u.role == "recommender" for i in u.items) > 1
    ]
    windows = windows_for(model, recommending[:2], catalogue)
    assert len(windows) > 2  # bytes of a tiny vocabulary: long dialogues become windows
    with_turns = [w for w in windows if any(t.items for t in w.turns)][:2]
    batch = with_negatives(pack(with_turns), len(catalogue))
    assert len(batch.positive) >= 2
    assert_equal_passes(model, features, with_turns, batch)
