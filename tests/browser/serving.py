"""What the browser tests share: the browser, a folder for pictures, a server on a free port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SHOTS = ROOT / "runs" / "browser"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def served(call: Sequence[str], probe: str, log: Path) -> Iterator[None]:
    """Run a server; go on when the address `probe` answers, whatever it says."""
    with log.open("w") as out:
        server = subprocess.Popen(
            call, stdout=out, stderr=out, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
    try:
        for _ in range(180):
            try:
                urllib.request.urlopen(probe, timeout=2).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(f"the server did not start: {log.read_text()[-500:]}")
        yield
    finally:
        server.terminate()
        server.wait(timeout=20)
