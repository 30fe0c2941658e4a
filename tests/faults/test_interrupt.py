"""The stop button of a notebook in the middle of training, in a real kernel."""

from __future__ import annotations

import time
from queue import Empty

import pytest

AREA = "Faults"

SET_UP = """
import logging, torch, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from pecrs_lib.data import Dialogue, Utterance
from pecrs_lib.model import PECRS
from pecrs_lib.recommend import recommend
from pecrs_lib.training import Trainer
from tests.faults.worker import CONFIG
from tests.toys import toy_catalogue, toy_dialogues

catalogue, out = toy_catalogue(24), Path({out!r})
dialogues = toy_dialogues(catalogue, 8, seed=0)
model = PECRS.from_backbone(CONFIG.with_(backbone={backbone!r}, epochs=500))
def say(step, losses):
    if step == 3:
        print("training", flush=True)
run = Trainer(model, catalogue, dialogues[:6], dialogues[6:], out, show=False, on_step=say)
"""
AFTER = """
def top(model):
    v = model.encode_catalogue(run.features)
    said = [Dialogue("x", (Utterance("seeker", "something scary"),))]
    return [(r.movie.id, round(r.score, 4)) for r in recommend(model, said, catalogue, v)[0]]
first = top(model)
assert len(first) == 10 and top(model) == first
assert all(torch.isfinite(p).all() for p in model.parameters())
assert top(PECRS.from_pretrained(out / "last")) == first
step = run.progress.step
assert step >= 3 and Trainer(PECRS.from_backbone(model.config), catalogue, dialogues[:6],
                            dialogues[6:], out, show=False).resume()
run.config = run.raw_model.config
next(run.epochs())  # and it goes on
assert run.progress.step > step
print("usable", flush=True)
"""


def test_ctrl_c_in_a_notebook_leaves_a_usable_model(tiny_backbone, tmp_path, monkeypatch, tried):
    manager_module = pytest.importorskip("jupyter_client.manager")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    manager, client = manager_module.start_new_kernel(kernel_name="python3")

    def run(code, stop_at=None):
        """The text a cell prints and the name of its error; interrupted once it says `stop_at`."""
        request = client.execute(code)
        said, failed, end = "", "", time.monotonic() + 120
        while time.monotonic() < end:
            try:
                message = client.get_iopub_msg(timeout=5)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                said += content["text"]
                if stop_at and stop_at in said:
                    stop_at = None
                    manager.interrupt_kernel()
            elif message["msg_type"] == "error":
                failed = "\n".join([content["ename"], *content["traceback"]])
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return said, failed
        raise TimeoutError(said)

    try:
        assert run(SET_UP.format(out=str(tmp_path), backbone=tiny_backbone))[1] == ""
        assert run("run.fit()", stop_at="training")[1].startswith("KeyboardInterrupt")
        said, failed = run(AFTER)
        assert (said.strip(), failed) == ("usable", "")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    tried(
        "Ctrl-C in a notebook in the middle of training", 1,
        "the model recommends, equals the state saved, and training goes on",
    )  # fmt: skip
