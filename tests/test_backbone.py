"""Any decoder-only LM, frozen, with LoRA and four tokens; what we read past peft equals peft."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from pecrs_lib.backbone import START, Backbone, BackboneError
from tests.toys import KINDS, save_tiny_backbone, tiny_config

TIED = {"gpt2": True, "llama": False, "qwen2": True, "gpt_neox": False, "opt": True}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    base = tmp_path_factory.mktemp("backbones")
    return {kind: save_tiny_backbone(base / kind, kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, folders: dict[str, str]) -> str:
    return folders[request.param]


def load(folder: str, **options) -> Backbone:
    return Backbone.load(folder, lora_rank=4, **options)


def moved(folder: str, **options) -> Backbone:
    """As after training: LoRA starts at zero, so everything that trains is moved."""
    backbone, generator = load(folder, **options).eval(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in trained(backbone).values():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return backbone


def trained(backbone: Backbone) -> dict[str, Tensor]:
    return {n: p for n, p in backbone.named_parameters() if p.requires_grad}


def everything(backbone: Backbone) -> dict[str, Tensor]:
    both = [*backbone.named_parameters(), *backbone.named_buffers()]
    return {n: v.detach().clone() for n, v in both}


def all_ids(backbone: Backbone) -> Tensor:
    """Some words and all four tokens, in two rows."""
    special = torch.tensor(backbone.tokenizer.special_ids)
    return torch.stack([torch.cat([torch.arange(5, 9), special]), special.repeat(2).flip(0)])


def run(backbone: Backbone, ids: Tensor) -> Tensor:
    """Hidden states through our own way in."""
    n, L = ids.shape
    position = torch.arange(L).expand(n, L)
    causal = torch.full((L, L), torch.finfo(torch.float32).min).triu(1).expand(n, 1, L, L)
    return backbone(backbone.embed(ids), position, causal)


# -- what is trained ------------------------------------------------------------------------------


def test_only_lora_and_the_four_rows_are_trained(folder):
    backbone = load(folder)
    names = trained(backbone)
    assert all(("lora_" in n) != ("trainable_tokens_delta" in n) for n in names)
    rows = [p for n, p in names.items() if "trainable_tokens" in n]
    assert [tuple(p.shape) for p in rows] == [(4, backbone.dim)] * (
        1 if TIED[Path(folder).name] else 2
    )
    lora = [n for n in names if "lora_" in n]
    assert len(lora) >= 2 * 2, "A and B in each of two layers"
    assert all(p.dtype == torch.float32 for p in names.values())


def test_the_frozen_table_gets_no_gradient(folder):
    backbone = load(folder)
    ids, before = all_ids(backbone), set(trained(backbone))
    backbone.logits(run(backbone, ids)).square().mean().backward()
    with_gradient = {n for n, p in backbone.named_parameters() if p.grad is not None}
    assert with_gradient == before
    for name, p in trained(backbone).items():
        if "lora_A" not in name:  # B starts at zero, so A has no slope yet
            assert p.grad.abs().max() > 0, name
    # encoding items turns adapters off and on again: the same weights train after it
    backbone.item_output(ids, torch.ones_like(ids, dtype=torch.bool))
    with backbone.tokens_merged():
        pass
    assert set(trained(backbone)) == before


def test_training_mode_reaches_the_dropout_of_the_adapters_only(folder):
    backbone = load(folder, lora_dropout=0.5).train()
    on = {n for n, m in backbone.lm.named_modules() if m.training}
    assert on and all("lora_dropout" in n for n in on)
    assert not [n for n, m in backbone.eval().lm.named_modules() if m.training]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("film", [" film", " cinema"])
def test_the_four_rows_start_as_words_of_that_meaning(kind, film, folders, monkeypatch):
    """Rows of the embedding and, where it is not tied, of the head."""
    if film != START["[ITEM]"]:  # the toy tokenizer knows films; this one it spells in pieces
        monkeypatch.setitem(START, "[ITEM]", film)
    backbone = load(folders[kind])
    plain, tokenizer = (
        c.from_pretrained(folders[kind]) for c in (AutoModelForCausalLM, AutoTokenizer)
    )
    tables = [plain.get_input_embeddings().weight, plain.get_output_embeddings().weight]
    assert (tables[0] is tables[1]) == TIED[kind]
    # in the order [ITEM], [SEP], [REC], [REC_END]
    ids = [tokenizer(w, add_special_tokens=False)["input_ids"] for w in (film, ",", "[", "]")]
    assert (len(ids[0]) == 1) == (film == " film")
    rows_in, rows_out = (torch.stack([t[i].mean(0) for i in ids]) for t in tables)
    special, hidden = torch.tensor(backbone.tokenizer.special_ids), torch.randn(5, backbone.dim)
    torch.testing.assert_close(backbone.embed(special), rows_in, atol=1e-6, rtol=1e-6)
    logits = backbone.logits(hidden)[:, -4:]
    torch.testing.assert_close(logits, hidden @ rows_out.T, atol=1e-5, rtol=1e-5)
    assert torch.equal(backbone.embed(torch.tensor(ids[1])), tables[0][ids[1]]), "words stay"


# -- our readings of peft's modules ---------------------------------------------------------------


def test_embed_and_logits_equal_pefts_own(folder):
    backbone = moved(folder)
    ids, hidden = all_ids(backbone), torch.randn(2, 3, backbone.dim)
    lm = backbone.lm.get_base_model()
    assert torch.equal(backbone.embed(ids), lm.get_input_embeddings()(ids))
    logits = backbone.logits(hidden)
    torch.testing.assert_close(logits, lm.get_output_embeddings()(hidden), atol=1e-6, rtol=1e-6)
    assert logits.shape == (2, 3, backbone.tokenizer.rec_end + 1)
    fresh = load(folder)
    special = torch.tensor(backbone.tokenizer.special_ids)
    assert torch.equal(backbone.embed(special, adapted=False), fresh.embed(special))
    assert (backbone.embed(special) - fresh.embed(special)).abs().min(1).values.max() > 0


def test_our_way_in_and_out_equals_the_lm_itself(folder):
    backbone = moved(folder)
    ids = all_ids(backbone)
    with torch.no_grad():
        expected = backbone.lm(input_ids=ids).logits
        torch.testing.assert_close(
            backbone.logits(run(backbone, ids)), expected, atol=2e-5, rtol=1e-5
        )


def test_position_vectors_are_what_the_lm_adds(folder):
    """Taken off the input and the position moved: learned positions cancel, rotary has none."""
    backbone = load(folder)
    kind, position = Path(folder).name, torch.tensor([[3]])
    placed = backbone.position_vectors(position)
    assert (placed is None) == (kind in ("llama", "qwen2", "gpt_neox"))
    if placed is not None:
        x, mask = torch.randn(1, 1, backbone.dim), torch.zeros(1, 1, 1, 1)
        other = backbone.position_vectors(position + 4)
        a, b = backbone(x - placed, position, mask), backbone(x - other, position + 4, mask)
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        assert (backbone(x, position, mask) - a).abs().max() > 1e-3


# -- item outputs ---------------------------------------------------------------------------------


def test_item_features_ignore_the_adapters_unless_asked(folder):
    fresh, other = load(folder), moved(folder)
    ids = all_ids(fresh)
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        off = other.item_output(ids, mask)
        assert torch.equal(off, fresh.item_output(ids, mask)), "the cache would go stale"
        on = other.item_output(ids, mask, adapted=True)
        assert (on - off).abs().max() > 0.05
        torch.testing.assert_close(on, run(other, ids), atol=1e-5, rtol=1e-5)
        # LoRA alone, on words alone
        words = ids[:1, :4]
        a, b = (other.item_output(words, mask[:1, :4], adapted=x) for x in (True, False))
        assert (a - b).abs().max() > 0.01


def test_item_features_ignore_padding_and_the_future(folder):
    backbone = load(folder)
    ids = all_ids(backbone)[:1]
    with torch.no_grad():
        whole = backbone.item_output(ids, torch.ones_like(ids, dtype=torch.bool))
        mask = (torch.arange(8) < 5)[None]
        part = backbone.item_output(torch.where(mask, ids, 0), mask)
        assert torch.isfinite(part).all()
        torch.testing.assert_close(part[:, :5], whole[:, :5], atol=1e-5, rtol=1e-5)
        # what the mask hides is not read, wherever it stands
        hole = torch.arange(8) != 2
        a, b = (backbone.item_output(ids.masked_fill(~hole, t), hole[None]) for t in (7, 40))
        assert torch.equal(a[:, hole], b[:, hole])
        assert (a[:, 5] - whole[:, 5]).abs().max() > 1e-3


# -- merged rows, for `generate` ------------------------------------------------------------------


def test_merged_rows_act_as_trained_and_are_restored(folder):
    backbone = moved(folder)
    before, ids = everything(backbone), all_ids(backbone)
    hidden = torch.randn(1, backbone.dim)
    lm = backbone.lm.get_base_model()
    plain_in = lm.get_input_embeddings().token_adapter.base_layer
    plain_out = lm.get_output_embeddings().token_adapter.base_layer
    with torch.no_grad():
        embedded, logits = backbone.embed(ids), backbone.logits(hidden)
        expected = backbone.lm(input_ids=ids).logits
        assert not torch.equal(plain_in(ids), embedded)
        with backbone.tokens_merged() as merged:
            assert torch.equal(plain_in(ids), embedded)
            torch.testing.assert_close(plain_out(hidden), logits, atol=1e-6, rtol=1e-6)
            assert torch.equal(backbone.embed(ids), embedded)
            torch.testing.assert_close(backbone.logits(hidden), logits, atol=0, rtol=0)
            torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(backbone.lm(input_ids=ids).logits, expected, atol=0, rtol=0)
    after = everything(backbone)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_merged_rows_are_restored_after_an_exception(folder):
    backbone = moved(folder)
    before, ids = everything(backbone), all_ids(backbone)
    with torch.no_grad():
        expected = backbone.lm(input_ids=ids).logits
        for error in (RuntimeError, KeyboardInterrupt):
            with pytest.raises(error), backbone.tokens_merged():
                raise error
        after = everything(backbone)
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert torch.equal(backbone.lm(input_ids=ids).logits, expected)


# -- saving, loading, recognising -----------------------------------------------------------------


def test_adapters_and_rows_survive_bit_for_bit(folder, tmp_path):
    backbone = moved(folder)
    backbone.save(tmp_path)
    again = load(folder, adapter=tmp_path).eval()
    weights, loaded = everything(backbone), everything(again)
    assert set(trained(again)) == set(trained(backbone)), "training can go on"
    assert set(loaded) == set(weights)
    for name, value in weights.items():
        assert torch.equal(loaded[name], value), name
    ids = all_ids(backbone)
    with torch.no_grad():
        assert torch.equal(again.embed(ids), backbone.embed(ids))
        a, b = again.logits(run(again, ids)), backbone.logits(run(backbone, ids))
        assert torch.equal(a, b)  # [ITEM] among them, tied or not
        fresh = load(folder)
        assert not torch.equal(fresh.logits(run(fresh, ids))[..., -4:], b[..., -4:])
    size = sum(f.stat().st_size for f in tmp_path.glob("*.safetensors"))
    needed = sum(4 * p.numel() for p in trained(backbone).values())
    table = 4 * backbone.dim * backbone.tokenizer.item
    assert size < needed + table / 4, "only what is trained is saved"


def test_the_same_folder_loads_the_same_twice(folder):
    a, b = load(folder), load(folder)
    assert a.fingerprint == b.fingerprint
    special = torch.tensor(a.tokenizer.special_ids)
    assert torch.equal(a.embed(special), b.embed(special)), "the four rows, whatever the seed"
    torch.manual_seed(1)
    assert torch.equal(load(folder).embed(special), a.embed(special))


def test_the_fingerprint_does_not_depend_on_threads(folders):
    threads, seen = torch.get_num_threads(), set()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            seen.add(load(folders["gpt2"]).fingerprint)
    finally:
        torch.set_num_threads(threads)
    assert len(seen) == 1


def test_any_change_moves_the_fingerprint(folders, tmp_path):
    original = Path(folders["gpt2"])
    state = load_file(original / "model.safetensors")
    seen = {load(str(original)).fingerprint}
    ulp = lambda w: torch.nextafter(w, w + 1)  # noqa: E731

    def changed(n: int, name: str, rows: Tensor) -> None:
        folder = shutil.copytree(original, tmp_path / str(n))
        save_file({**state, name: rows}, folder / "model.safetensors", metadata={"format": "pt"})
        seen.add(load(str(folder)).fingerprint)

    for n, (name, weight) in enumerate(state.items()):
        flat = weight.clone().flatten()
        flat[-1] = ulp(flat[-1])
        changed(n, name, flat.view_as(weight))
    wte = state["transformer.wte.weight"]
    changed(n + 1, "transformer.wte.weight", wte[[1, 0, *range(2, len(wte))]])  # two words swapped
    changed(n + 2, "transformer.wte.weight", -wte)
    assert len(seen) == 1 + len(state) + 2


def test_a_wider_table_than_vocabulary(folders, tmp_path):
    """Some models pad their tables; the four tokens stand behind the padding."""
    folder = shutil.copytree(folders["qwen2"], tmp_path / "padded")
    words = load(folders["qwen2"]).tokenizer.item
    AutoModelForCausalLM.from_config(tiny_config("qwen2", words + 10)).save_pretrained(folder)
    backbone = moved(str(folder))
    assert backbone.tokenizer.special_ids == list(range(words + 10, words + 14))
    ids = all_ids(backbone)
    lm = backbone.lm.get_base_model()
    assert torch.equal(backbone.embed(ids), lm.get_input_embeddings()(ids))


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_keeps_adapters_in_full(kind, folders):
    backbone = load(folders[kind], dtype=torch.bfloat16).eval()
    ids = all_ids(backbone)
    assert backbone.dtype == torch.bfloat16 == backbone.embed(ids).dtype
    assert {p.dtype for p in trained(backbone).values()} == {torch.float32}
    C = backbone.item_output(ids, torch.ones_like(ids, dtype=torch.bool))
    assert C.dtype == torch.bfloat16 and backbone.logits(C).dtype == torch.float32


# -- what cannot be used --------------------------------------------------------------------------


def broken_copy(folders: dict[str, str], tmp_path: Path, kind: str = "gpt2") -> Path:
    return Path(shutil.copytree(folders[kind], tmp_path / "broken"))


def test_a_missing_folder_is_named(tmp_path):
    missing = tmp_path / "no such model"
    with pytest.raises(BackboneError, match=r"cannot load the language model .*no such model"):
        load(str(missing))
    missing.mkdir()
    with pytest.raises(BackboneError, match=r"no such model.*\(give a folder with config\.json"):
        load(str(missing))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_a_damaged_folder_is_named(folders, tmp_path, file, how):
    folder = broken_copy(folders, tmp_path)
    path = folder / file
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BackboneError, match=r"cannot load the language model .*broken"):
        load(str(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_tokenizer_is_refused(folders, tmp_path, kind):
    folder = broken_copy(folders, tmp_path, kind)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(BackboneError, match=r"broken.*tokenizer"):
        load(str(folder))


def test_embeddings_of_another_size_are_refused(folders, tmp_path):
    folder = broken_copy(folders, tmp_path, "opt")
    config = tiny_config("opt", 374)
    config.word_embed_proj_dim = 16
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(BackboneError, match="in 16 dimensions but computes in 32"):
        load(str(folder))


def test_an_encoder_decoder_is_refused(folders, tmp_path):
    folder = broken_copy(folders, tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(BackboneError, match="broken"):
        load(str(folder))
