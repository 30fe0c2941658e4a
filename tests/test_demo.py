"""`make demo`, cut down: what it prints and leaves behind, and that a second run goes on."""

from __future__ import annotations

import json

from experiments import demo
from pecrs_lib.data import load_minireel

CONFIG = demo.CONFIG.with_(warm_start=1, candidates=8)
DIALOGUES, TESTS = 16, 12


def test_from_data_to_a_conversation_and_once_more(tmp_path, capsys):
    demo.main(tmp_path, CONFIG, DIALOGUES, TESTS)
    said = capsys.readouterr().out
    for part in range(1, 7):
        assert f"\n{part}. " in f"\n{said}"
    assert "done before" not in said and "going on" not in said
    rows = json.loads((tmp_path / "results.json").read_text())
    systems = {row["system"] for row in rows}
    assert {"Random", "Popularity", "Co-occurrence", "BM25"} < systems
    assert {"PECRS, trained here", "PECRS, as shipped"} < systems
    assert all(row["R@10"]["low"] <= row["R@10"]["value"] <= row["R@10"]["high"] for row in rows)
    for name in ("training.png", "recall.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    answers = said.split("recommender: ")[1:]
    assert len(answers) == len(demo.SAID)
    assert all("before re-ranking" in answer for answer in answers)
    catalogue, _ = load_minireel()
    assert sum(movie.name in said.split("6. A")[1] for movie in catalogue) >= 3

    losses = json.loads((tmp_path / "losses.json").read_text())
    assert len(losses["warm start"]) == 1 and losses["steps"]
    cached = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    demo.main(tmp_path, CONFIG, DIALOGUES, TESTS)
    said = capsys.readouterr().out
    assert "done before" in said and "going on from the last checkpoint" in said
    assert json.loads((tmp_path / "losses.json").read_text()) == losses, "nothing is trained again"
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    assert cached and all(path.stat().st_mtime_ns == at for path, at in cached.items())
