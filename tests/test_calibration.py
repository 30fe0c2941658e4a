"""Statistics of the heads: those of the sample, taken before training and kept with the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pecrs_lib.calibration import calibrate
from pecrs_lib.config import Config
from pecrs_lib.data import Dialogue, Utterance
from pecrs_lib.items import pool
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import encode_windows
from pecrs_lib.training import Trainer
from tests.reference import embed, run
from tests.toys import toy_catalogue, toy_dialogues

CONFIG = Config(
    context_tokens=64, utterance_tokens=48, window=192, lora_rank=4, negatives=5, epochs=1,
    batch_size=3, candidates=8, query_pooling=True,
)  # fmt: skip
CATALOGUE = toy_catalogue(8)  # so few that all are read as candidates, whatever is drawn
DIALOGUES = toy_dialogues(CATALOGUE, 6, seed=1)


@pytest.fixture
def model(tiny_backbone):
    return PECRS.from_backbone(CONFIG.with_(backbone=tiny_backbone))


def read(model: PECRS, windows, v: Tensor) -> tuple[Tensor, ...]:
    """What stands before f, a pass per point: outputs at [REC] (P, D), of candidates (P·9, D)."""
    d, q = [], []
    for w in windows:
        for turn in w.turns:
            for item in turn.items:
                token, slot = (torch.from_numpy(x[: turn.start + 1]) for x in (w.token, w.item))
                D_t = embed(model, token, slot, v)
                out = run(model, D_t, torch.cat([v[[item]], v]))
                d.append(out[len(D_t) - 1])
                q.append(out[len(D_t) :])
    return torch.stack(d), torch.cat(q)


def assert_standard(z: Tensor) -> None:
    D = z.shape[1]
    torch.testing.assert_close(z.mean(0), torch.zeros(D), atol=1e-3, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(D), atol=1e-3, rtol=0)


@torch.no_grad()
def test_after_it_what_the_heads_read_has_mean_0_and_spread_1(model):
    features = model.item_features(CATALOGUE)
    windows = encode_windows(DIALOGUES, CATALOGUE, model)
    calibrate(model, windows, features)
    C, mask = features.gather(torch.arange(8))
    pooled = pool(C, model.items.w, mask)
    d, q = read(model, windows, model.encode_catalogue(features))
    for x, part in (
        (pooled, model.items.standardise), (d, model.queries.standardise),
        (q, model.standardise_q),
    ):  # fmt: skip
        assert (x.mean(0).abs() > 0.1).any() and (x.std(0) - 1).abs().max() > 0.1
        assert_standard(part(x))
    assert not torch.equal(model.queries.standardise.mean, model.standardise_q.mean)


@torch.no_grad()
def test_the_sample_is_of_windows_that_recommend(model):
    features = model.item_features(CATALOGUE)
    chat = Dialogue("chat", (Utterance("seeker", "hi"), Utterance("recommender", "good old you")))
    silent = encode_windows([chat] * 2, CATALOGUE, model)
    windows = encode_windows(DIALOGUES, CATALOGUE, model)
    speaking = [w for w in windows if any(t.items for t in w.turns)]
    assert len(speaking) > 2
    calibrate(model, [*silent, *speaking], features, sample=2)
    d, q = read(model, speaking[:2], model.encode_catalogue(features))
    assert_standard(model.queries.standardise(d))
    assert_standard(model.standardise_q(q))


def test_the_statistics_are_saved_with_the_model(model, tmp_path):
    features = model.item_features(CATALOGUE)
    calibrate(model, encode_windows(DIALOGUES, CATALOGUE, model), features)
    model.save_pretrained(tmp_path)
    again = PECRS.from_pretrained(tmp_path)
    names = {
        f"{part}.{x}"
        for part in (
            "items.standardise",
            "queries.standardise",
            "queries.words",
            "standardise_q",
        )
        for x in ("mean", "std")
    }
    assert set(model.head_buffers()) == {"items.scale", *names}
    assert set(again.head_buffers()) == set(model.head_buffers())
    for name, buffer in model.head_buffers().items():
        assert torch.equal(again.head_buffers()[name], buffer), name
    fresh = PECRS.from_backbone(model.config).head_buffers()
    assert not any(torch.equal(fresh[n], model.head_buffers()[n]) for n in names)


def trainer(model: PECRS, out) -> Trainer:
    return Trainer(model, CATALOGUE, DIALOGUES[:4], DIALOGUES[4:], out, show=False)


def test_a_trainer_takes_them_and_a_resumed_one_takes_them_over(model, tmp_path):
    run = trainer(model, tmp_path)
    own = PECRS.from_backbone(model.config)
    calibrate(own, run.train_windows, run.features)
    for name, buffer in own.head_buffers().items():
        assert torch.equal(model.head_buffers()[name], buffer), name
    for buffer in model.head_buffers().values():
        buffer.mul_(1.5)  # as if taken from other dialogues, to tell them from those taken anew
    run.save()
    again = trainer(PECRS.from_backbone(model.config), tmp_path)
    assert not torch.equal(again.raw_model.queries.standardise.std, model.queries.standardise.std)
    assert again.resume()
    for name, buffer in model.head_buffers().items():
        assert torch.equal(again.raw_model.head_buffers()[name], buffer), name
