"""`make demo`, cut down: what it prints and leaves behind, and that a second run goes on."""

from __future__ import annotations

import json

import pytest

from experiments import demo
from pecrs_lib.data import load_minireel

CONFIG = demo.CONFIG.with_(warm_start=1, candidates=8)
DIALOGUES, TESTS = 16, 12


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


def run(out, capsys) -> str:
    demo.main(out, CONFIG, DIALOGUES, TESTS)
    return capsys.readouterr().out


def test_from_data_to_a_conversation(out, capsys):
    said = run(out, capsys)
    catalogue, _ = load_minireel()
    for part in range(1, 7):
        assert f"\n{part}. " in f"\n{said}"
    assert "done before" not in said and "going on" not in said
    rows = json.loads((out / "results.json").read_text())
    systems = {row["system"] for row in rows}
    assert {"Random", "Popularity", "Co-occurrence", "BM25"} < systems
    assert {"PECRS, trained here", "PECRS, as shipped"} < systems
    assert all(row["R@10"]["low"] <= row["R@10"]["value"] <= row["R@10"]["high"] for row in rows)
    for name in ("training.png", "recall.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    answers = said.split("recommender: ")[1:]
    assert len(answers) == len(demo.SAID)
    assert all("before re-ranking" in answer for answer in answers)
    named = [movie.name for movie in catalogue if movie.name in said.split("6. A")[1]]
    assert len(named) >= 3


def test_a_second_run_trains_nothing_again(out, capsys):
    known = json.loads((out / "losses.json").read_text())
    rows = json.loads((out / "results.json").read_text())
    kept = {path: path.stat().st_mtime_ns for path in (out / "cache").rglob("*") if path.is_file()}
    said = run(out, capsys)
    assert "done before" in said and "going on from the last checkpoint" in said
    assert json.loads((out / "losses.json").read_text()) == known
    assert len(known["warm start"]) == 1 and len(known["steps"]) == 1
    assert json.loads((out / "results.json").read_text()) == rows
    assert kept and all(path.stat().st_mtime_ns == at for path, at in kept.items())
