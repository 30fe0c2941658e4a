"""The cost model: counts agree with the models themselves, times with the benchmark within 2."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from pecrs_lib.batches import make_batch
from pecrs_lib.context import encode_dialogues
from pecrs_lib.costs.counting import kept_for_backward, padded, pairs
from pecrs_lib.costs.estimate import (
    Data,
    Run,
    cache_bytes,
    estimate,
    memory_of,
    padding,
    read_flop,
    reply_seconds,
    step_flop,
)
from pecrs_lib.costs.measured import data_of, laptop, machine_of, read_records, share_of
from pecrs_lib.costs.shapes import MACHINES, SHAPES, Machine, Shape
from pecrs_lib.data import bundled
from pecrs_lib.devices import recompute_layers
from pecrs_lib.figures.scaling_figures import (
    FACTOR,
    catalogue_table,
    check_figure,
    check_table,
    devices_table,
    estimate_figure,
    growth_table,
    inside_table,
    latency_figure,
    official_figure,
    official_table,
    scaling_figure,
    seconds_table,
)
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.widgets.calculator_widget import OWN, calculator_widget, plan, plan_table
from tests.benchmarks import bench_gpu
from tests.test_one_pass import CONFIG
from tests.toys import save_tiny_backbone, toy_dialogues

SMALL = SHAPES["GPT-2 small"]
INSPIRED = Data()
A100 = MACHINES["NVIDIA A100 80 GB"]


def result(name: str) -> dict:
    return json.loads((bundled("results") / f"{name}.json").read_text(encoding="utf-8"))


RECORDS = read_records(bundled("results"))
each_record = pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)


# -- counts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_presets_have_the_weights_of_the_models(shape):
    if shape.name.startswith("GPT-2"):
        config = GPT2Config(n_layer=shape.layers, n_embd=shape.dim, n_head=16)
    else:
        inner, heads, kv = (8192, 32, 8) if shape.layers == 16 else (11_008, 32, 32)
        config = LlamaConfig(
            vocab_size=shape.vocabulary, hidden_size=shape.dim, intermediate_size=inner,
            num_hidden_layers=shape.layers, num_attention_heads=heads, num_key_value_heads=kv,
            tie_word_embeddings=shape.layers == 16,
        )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert model.num_parameters() == shape.parameters
    layers = [
        p for n, p in model.named_parameters() if p.dim() == 2 and (".h." in n or ".layers." in n)
    ]
    assert sum(p.numel() for p in layers) == shape.linear


def shape_of(model: PECRS) -> Shape:
    c = model.backbone.lm.config
    return Shape.gpt2("tiny", c.n_layer, c.n_embd, c.vocab_size)


def test_trained_weights_are_those_of_the_model(tiny_backbone):
    model = PECRS.from_backbone(
        CONFIG.with_(backbone=tiny_backbone, lora_rank=16, query_pooling=False)
    )
    table = model.parameter_table()
    assert shape_of(model).trained == pytest.approx(sum(table.values()) - table["frozen"], rel=0.02)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_kept_values_are_those_autograd_keeps(kind, tmp_path, catalogue):
    model = PECRS.from_backbone(
        CONFIG.with_(
            backbone=save_tiny_backbone(tmp_path, kind),
            lora_rank=2,
            negatives=9,
            retrieval_negatives=9,
        )
    ).train()
    windows = encode_dialogues(
        toy_dialogues(catalogue, 2, seed=0), catalogue, model.backbone.tokenizer,
        **model.window_limits,
    )  # fmt: skip
    features = model.item_features(catalogue)
    batch = make_batch(windows, len(catalogue), model.config, torch.Generator().manual_seed(0))
    lm, rows = model.backbone.lm.config, torch.arange(len(catalogue))
    v = model.encode_catalogue(features)
    if kind == "gpt2":
        shape = Shape.gpt2("tiny", lm.n_layer, lm.n_embd)
    else:
        kv = lm.hidden_size // lm.num_attention_heads * lm.num_key_value_heads
        shape = Shape.llama(
            "tiny", lm.num_hidden_layers, lm.hidden_size, lm.intermediate_size, 9, kv, tied=True
        )

    def kept() -> float:  # values, which are float32
        return kept_for_backward(model, lambda: model.read(batch, v, rows))[1] / 4

    whole = kept()
    recompute_layers(model.backbone.lm.get_base_model())
    saved = (whole - kept()) / batch.token.numel() / shape.layers  # what checkpointing saves
    assert 0.6 * shape.kept < saved + shape.dim < 1.1 * shape.kept


def test_pairs_and_padding_by_hand(tiny_backbone, catalogue):
    model = PECRS.from_backbone(CONFIG.with_(backbone=tiny_backbone))
    dialogues = toy_dialogues(catalogue, 3, seed=0)
    windows = encode_dialogues(
        dialogues, catalogue, model.backbone.tokenizer, **model.window_limits
    )
    batch = pack(windows[:1])
    S = batch.shared
    if not any(len(turn.items) > 1 for turn in windows[0].turns):  # no response branches
        assert pairs(batch)["needed"] == S * (S + 1) // 2
    config = model.config.with_(negatives=9, retrieval_negatives=9)
    wide = make_batch(windows, len(catalogue), config, torch.Generator().manual_seed(0))
    found = pairs(wide)
    assert found["needed"] < found["computed"] < found["mask over everything"]
    lengths = [len(w.token) for w in windows]
    assert padded([windows]) == pytest.approx(3 * max(lengths) / sum(lengths))
    assert padded([[w] for w in windows]) == 1


def test_operations_by_hand():
    one = Shape.gpt2("one layer", 1, 2, vocabulary=5)
    assert one.linear == 48
    assert read_flop(one, 3) == 2 * 3 * 48
    assert step_flop(one, 3, 1) == 2 * 2 * 3 * 48 + 2 * 2 * 1 * 5 * 2
    assert step_flop(one, 3, 0, checkpointing=True) == 1.5 * step_flop(one, 3, 0)
    assert cache_bytes(one, 7, "bfloat16") == 2 * 1 * 2 * 7 * 2
    machine = Machine("m", {"float32": 1e9}, 1e6, 1.0)
    alone = reply_seconds(one, machine, "float32", 1.0, context=0, tokens=1)
    assert alone == pytest.approx(4 * 58 / 1e6 + 2 * 58 / 1e9)
    eight = reply_seconds(one, machine, "float32", 1.0, replies=8, context=0, tokens=1)
    assert alone < eight < 2 * alone, "the weights are read once for all"


def test_padding_is_the_longest_of_normal_lengths():
    assert padding(1, 0.5) == 1
    for n in (2, 4, 8):
        drawn = torch.randn(200_000, n, generator=torch.Generator().manual_seed(0))
        longest = 1 + 0.2 * float(drawn.max(1).values.mean())
        assert padding(n, 0.2) == pytest.approx(longest, abs=0.01)


# -- times --------------------------------------------------------------------------------------


@each_record
def test_predictions_are_within_two_of_what_was_measured(record):
    table = check_table(record)
    assert set(table["part"]) == {"training", "encoding", "ranking", "writing"}
    assert table["measured"].max() > 5 * table["measured"].min(), "one number could not fit all"
    if record["dtype"] == "float32":
        assert table["factor"].between(1 / FACTOR, FACTOR).all(), table.to_string()
    assert 1 / FACTOR < table["factor"].median() < FACTOR
    memory = (table["GB predicted"] / table["GB measured"]).dropna()
    assert len(memory) and memory.between(1 / FACTOR, FACTOR).all()


def test_the_check_can_fail():
    record = result("bench_scaling")
    slow = [row | {"seconds": row["seconds"] * 5} for row in record["write"]]
    assert not check_table(record | {"write": slow})["factor"].between(1 / FACTOR, FACTOR).all()


@each_record
def test_what_is_read_off_the_benchmark_makes_sense(record):
    data, share = data_of(record, items=100), share_of(record)
    assert 0 < share < 1 and data.items == 100
    assert 0 < data.scored < data.tokens and 0 < data.recommending < 10 and data.spread > 0
    assert record["dtype"] in machine_of(record).flops


def test_more_of_anything_costs_more():
    base = Run(dtype="bfloat16", batch=8)

    def hours(run=base, shape=SMALL, data=INSPIRED, share=0.5):
        return sum(estimate(shape, data, A100, run, share).hours.values())

    for change in ({"M_train": 300}, {"M_inference": 1400}, {"epochs": 40}, {"checkpointing": True},
                   {"dtype": "float32"}):  # fmt: skip
        assert hours(replace(base, **change)) > hours(), change
    assert hours(shape=SHAPES["GPT-2 medium"]) > 3 * hours()
    assert hours(data=Data(dialogues=8010)) > 8 * hours()
    assert hours(share=0.25) == pytest.approx(2 * hours())
    assert hours(replace(base, devices=8)) == pytest.approx(hours() / 8)
    assert hours(replace(base, devices=5)) > hours() / 5, "eight dialogues leave two of ten idle"


def test_memory():
    seven = SHAPES["Llama-like, 7 B"]
    run = Run(dtype="bfloat16", batch=8, devices=8)
    parts = memory_of(seven, INSPIRED, run)
    assert parts["frozen weights"] == 2 * seven.parameters
    shared = memory_of(seven, INSPIRED, replace(run, shared=True))
    assert shared["frozen weights"] < parts["frozen weights"] / 5
    less = memory_of(seven, INSPIRED, replace(run, checkpointing=True))
    assert less["activations"] < parts["activations"] / 5
    small = replace(A100, memory=16e9)
    assert not estimate(seven, INSPIRED, small, run, 0.5).fits
    assert not estimate(
        seven, INSPIRED, replace(A100, memory=13e9), replace(run, shared=True), 0.5
    ).fits
    assert estimate(seven, INSPIRED, small, replace(run, shared=True), 0.5).fits


def test_money_is_hours_times_devices_times_price():
    run = Run(dtype="bfloat16", batch=4, devices=4)
    found = estimate(SMALL, INSPIRED, replace(A100, price=3.0), run, 0.5)
    assert found.money == pytest.approx(12 * sum(found.hours.values()))


@pytest.mark.parametrize(
    ("change", "share", "complaint"),
    [
        ({"M_train": 0}, 0.5, "M_train must be above 0, got 0"),
        ({"M_train": 1663}, 0.5, "M_train is 1663, but there are only 1662 items"),
        ({"devices": 2}, 0.5, "a batch of 1 leaves 1 of 2 devices idle"),
        ({"epochs": -1}, 0.5, "epochs must be above 0"),
        ({"shared": True}, 0.5, "cannot be shared out over one device"),
        ({"dtype": "int8"}, 0.5, "no rate of .* in int8"),
        ({}, 0.0, "share is a part of the peak"),
        ({}, 1.5, "share is a part of the peak"),
    ],
)
def test_nonsense_is_a_sentence(change, share, complaint):
    with pytest.raises(ValueError, match=complaint):
        estimate(SMALL, INSPIRED, A100, Run(**change), share)


def test_nonsense_about_machines_and_models():
    with pytest.raises(ValueError, match="price must not be negative"):
        estimate(SMALL, INSPIRED, replace(A100, price=-1.0), Run(), 0.5)
    with pytest.raises(ValueError, match="read must be above 0"):
        estimate(SMALL, INSPIRED, replace(A100, read=0), Run(), 0.5)
    with pytest.raises(ValueError, match="layers must be above 0"):
        Shape.gpt2("none", 0, 768)
    with pytest.raises(ValueError, match="no backbone 'GPT-5'; there are GPT-2 small"):
        plan(RECORDS, "GPT-5")


# -- pictures and the calculator ----------------------------------------------------------------


def test_pictures():
    record = result("bench_scaling")
    official = pd.read_csv(bundled("paper") / "official_costs.csv", index_col="what")
    table = official_table(official, result("bench_one_pass"), record)
    assert (table["this package"] < table["official code"]).all()
    large = result("large_catalogue")
    drawn = [
        scaling_figure(record), check_figure(RECORDS), official_figure(table),
        latency_figure(record, large), estimate_figure(*plan(RECORDS)[:2]),
    ]  # fmt: skip
    assert all(isinstance(f, Figure) and f.axes for f in drawn)
    shares = devices_table(SHAPES["Llama-like, 7 B"], INSPIRED, list(MACHINES.values()), 0.5)
    assert shares.loc[shares["weights shared"], "fits"].all()
    machine = laptop([RECORDS["float32"]])
    sizes = catalogue_table(record, machine, [10_000, 100_000])
    assert sizes["encoding (h)"].iloc[1] == pytest.approx(10 * sizes["encoding (h)"].iloc[0])
    assert list(growth_table(SHAPES).index) == list(SHAPES)
    assert (seconds_table(record)["floor"] < seconds_table(record)["seconds"]).all()
    inside = inside_table(RECORDS)
    floors = [
        record["inside"]["seconds"] / record["inside"]["floor"] for record in RECORDS.values()
    ]
    assert inside.filter(like="floors").sum(axis=1).tolist() == pytest.approx(floors)
    with pytest.raises(ValueError, match="M = 7 was not measured, but"):
        latency_figure(record, large, M=7)


def test_the_plan_without_controls():
    found, machine, share = plan(RECORDS)
    assert machine.name == laptop([RECORDS["float32"]]).name
    assert share == share_of(RECORDS["float32"])
    table = plan_table(found)
    assert table.loc["money, at your price", "how much"] == 0
    assert table.loc["hours: training", "how much"] == found.hours["training"]
    paid, _, _ = plan(RECORDS, machine="NVIDIA L4", price=2.0, share=0.3)
    assert paid.money == pytest.approx(2 * sum(paid.hours.values()))


def test_the_calculator_redraws_and_explains():
    panel = calculator_widget(RECORDS)
    seen = {panel.picture.value}
    changes = {
        "dialogues": 5000, "M_train": 64, "epochs": 3, "M_inference": 100, "items": 20_000,
        "backbone": "GPT-2 medium", "machine": "NVIDIA A100 80 GB", "dtype": "bfloat16",
        "checkpointing": True, "share": 20.0,
    }  # fmt: skip
    for name, value in changes.items():
        panel.controls[name].value = value
        assert panel.message.value == "" and panel.picture.value not in seen, name
        seen.add(panel.picture.value)
    assert panel.controls["price"].value == A100.price
    panel.controls["devices"].value = 8
    assert "leaves 7 of 8 devices idle" in panel.message.value
    panel.controls["batch"].value = 8
    assert panel.message.value == "" and "It fits." in panel.below.value
    panel.controls["backbone"].value = "Llama-like, 7 B"
    panel.controls["machine"].value = OWN
    panel.controls["memory_gb"].value = 8.0
    assert "It does not fit" in panel.below.value
    panel.controls["tflops"].value = -1.0
    assert "must be above 0" in panel.message.value
    assert all(control.tooltip for control in panel.controls.values())


def test_the_lines_that_the_notebook_explains_stand_in_the_configuration():
    root = Path(__file__).resolve().parents[1]
    text = (root / "configs" / "fsdp_7b.yaml").read_text(encoding="utf-8")
    lines = {line.partition(" #")[0].strip() for line in text.splitlines()}
    notebook = nbformat.read(root / "notebooks" / "15_scaling_up.ipynb", as_version=4)
    (cell,) = (c.source for c in notebook.cells if "`distributed_type: FSDP`" in c.source)
    told = re.findall(r"`(\w+: \S+)`", cell)
    assert len(told) > 6 and set(told) <= lines


@pytest.mark.filterwarnings("ignore")  # of torch.compile
def test_the_benchmark_of_gpus_runs_on_a_cpu_and_says_where_there_is_no_gpu(tmp_path, monkeypatch):
    def run(*arguments):
        place = tmp_path / "report.json"
        monkeypatch.setattr("sys.argv", ["bench_gpu", *arguments, "--json", str(place)])
        bench_gpu.main()
        return json.loads(place.read_text())

    tiny = ("--device", "cpu", "--shape", "tiny", "--backend", "eager", "--repeat", "1")
    found = run(*tiny)
    flags = {(row["checkpointing"], row["compiled"]) for row in found["rows"]}
    assert len(flags) == len(found["rows"]) == 4
    assert all(row["points_per_second"] > 0 < row["share_of_peak"] < 1 for row in found["rows"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    empty = run()
    assert empty["device"] is None and len(empty["rows"]) == 12
    assert not any("seconds" in row for row in empty["rows"])
