"""Training that is killed, runs out of disk, may not write, or meets numbers that are none."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pecrs_lib.model import PECRS

AREA = "Faults"
NOBODY = 65534
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits its files")


def same_end(found, whole):
    assert found.get("history") == whole["history"], found
    assert found["weights"] == whole["weights"]


def test_killed_at_any_moment_it_ends_in_the_same_numbers(ask, whole, tmp_path, request, tried):
    """Every other time inside the writing of a checkpoint."""
    kills = request.config.getoption("kills")
    rng = random.Random(kills)
    done = inside = begun = 0
    for trial in range(10 * kills):
        out = tmp_path / str(trial)
        if done % 2:
            write = 2 + done // 2 % 3  # after the first there is something to go on from
            when = {"kill_in": [write, rng.uniform(0, 0.02)]}
        else:
            when = {"kill_after": rng.uniform(0, whole["seconds"])}
        (killed,) = ask({"out": out, **when})
        if "killed" not in killed:  # it had ended before
            continue
        assert "history" not in killed
        (again,) = ask({"out": out})
        same_end(again, whole)
        done, inside = done + 1, inside + killed["in_a_write"]
        begun += again["begun"] > 0
        if done == kills:
            break
    assert done == kills and inside >= kills // 4 and begun
    tried(
        "training killed (SIGKILL) at a random moment, then resumed", done,
        f"{done} of {done} ended in the uninterrupted run's metrics and weights, bit for bit; "
        f"{inside} were killed while a checkpoint was written, {begun} went on from a step above 0",
    )  # fmt: skip


def test_killed_again_and_again_it_arrives(ask, whole, tmp_path, request, tried):
    kills = request.config.getoption("kills")
    rng = random.Random(1)
    count = 0
    for _ in range(kills):
        (killed,) = ask({"out": tmp_path, "kill_in": [1, rng.uniform(0, 0.03)]})
        count += "killed" in killed
    (end,) = ask({"out": tmp_path})
    same_end(end, whole)
    assert count
    tried("one run killed in every checkpoint it writes", count, "the same metrics at the end")


def test_killed_in_the_warm_start_it_begins_it_anew(ask, tmp_path, request, tried):
    """It leaves no checkpoint, and most of this run is warm start."""
    kills = max(2, request.config.getoption("kills") // 4)
    rng = random.Random(2)
    config = {"warm_start": 60, "query_pooling": True, "epochs": 1}
    (whole,) = ask({"out": tmp_path / "whole", "config": config})
    done = 0
    for trial in range(10 * kills):
        job = {"out": tmp_path / str(trial), "config": config}
        (killed,) = ask({**job, "kill_after": rng.uniform(0.1, 0.9) * whole["seconds"]})
        if "killed" in killed and not {"last", "best"} & {*killed["there"]}:
            (again,) = ask(job)
            same_end(again, whole)
            assert again["begun"] == 0
            done += 1
        if done == kills:
            break
    assert done == kills
    tried("training killed (SIGKILL) in its warm start", done, "the same metrics and weights")


def broken(found, *words):
    """The run ended with one line that holds these words."""
    line = found.get("line")
    assert line and "\n" not in line, found
    for word in words:
        assert str(word) in line, line


def test_a_full_disk_keeps_what_was_there(ask, whole, tmp_path, tried):
    """By a limit on the size of files, in every place where a run writes one."""
    sizes = sorted({p.stat().st_size for p in last_files(ask, tmp_path / "sizes")})
    features = max((tmp_path / "sizes" / "cache").iterdir()).stat().st_size
    limits = [100, *(s - 1 for s in sizes if s > 1000)]
    lines = set()
    for limit in limits:
        out = tmp_path / str(limit)
        (full,) = ask({"out": out, "file_limit": limit, "config": {"epochs": 4}})
        if limit < features:
            broken(full, out / "cache", "free some space")
            assert list((out / "cache").iterdir()) == []
        else:
            broken(full, out, "free some space")
        lines.add(full["line"].replace(str(out), ""))
        assert not [p for p in out.rglob("*") if ".new" in p.name or p.name.endswith(".part")]
        (again,) = ask({"out": out})
        same_end(again, whole)
    assert len(lines) > 1  # not only the first file
    tried(
        "disk full while a file is written (limit on file sizes)", len(limits),
        "one line that names the file; the state before is kept; the same command then goes on",
    )  # fmt: skip


def last_files(ask, out):
    ask({"out": out})
    return [p for p in out.rglob("*") if p.is_file()]


def test_the_state_before_survives_a_full_disk(ask, whole, tmp_path):
    """A run stopped after an epoch goes on, cannot write, and is what it was."""
    ask({"out": tmp_path, "kill_in": [3, 0.0]})
    before = {p: p.read_bytes() for p in (tmp_path / "last").rglob("*") if p.is_file()}
    assert before
    (full,) = ask({"out": tmp_path, "file_limit": 20_000})
    broken(full, "kept")
    assert {p: p.read_bytes() for p in before} == before
    PECRS.from_pretrained(tmp_path / "last")
    (again,) = ask({"out": tmp_path})
    same_end(again, whole)


def test_a_full_file_system(ask, whole, tmp_path, tried):
    """A tmpfs of sizes that end the space in the cache and in the checkpoints."""
    place = tmp_path / "small"
    place.mkdir()
    sizes = ("64k", "400k", "800k", "1200k")
    met = []
    for size in sizes:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("this user may not mount a file system")
        try:
            (full,) = ask({"out": place / "run"})
            if "history" in full:
                same_end(full, whole)
                continue
            broken(full, place, "free some space")
            met.append(full["line"])
            last = place / "run" / "last"
            if last.exists():
                PECRS.from_pretrained(last)
        finally:
            subprocess.run(["umount", str(place)], check=True)
    assert any("cache" in line for line in met) and any("cache" not in line for line in met), met
    tried(
        "file system full (tmpfs of several sizes)", len(met),
        "one line that names the file; what was complete loads",
    )  # fmt: skip


@pytest.mark.parametrize("what", ["run", "cache"])
def test_a_read_only_folder_is_named(ask, whole, tiny_backbone, what, tried):
    """By another user, where the tests run as root: root may write everywhere."""
    user = {"user": NOBODY} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory() as name:  # whose parents everybody may read
        place = Path(name)
        place.chmod(0o755)
        backbone = str(shutil.copytree(tiny_backbone, place / "lm"))
        out, cache = place / "run", place / "cache"
        job = {"out": out, "cache": cache, "config": {"backbone": backbone}}
        ask({**job, "kill_in": [3, 0.0]})
        if what == "cache":
            shutil.rmtree(cache)
            cache.mkdir()
        folder = out if what == "run" else cache
        modes = {p: p.stat().st_mode for p in [*place.rglob("*"), place]}
        for p in modes:
            p.chmod(0o755 if p.is_dir() else 0o644)
        folder.chmod(0o555)
        try:
            (found,) = ask({**job, **user})
            broken(found, folder, "another folder" if what == "cache" else "kept")
        finally:
            folder.chmod(0o755)
        (again,) = ask(job)
        same_end(again, whole)
    tried(f"folder of the {what} read-only", 1, "one line that names the file; later it goes on")


def test_runs_that_share_a_cache_do_not_disturb_each_other(ask, whole, tmp_path, request, tried):
    rounds = max(1, request.config.getoption("kills") // 4)
    for n in range(rounds):
        cache = tmp_path / f"cache{n}"
        jobs = [{"out": tmp_path / f"{n}-{k}", "cache": cache} for k in range(3)]
        for found in ask(*jobs):
            same_end(found, whole)
        assert len(list(cache.iterdir())) == 1  # one file, and nothing left beside it
    tried("three runs begun at once with one cache", 3 * rounds, "the same metrics in all")


def test_numbers_that_are_none_stop_the_run_and_name_the_dialogues(ask, whole, tmp_path, tried):
    """A learning rate under which weights overflow, after an epoch that was good."""
    ask({"out": tmp_path, "kill_in": [3, 0.0]})
    (found,) = ask({"out": tmp_path / "bad", "config": {"learning_rate": 1e30, "clip": 1e30}})
    assert found["error"] == "FloatingPointError"
    broken(found, tmp_path / "bad" / "nonfinite.json", "learning rate")
    record = json.loads((tmp_path / "bad" / "nonfinite.json").read_text())
    assert record["dialogues"] and {*record["dialogues"]} <= {f"d{k}" for k in range(6)}
    assert record["value"] in ("nan", "inf", "-inf") and record["what"] in ("loss", "gradient")
    tried(
        "a loss or gradient that is NaN or infinite", 1,
        "one line; the ids of the batch's dialogues are in nonfinite.json",
    )  # fmt: skip
