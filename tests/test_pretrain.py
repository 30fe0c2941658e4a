"""A language model of one's own: it learns, resumes bit for bit, and keeps held-out text apart."""

from __future__ import annotations

import json
import math
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from pecrs_lib import pretrain as module
from pecrs_lib.backbone import Backbone
from pecrs_lib.data import Dialogue, Mention, Utterance, load_minireel
from pecrs_lib.documents import EOS, dialogue_text, item_documents, leaked
from pecrs_lib.pretrain import (
    CURVE,
    PretrainConfig,
    blocks,
    pretrain,
    stream_perplexity,
    token_stream,
    train_tokenizer,
)
from tests.toys import toy_catalogue, toy_dialogues

CONFIG = PretrainConfig(
    vocab_size=320, n_layer=2, n_embd=32, n_head=2, n_positions=24, batch_size=16, steps=30,
    learning_rate=1e-2, warmup_steps=3,
)  # fmt: skip
TEXTS = [dialogue_text(d) for d in toy_dialogues(toy_catalogue(6), 60, seed=3)]
TRAIN, HELD_OUT = TEXTS[:50], {"one": TEXTS[50:54], "other": TEXTS[54:58]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run that was never interrupted."""
    return pretrain(
        TRAIN, HELD_OUT, tmp_path_factory.mktemp("lm") / "new", CONFIG, every=10, show=False
    )


def curve(folder) -> list[dict]:
    return json.loads((folder / "pretrain.json").read_text())["curve"]


def first_blocks(texts, tokenizer) -> np.ndarray:
    """What the loss curve measures of held-out texts."""
    return token_stream(texts, tokenizer)[: CURVE * CONFIG.n_positions + 1]


def weights(folder) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


# -- text -----------------------------------------------------------------------------------------


def test_documents_read_as_the_model_will_see_them():
    d = Dialogue("d", (
        Utterance("seeker", " hi \n there"),
        Utterance("recommender", "see Up (2009)!", (Mention("u", 4, 13),)),
    ))  # fmt: skip
    assert dialogue_text(d) == f"User: hi there{EOS}[Up (2009)] System: see Up (2009)!{EOS}"
    first = item_documents(toy_catalogue(2))[0]
    movie = toy_catalogue(2)[0]
    assert first.startswith(f"{movie.name}\n{', '.join(movie.actors)}\n")
    assert first.endswith(f"{movie.plot}{EOS}")


def test_films_stand_in_front_once_each_in_the_order_they_are_named():
    text = "Heat or Up? Heat! It is like Ran"
    mentions = (Mention("h", 0, 4), Mention("u", 8, 10), Mention("h", 12, 16), Mention("r"))
    d = Dialogue("d", (Utterance("seeker", text, mentions),))
    assert dialogue_text(d) == f"[Heat, Up] User: {text}{EOS}", "Ran stands nowhere in the text"


def test_the_tokenizer_gives_every_text_back():
    tokenizer = train_tokenizer(TRAIN, 320)
    assert tokenizer.eos_token == tokenizer.bos_token == EOS
    assert 257 < len(tokenizer) <= 320
    for text in ("I like robots", "naïve 🎬 שלום\x00", "  two  spaces ", "don't , no"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    again = train_tokenizer(TRAIN, 320)
    assert again.get_vocab() == tokenizer.get_vocab()
    # the end of a document is one control token, never a merge of characters
    [ids] = tokenizer([f"hi{EOS}"], add_special_tokens=False)["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id and len(ids) <= 3
    assert not any(piece in EOS for piece in again.get_vocab() if len(piece) > 2 and piece != EOS)


def test_stream_and_blocks():
    tokenizer = train_tokenizer(TRAIN, 320)
    stream = token_stream(["a b", "c"], tokenizer)
    each = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in ("a b", "c")]
    assert stream.tolist() == each[0] + each[1]
    numbers = np.arange(9, dtype=np.int32)
    piece = blocks(numbers, 4, np.random.default_rng(0), 200)
    assert piece.shape == (200, 5) and (piece.diff(dim=1) == 1).all()
    assert set(piece[:, 0].tolist()) == {0, 1, 2, 3, 4}, "every full block"


# -- training -------------------------------------------------------------------------------------


def test_perplexity_is_that_of_the_definition(trained):
    model = AutoModelForCausalLM.from_pretrained(trained).eval()
    stream = np.random.default_rng(0).integers(0, 300, 60).astype(np.int32)
    total = n = 0
    with torch.no_grad():
        for start in (0, 24):  # two blocks of 24; the rest does not fill one
            ids = torch.from_numpy(stream[start : start + 25].astype(np.int64))
            logits = model(ids[None, :-1]).logits[0]
            total += float(F.cross_entropy(logits, ids[1:], reduction="sum"))
            n += 24
    assert stream_perplexity(model, stream, 24) == pytest.approx(math.exp(total / n), rel=1e-5)
    with pytest.raises(ValueError, match="24 held-out tokens do not fill a block of 24"):
        stream_perplexity(model, stream[:24], 24)


def test_thirty_steps_lower_perplexity(trained):
    record = json.loads((trained / "pretrain.json").read_text())
    assert record["start"] is None and record["sources"] == {}
    assert [p["step"] for p in record["curve"]] == [10, 20, 30]
    assert [p["tokens"] for p in record["curve"]] == [3840, 7680, 11520]
    tokenizer = AutoTokenizer.from_pretrained(trained)
    train = token_stream(TRAIN, tokenizer)
    often = np.bincount(train, minlength=len(tokenizer)) + 1
    for name, texts in HELD_OUT.items():
        test = first_blocks(texts, tokenizer)
        unigram = math.exp(-np.log(often[test] / often.sum()).mean())
        perplexity = [p["held_out_perplexity"][name] for p in record["curve"]]
        assert perplexity == sorted(perplexity, reverse=True)
        assert perplexity[-1] < 0.5 * unigram, "it reads the words before, not only frequencies"
    assert record["config"]["steps"] == 30 and record["train_tokens"] > 1000


def test_it_loads_as_any_causal_lm_and_as_a_backbone(trained):
    model, tokenizer = (c.from_pretrained(trained) for c in (AutoModelForCausalLM, AutoTokenizer))
    perplexity = {
        name: stream_perplexity(model, first_blocks(texts, tokenizer), 24)
        for name, texts in HELD_OUT.items()
    }
    assert perplexity == pytest.approx(curve(trained)[-1]["held_out_perplexity"], rel=1e-6)
    assert perplexity["one"] != perplexity["other"]
    assert Backbone.load(str(trained)).max_positions == 24
    assert not list(trained.glob("*.p*t")), "no checkpoint is left behind"


@pytest.mark.parametrize("after", [2, 3])  # each checkpoint measures two texts
def test_resuming_is_bit_identical(trained, tmp_path, monkeypatch, after):
    calls = []

    def interrupted(*args):
        if len(calls) == after:  # work since the last checkpoint is lost and done again
            raise KeyboardInterrupt
        calls.append(args)
        return stream_perplexity(*args)

    monkeypatch.setattr(module, "stream_perplexity", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(TRAIN, HELD_OUT, tmp_path, CONFIG, every=10, show=False)
    monkeypatch.undo()
    assert (tmp_path / "pretrain.pt").exists() and not (tmp_path / "model.safetensors").exists()
    torch.manual_seed(99)
    pretrain(TRAIN, HELD_OUT, tmp_path, CONFIG, every=10, show=False)
    expected = weights(trained)
    assert set(weights(tmp_path)) == set(expected)
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, expected[name]), name
    records = [json.loads((f / "pretrain.json").read_text()) for f in (tmp_path, trained)]
    for record in records:
        for row in record["curve"]:
            assert row.pop("seconds") > 0
    assert records[0] == records[1]


def test_seconds_never_fall_over_a_resume(tmp_path, monkeypatch):
    def clock(start):  # a reading is ten seconds after the one before
        ticks = count(start, 10)
        return SimpleNamespace(monotonic=lambda: float(next(ticks)))

    seen = count()

    def interrupted(*_):
        if next(seen) == 2:
            raise KeyboardInterrupt
        return 1.0

    with monkeypatch.context() as patch:
        patch.setattr(module, "time", clock(5000))
        patch.setattr(module, "stream_perplexity", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain(TRAIN, HELD_OUT, tmp_path, CONFIG, every=10, show=False)
        assert [row["seconds"] for row in curve(tmp_path)] == [10.0]
        patch.setattr(module, "time", clock(3))  # the machine was started again
        patch.setattr(module, "stream_perplexity", lambda *_: 1.0)
        pretrain(TRAIN, HELD_OUT, tmp_path, CONFIG, every=10, show=False)
    assert [row["seconds"] for row in curve(tmp_path)] == [10.0, 20.0, 30.0]


# -- going on from another model ------------------------------------------------------------------


def one_step(**changes) -> PretrainConfig:
    """A step too small to change anything."""
    return PretrainConfig(**{**CONFIG.__dict__, "steps": 1, "learning_rate": 1e-6, **changes})


def test_start_goes_on_from_the_weights_and_the_tokenizer(trained, tmp_path):
    other = item_documents(toy_catalogue(24))
    folder = pretrain(
        other, HELD_OUT, tmp_path / "next", one_step(seed=5), start=trained,
        sources={"films": len(other)}, show=False,
    )  # fmt: skip
    before, after = (curve(f)[-1]["held_out_perplexity"] for f in (trained, folder))
    assert after == pytest.approx(before, rel=1e-2)
    tokenizers = [AutoTokenizer.from_pretrained(f) for f in (trained, folder)]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    assert tokenizers[0](TRAIN)["input_ids"] == tokenizers[1](TRAIN)["input_ids"]
    assert train_tokenizer(other, 320).get_vocab() != tokenizers[0].get_vocab(), "of other text"
    record = json.loads((folder / "pretrain.json").read_text())
    assert record["start"] == str(trained) and record["sources"] == {"films": 24}
    assert [row["step"] for row in record["curve"]] == [1], "a curve of its own"
    anew = pretrain(TRAIN, HELD_OUT, tmp_path / "anew", one_step(), show=False)
    for name, perplexity in curve(anew)[-1]["held_out_perplexity"].items():
        assert perplexity > 2 * before[name], "a model that starts from nothing is far away"


def test_a_resumed_run_does_not_go_back_to_its_start(trained, tmp_path, monkeypatch):
    config = one_step(steps=4, learning_rate=1e-2)
    whole = pretrain(TRAIN, HELD_OUT, tmp_path / "a", config, start=trained, every=2, show=False)

    seen = count()

    def interrupted(*args):
        if next(seen) == 2:
            raise KeyboardInterrupt
        return stream_perplexity(*args)

    monkeypatch.setattr(module, "stream_perplexity", interrupted)
    part = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt):
        pretrain(TRAIN, HELD_OUT, part, config, start=trained, every=2, show=False)
    monkeypatch.undo()
    pretrain(TRAIN, HELD_OUT, part, config, start=trained, every=2, show=False)
    assert all(torch.equal(v, weights(whole)[n]) for n, v in weights(part).items())


def test_interrupted_before_the_first_checkpoint_it_starts_anew(trained, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "stream_perplexity", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(TRAIN, HELD_OUT, tmp_path, CONFIG, every=10, show=False)
    monkeypatch.undo()
    pretrain(TRAIN, HELD_OUT, tmp_path, CONFIG, every=10, show=False)
    assert all(torch.equal(v, weights(trained)[n]) for n, v in weights(tmp_path).items())


def test_a_finished_run_is_not_run_again(trained, monkeypatch):
    before = {f.name: f.read_bytes() for f in trained.iterdir()}
    monkeypatch.setattr(module, "blocks", lambda *_: pytest.fail("it trains again"))
    assert pretrain(TRAIN, HELD_OUT, trained, CONFIG, every=10, show=False) == trained
    assert {f.name: f.read_bytes() for f in trained.iterdir()} == before


def test_the_seed_decides_and_the_global_generator_is_left_alone(trained, tmp_path):
    state = torch.random.get_rng_state()
    short = PretrainConfig(**{**CONFIG.__dict__, "steps": 2, "seed": 1})
    a, b = (
        pretrain(TRAIN, HELD_OUT, tmp_path / n, short, every=10, show=False) for n in ("a", "b")
    )
    assert all(torch.equal(v, weights(b)[n]) for n, v in weights(a).items())
    other = PretrainConfig(**{**short.__dict__, "seed": 2})
    c = weights(pretrain(TRAIN, HELD_OUT, tmp_path / "c", other, every=10, show=False))
    assert not torch.equal(c["lm_head.weight"], weights(a)["lm_head.weight"])
    assert torch.equal(torch.random.get_rng_state(), state)


# -- what it refuses ------------------------------------------------------------------------------


def test_documents_on_both_sides_are_refused(tmp_path):
    both = {**HELD_OUT, "other": [*HELD_OUT["other"], TRAIN[4], TRAIN[9]]}
    with pytest.raises(ValueError, match="2 documents stand in training text and in other"):
        pretrain(TRAIN, both, tmp_path, CONFIG, show=False)
    with pytest.raises(ValueError, match="1 documents stand in training text and in a test"):
        pretrain(TRAIN, HELD_OUT, tmp_path, CONFIG, kept_out={"a test": TRAIN[:1]}, show=False)
    assert not list(tmp_path.iterdir())


def test_leaked_finds_a_dialogue_in_part_and_lets_chance_pass():
    _, splits = load_minireel()
    train, test = ([dialogue_text(d) for d in splits[n][:50]] for n in ("train", "test"))
    assert leaked(train, test) == []
    assert leaked([*train, test[2]], test) == [2]
    long = [f"I have never seen a film that I liked better than number {n}" for n in range(3)]
    one, two = (
        dialogue_text(Dialogue("d", tuple(Utterance("seeker", text) for text in said)))
        for said in (long[:1], long[:2])
    )
    assert leaked([two], [one]) == [], "one sentence is said by two people"
    assert leaked([two + dialogue_text(splits["train"][0])], [one, two]) == [1]
    assert leaked([one], [one]) == [0], "a copy, however short"


def test_other_settings_in_the_same_folder_are_refused(trained):
    other = PretrainConfig(**{**CONFIG.__dict__, "n_layer": 3})
    with pytest.raises(ValueError, match=r"begun with other settings.*'n_layer': 2"):
        pretrain(TRAIN, HELD_OUT, trained, other, show=False)


@pytest.mark.parametrize(
    ("train", "held_out", "name"),
    [(TRAIN, {**HELD_OUT, "third": ["hi"]}, "third"), (["hi there"], HELD_OUT, "training")],
)
def test_texts_shorter_than_a_block_are_refused_before_training(
    tmp_path, monkeypatch, train, held_out, name
):
    monkeypatch.setattr(module, "blocks", lambda *_: pytest.fail("it trains first"))
    with pytest.raises(ValueError, match=rf"tokens of {name} text do not fill a block of 25"):
        pretrain(train, held_out, tmp_path, CONFIG, every=10, show=False)
