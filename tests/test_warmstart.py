"""The warm start is the retrieval loss of the model itself, on outputs read once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pecrs_lib.batches import make_batch
from pecrs_lib.calibration import calibrate
from pecrs_lib.config import Config
from pecrs_lib.context import windows_of
from pecrs_lib.items import tokenize_items
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import encode_windows
from pecrs_lib.training import Trainer
from pecrs_lib.warmstart import (
    bags,
    named_in,
    outputs_at_rec,
    pieces_loss,
    retrieval_of,
    warm_start,
)
from tests.toys import toy_catalogue, toy_dialogues

CONFIG = Config(
    context_tokens=64, utterance_tokens=48, window=192, lora_rank=4, negatives=3, epochs=1,
    retrieval_negatives=None, share_over_tasks=False, batch_size=4, candidates=8,
    query_pooling=True,
)  # fmt: skip
CATALOGUE = toy_catalogue(12)
DIALOGUES = toy_dialogues(CATALOGUE, 24, seed=3)


@pytest.fixture
def model(tiny_backbone):
    return PECRS.from_backbone(CONFIG.with_(backbone=tiny_backbone))


@pytest.fixture
def data(model):
    features = model.item_features(CATALOGUE)
    windows = encode_windows(DIALOGUES, CATALOGUE, model)
    calibrate(model, windows, features)
    return [w for w in windows if any(t.items for t in w.turns)], features


@pytest.mark.parametrize("dot_product", [False, True])
def test_its_distances_are_those_of_the_model(model, data, dot_product):
    windows, features = data
    model.config = model.config.with_(dot_product=dot_product)
    v = model.encode_catalogue(features)
    with torch.no_grad():
        at_rec = outputs_at_rec(model, windows, v)
        model.queries.repetition.copy_(torch.tensor([0.1, 0.2]))
        distance, target, recommended = retrieval_of(model, windows[:5], at_rec, v, torch.zeros(2))
        batch = make_batch(windows[:5], len(CATALOGUE), model.config, torch.Generator())
        losses = model(batch, features)
    distance, target = distance[recommended], target[recommended]
    assert torch.equal(target, batch.positive)
    log_p = torch.log_softmax(-distance / model.config.temperature, 1)
    loss = -log_p.gather(1, target[:, None]).sum() / losses.responses
    torch.testing.assert_close(loss, losses.recall, atol=1e-5, rtol=1e-5)


def test_bags_count_what_a_loop_counts():
    kind = torch.randint(-3, 5, (4, 9))
    row, column = torch.randint(4, (20,)), torch.randint(9, (20,))
    kinds, count = bags(kind, row, column)
    assert kinds.tolist() == sorted(set(kind.flatten().tolist()))
    for p, (b, t) in enumerate(zip(row.tolist(), column.tolist(), strict=True)):
        read = kind[b, : t + 1].tolist()
        assert count[p].tolist() == [read.count(k) for k in kinds.tolist()]


def test_without_the_lm_all_but_the_share_of_its_output_is_learned(model, data):
    windows, features = data
    before = {n: p.detach().clone() for n, p in model.queries.named_parameters()}
    losses = warm_start(model, windows, features, CATALOGUE, epochs=4, batch_size=8, read_lm=False)
    assert losses[-1] < losses[0]
    changed = {n for n, p in model.queries.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(before) - {"share"}


def test_without_pooling_the_lm_has_to_be_read(tiny_backbone, data):
    model = PECRS.from_backbone(CONFIG.with_(backbone=tiny_backbone, query_pooling=False))
    with pytest.raises(ValueError, match="query_pooling"):
        warm_start(model, *data, CATALOGUE, epochs=1, read_lm=False)


def test_what_is_named_is_found_by_a_loop_too(model, data):
    tok = model.backbone.tokenizer
    limits = {"context_tokens": 40, "utterance_tokens": 24, "window": 88}
    short = [w for d in DIALOGUES for w in windows_of(d, 0, CATALOGUE, tok, **limits)]
    assert any(len(w.turns) and not w.turns[0].utterance <= 1 for w in short), "some overlap"
    for window in [*data[0], *short]:
        scored = {turn.start for turn in window.turns}
        want, marker = [], 0
        for t, j in enumerate(window.item.tolist()):
            if j < 0:
                marker = t
            elif marker in scored or window.token[marker] == tok.sep:
                want.append([marker, j, marker in scored])
        assert named_in(window, tok.sep).tolist() == want


def test_it_learns_repeats_and_leaves_the_rest_alone(model, data, tiny_backbone):
    windows, features = data
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    losses = warm_start(model, windows, features, CATALOGUE, epochs=30, batch_size=8)
    assert losses[-1] < losses[0] - 0.2
    moved = {n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"queries", "f", "items"}
    again = PECRS.from_backbone(model.config)
    calibrate(again, encode_windows(DIALOGUES, CATALOGUE, again), features)
    assert warm_start(again, windows, features, CATALOGUE, epochs=30, batch_size=8) == losses


def test_words_of_a_film_lead_to_it(model, data):
    """Without any dialogue, pieces of the texts alone teach to find a film by its words."""
    _, features = data
    pooled = model.items.standardise(model.items.pooled(features)).detach()
    tokens, _ = tokenize_items(CATALOGUE, model.backbone.tokenizer)
    texts = [np.array(t) for t in tokens]
    weights = [*model.queries.parameters(), *model.f.parameters(), *model.items.parameters()]
    optimizer = torch.optim.Adam(weights, lr=3e-3)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(60):
        loss = pieces_loss(model, texts, pooled, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.8 * np.log(len(CATALOGUE))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("negatives", [2, None])
def test_it_trains_with_the_negatives_of_the_configuration(model, data, negatives):
    windows, features = data
    model.config = model.config.with_(retrieval_negatives=negatives, temperature=50.0)
    (loss,) = warm_start(model, windows, features, CATALOGUE, epochs=1, learning_rate=1e-9)
    assert loss == pytest.approx(np.log(3 if negatives else len(CATALOGUE)), rel=0.1)


def test_a_trainer_starts_warm_once(tiny_backbone, tmp_path):
    config = CONFIG.with_(backbone=tiny_backbone, warm_start=2)
    run = Trainer(
        PECRS.from_backbone(config), CATALOGUE, DIALOGUES[:16], DIALOGUES[16:], tmp_path, show=False
    )
    run.fit()
    assert len(run.progress.warm_start) == 2
    again = Trainer(
        PECRS.from_backbone(config), CATALOGUE, DIALOGUES[:16], DIALOGUES[16:], tmp_path, show=False
    )
    assert again.resume() and again.progress.warm_start == run.progress.warm_start
    trained = PECRS.from_pretrained(tmp_path / "best")
    trained.config = config
    go_on = Trainer(trained, CATALOGUE, DIALOGUES[:16], DIALOGUES[16:], tmp_path / "b", show=False)
    go_on.fit()
    assert go_on.progress.warm_start == [], "a trained model keeps its heads"


def test_interrupted_it_begins_anew_and_ends_the_same(tiny_backbone, tmp_path):
    """In a notebook, then from the state that Ctrl-C had the command line save."""

    def trainer(out):
        torch.manual_seed(0)
        made = PECRS.from_backbone(CONFIG.with_(backbone=tiny_backbone, warm_start=3))
        return Trainer(made, CATALOGUE, DIALOGUES[:18], DIALOGUES[18:], out, show=False)

    def interrupting(run):
        def wrap(steps):
            for k, step in enumerate(steps):
                if len(steps) == 3 and k == 2:
                    raise KeyboardInterrupt
                yield step

        run._bar = lambda *_: wrap
        return run

    whole = trainer(tmp_path / "whole")
    whole.fit()
    cut = interrupting(trainer(tmp_path / "cut"))
    begun = [p.detach().clone() for p in cut.raw_model.parameters()]
    with pytest.raises(KeyboardInterrupt):
        cut.fit()
    assert all(map(torch.equal, begun, cut.raw_model.parameters()))
    cut.save()
    again = trainer(tmp_path / "cut")
    assert again.resume()
    again.fit()
    assert again.progress.history == whole.progress.history
    for a, b in zip(again.raw_model.parameters(), whole.raw_model.parameters(), strict=True):
        assert torch.equal(a, b)
