"""Widgets: a control redraws, a mistake is a sentence, a double click trains once."""

from __future__ import annotations

import json
import time

import ipywidgets as ipw
import pytest
from matplotlib.figure import Figure

from pecrs_lib.config import TINY
from pecrs_lib.data import bundled
from pecrs_lib.figures import diagrams
from pecrs_lib.model import PECRS
from pecrs_lib.widgets import (
    Panel,
    balance,
    float_slider,
    loss_playground,
    slider,
    token_inspector,
    why_this_film,
)
from pecrs_lib.widgets.explorer import Outputs, Setting
from pecrs_lib.widgets.explorer_widget import Explorer, explorer_figure


def results(name: str) -> dict:
    return json.loads((bundled("results") / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    outputs = Outputs.load(bundled("explorer") / "outputs.safetensors")
    return Explorer(outputs, results("explorer_grid"), results("explorer_cost"), epochs=1)


def wait(explorer: Explorer) -> None:
    explorer.worker.join(timeout=60)
    assert not explorer.worker.is_alive()


def test_a_control_redraws_and_a_mistake_is_a_sentence():
    def draw(x: int) -> Figure:
        if x == 3:
            raise ValueError("three <is> too many")
        return diagrams.bars_figure({"x": x}, "x")

    panel = Panel(draw, "a bar", x=slider("x", [1, 2, 3], 1))
    first = panel.picture.value
    assert first.startswith('<img alt="a bar" src="data:image/png;base64,iVBOR')
    panel.controls["x"].value = 2
    assert panel.picture.value != first
    second = panel.picture.value
    panel.controls["x"].value = 3
    assert "three &lt;is> too many" in panel.message.value and panel.picture.value == second
    panel.controls["x"].value = 1
    assert panel.message.value == "" and panel.picture.value == first


def test_sliders_report_when_let_go():
    assert slider("x", [1], 1).continuous_update is False
    assert float_slider("x", 0, 1, 0.5).continuous_update is False


def test_every_slider_of_the_explorer_redraws(explorer):
    seen = {explorer.panel.picture.value}
    changes = {
        "negatives": 64, "candidates": 10, "temperature": 0.3, "k": 10, "share_over_tasks": False,
        "share_over_batch": False, "popular": True,
    }  # fmt: skip
    for name, value in changes.items():
        explorer.panel.controls[name].value = value
        assert explorer.panel.picture.value not in seen, name
        seen.add(explorer.panel.picture.value)


def test_more_negatives_than_films_explain_themselves(explorer):
    control = explorer.panel.controls["negatives"]
    control.value = 1024
    assert "more than the 599 other films" in explorer.panel.message.value
    explorer.start()
    wait(explorer)
    assert "more than the 599 other films" in explorer.status.value
    assert explorer.live == [] and not explorer.train.disabled
    control.value = 16
    assert explorer.panel.message.value == ""


def test_live_training_draws_its_point_once(explorer):
    before = explorer.panel.picture.value
    explorer.train.click()
    explorer.train.click()  # a double click
    wait(explorer)
    assert len(explorer.live) == 1
    assert "R@50" in explorer.status.value and explorer.bar.value == 1.0
    assert explorer.panel.picture.value != before
    assert not explorer.train.disabled and explorer.cancel.disabled


def test_cancel_changes_nothing(explorer):
    n = len(explorer.live)
    explorer.epochs = 200
    explorer.train.click()
    time.sleep(0.2)
    explorer.cancel.click()
    wait(explorer)
    explorer.epochs = 1
    assert len(explorer.live) == n and "cancelled" in explorer.status.value


def test_the_picture_alone(explorer):
    figure = explorer_figure(explorer.grid, explorer.cost, Setting(None, candidates=600))
    assert len(figure.axes) == 3 and figure.axes[0].get_ylabel() == "Recall@50 (%)"


def test_playground_and_balance():
    panel = loss_playground()
    before = panel.picture.value
    panel.controls["negative"].value = 10
    assert panel.picture.value != before
    rows = [{"epoch": 1.0, "recall": 2.0, "rerank": 1.0, "gen": 3.0}] * 2
    weights = balance(rows)
    for name in ("alpha", "beta", "gamma"):
        weights.controls[name].value = 0
    assert "nothing to train" in weights.message.value


def test_inspector_and_why(tiny_backbone, catalogue):
    model = PECRS.from_backbone(TINY.with_(backbone=tiny_backbone, lora_rank=4, window=384)).eval()
    inspector = token_inspector(model, catalogue)
    tokens = inspector.picture.value
    inspector.controls["show"].value = "mask"
    assert inspector.picture.value != tokens and inspector.message.value == ""
    inspector.controls["text"].value = ""
    assert inspector.message.value == ""
    v = model.encode_catalogue(model.item_features(catalogue))
    why = why_this_film(model, catalogue, v)
    before = why.picture.value
    why.controls["top"].value = 5
    assert why.picture.value != before and isinstance(why.controls["text"], ipw.Text)
