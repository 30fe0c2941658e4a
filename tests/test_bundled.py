"""What comes with the package works without a network, and is what its cards say."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments import backbone_card
from pecrs_lib.assessment import item_vectors, predictions_of, rank_dialogues
from pecrs_lib.config import TINY
from pecrs_lib.data import Dialogue, Utterance, bundled, load_minireel
from pecrs_lib.data.local import inspired_folder
from pecrs_lib.decoding import GREEDY
from pecrs_lib.generation import respond
from pecrs_lib.metrics import recall_at_k
from pecrs_lib.model import PECRS

BACKBONES = sorted(bundled("backbone").iterdir())
CHECKPOINT = bundled("checkpoints/minireel")
INSPIRED = bundled("checkpoints/inspired")


@pytest.fixture(scope="module")
def shipped():
    torch.manual_seed(0)
    model = PECRS.from_pretrained(CHECKPOINT).eval()
    catalogue, splits = load_minireel()
    return model, catalogue, splits, item_vectors(model, catalogue)


each_backbone = pytest.mark.parametrize("folder", BACKBONES, ids=lambda folder: folder.name)


@each_backbone
def test_the_backbone_is_a_causal_lm_like_any_other(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float16
    ids = AutoTokenizer.from_pretrained(folder)("User: I love", return_tensors="pt")["input_ids"]
    assert model.float()(ids).logits.shape == (1, ids.shape[1], model.config.vocab_size)
    assert TINY.window <= model.config.n_positions


def test_the_backbones_are_small():
    assert sum(path.stat().st_size for folder in BACKBONES for path in folder.iterdir()) < 40e6


@pytest.mark.parametrize("folder", [CHECKPOINT, INSPIRED], ids=lambda folder: folder.name)
def test_a_checkpoint_names_no_machine_and_is_small(folder):
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 10e6
    for path in folder.rglob("*.json"):
        for value in json.loads(path.read_text()).values():
            assert not (isinstance(value, str) and "/" in value), path


def test_the_inspired_checkpoint_ranks_as_its_run_said(shared_data):
    catalogue, splits = inspired_folder(shared_data / "inspired")
    record = json.loads((bundled("results") / "inspired.json").read_text())
    best = record["text"][0]["dev"][record["text"][0]["best_epoch"] - 1]
    model = PECRS.from_pretrained(INSPIRED).eval()
    v = item_vectors(model, catalogue)
    ranked = rank_dialogues(model, splits["valid"], catalogue, v, candidates=1)
    for k in (10, 50):
        assert recall_at_k(ranked.retrieval_rank.astype(float), k) == pytest.approx(
            best[f"retrieval R@{k}"], abs=1.0
        )


def test_the_checkpoint_uses_the_dialogue(shipped):
    model, catalogue, splits, v = shipped
    some = splits["test"][:80]
    found = predictions_of(
        rank_dialogues(model, some, catalogue, v, candidates=50), some, catalogue
    )
    assert len(np.unique(found.top1)) > 20
    assert recall_at_k(found.rank, 50) > 25  # popularity: 19.5 on the whole test set


def test_it_answers(shipped):
    model, catalogue, _, v = shipped
    said = Dialogue("d", (Utterance("seeker", "Hi! I am in the mood for something about robots."),))
    (reply,) = respond(model, [said], catalogue, v, **GREEDY)
    assert len(reply.text.split()) > 1 and len(reply.ranked) > 3


@each_backbone
def test_the_model_card_shows_the_result_file(folder, tmp_path):
    shutil.copy(folder / "README.md", tmp_path)
    found = json.loads(backbone_card.record_of(folder.name).read_text())
    backbone_card.card(tmp_path / "README.md", found)
    assert (tmp_path / "README.md").read_text() == (folder / "README.md").read_text()


@each_backbone
def test_perplexity_is_below_that_of_a_five_gram(folder):
    found = json.loads(backbone_card.record_of(folder.name).read_text())
    own, counts, untrained = found["perplexity"].values()
    assert all(own[name] < counts[name] < untrained[name] for name in own)


@each_backbone
def test_pretraining_pays(folder):
    """In the probe, recall above that on random weights."""
    probe = json.loads(backbone_card.record_of(folder.name).read_text())["probe"]
    rows = [row for row in probe if row["targets"] == "all"]
    for data in ("MiniReel valid", "INSPIRED dev"):
        known, random = (row["R@10"] for row in rows if row["data"] == data)
        assert known["low"] > random["high"]


def test_the_five_gram_model_is_a_distribution():
    rng = np.random.default_rng(0)
    train = rng.integers(0, 7, 400)
    alone = backbone_card.five_gram(train, train, 7)
    assert 1 < alone < 7 < backbone_card.five_gram(np.zeros(400, np.int64), train, 7)
