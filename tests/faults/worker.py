"""Trainings that are killed, for `tests/faults`: ``python -m tests.faults.worker BACKBONE``.

Reads a line of JSON, a list of jobs, and answers with a line, a list of what came of them. Jobs of
a list run at the same time, each in a process of its own, forked after the imports: those take
seconds, a training on toys less. A job:

    out         folder of the run; what is there is resumed
    cache       folder of item features; out/cache if missing
    kill_after  seconds after which the process gets SIGKILL
    kill_in     [n, seconds]: SIGKILL that long after a checkpoint is begun to be written, the n-th
    file_limit  the largest file that the process may write, in bytes: a disk that is full
    user        number of the user that the process becomes
    config      settings that differ
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pecrs_lib.cli.terminal import advice
from pecrs_lib.config import Config
from pecrs_lib.data.storage import sha256
from pecrs_lib.model import PECRS
from pecrs_lib.training import Trainer
from tests.toys import toy_catalogue, toy_dialogues

CONFIG = Config(
    context_tokens=64, utterance_tokens=48, window=192, lora_rank=4, lora_dropout=0.1,
    negatives=10, epochs=4, batch_size=3, learning_rate=3e-3, candidates=12, warmup_epochs=0.5,
)  # fmt: skip
NEW = ("last.new", "best.new")  # a checkpoint while it is written
BETWEEN = ("last.old", "best.old")  # between the two renames, and until the old one is deleted


def train(job: dict[str, Any], backbone: str) -> dict[str, Any]:
    """Resume or begin, to the end; the history and a digest of every file of weights."""
    if "file_limit" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"],) * 2)
    if "user" in job:
        os.setuid(job["user"])
    torch.manual_seed(0)
    catalogue = toy_catalogue(24)
    dialogues = toy_dialogues(catalogue, 8, seed=0)
    out = Path(job["out"])
    model = PECRS.from_backbone(CONFIG.with_(**{"backbone": backbone, **job.get("config", {})}))
    cache = Path(job["cache"]) if "cache" in job else None
    run = Trainer(model, catalogue, dialogues[:6], dialogues[6:], out, cache_dir=cache, show=False)
    run.resume()
    begun = run.progress.step
    run.fit()
    weights = {str(p.relative_to(out)): sha256(p) for p in sorted(out.glob("*/**/*.safetensors"))}
    return {"begun": begun, "history": run.progress.history, "weights": weights}


def fork(job: dict[str, Any], backbone: str) -> tuple[int, int]:
    """Process id, and the end of a pipe that the answer comes out of."""
    out, into = os.pipe()
    if pid := os.fork():
        os.close(into)
        return pid, out
    try:
        answer = train(job, backbone)
    except BaseException as error:
        answer = {"error": type(error).__name__, "line": advice(error), "said": str(error)}
    with os.fdopen(into, "w", encoding="utf-8") as file:
        file.write(json.dumps(answer))
    os._exit(0)


def kill(job: dict[str, Any], pid: int) -> dict[str, Any]:
    """Wait for the moment, kill, and say what there was; nothing if it had ended before."""
    out = Path(job["out"])
    writes, seconds = job.get("kill_in", (0, job.get("kill_after", 0)))
    writing = False
    while writes:  # one more checkpoint begins whenever a new folder of that name is there
        if os.waitpid(pid, os.WNOHANG)[0]:
            return {}
        now = any((out / name).exists() for name in NEW)
        writes -= now and not writing
        writing = now
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    names = {p.name for p in out.iterdir()} if out.exists() else set()
    return {"killed": True, "in_a_write": bool(names & {*NEW, *BETWEEN}), "there": sorted(names)}


def answer(jobs: list[dict[str, Any]], backbone: str) -> list[dict[str, Any]]:
    started = time.monotonic()
    running = [fork(job, backbone) for job in jobs]
    results = []
    for job, (pid, out) in zip(jobs, running, strict=True):
        found = kill(job, pid) if {"kill_in", "kill_after"} & job.keys() else {}
        with os.fdopen(out, encoding="utf-8") as file:
            said = file.read()
        if not found:
            try:
                _, status = os.waitpid(pid, 0)
            except ChildProcessError:  # waited for above
                status = 0
            found = {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else json.loads(said)
        results.append(found | {"seconds": time.monotonic() - started})
    return results


def main() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line), sys.argv[1])) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
