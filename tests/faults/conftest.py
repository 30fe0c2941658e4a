"""One worker for all tests of faults: it imports once and forks for every training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def ask(tiny_backbone: str) -> Iterator[Ask]:
    """Runs jobs at the same time and returns what came of each (see `worker`)."""
    command = [sys.executable, "-m", "tests.faults.worker", tiny_backbone]
    calm = os.environ | {"OMP_NUM_THREADS": "1"}  # one thread: processes forked of many may hang
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=calm, text=True, **pipes) as worker:  # type: ignore[call-overload]

        def asked(*jobs: dict[str, Any]) -> list[dict[str, Any]]:
            worker.stdin.write(json.dumps(jobs, default=str) + "\n")
            worker.stdin.flush()
            return json.loads(worker.stdout.readline())

        yield asked
        worker.stdin.close()


@pytest.fixture(scope="session")
def whole(ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an uninterrupted run ends in."""
    (found,) = ask({"out": tmp_path_factory.mktemp("whole")})
    assert len(found["history"]) == 4 and found["begun"] == 0, found
    return found
