"""What the browser tests share: the browser, a folder for pictures, servers on free ports."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


@contextmanager
def in_lab(notebook: Path, folder: Path) -> Iterator[str]:
    """A JupyterLab over a copy of the notebook in an empty folder: its address."""
    shutil.copy(notebook, folder)
    tracker = folder / "settings" / "@jupyterlab" / "notebook-extension"
    tracker.mkdir(parents=True)
    # every cell in the page, not only those in view
    (tracker / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": "none"}))
    port = free_port()
    call = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}",
        "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
        f"--LabApp.user_settings_dir={folder / 'settings'}",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with served(call, f"{url}/api", folder / "log"):
        yield f"{url}/lab/tree/{notebook.name}"


@contextmanager
def opened(width: int, height: int) -> Iterator[Any]:
    """An empty page of this size; an error of its scripts fails the test."""
    from playwright.sync_api import sync_playwright  # tests without it are skipped

    SHOTS.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("pageerror", lambda error: failures.append(str(error)))
        yield page
        browser.close()
    assert failures == []


def run_all(page: Any, address: str) -> None:
    """Open the notebook and start all its cells."""
    page.goto(address)
    page.locator(".jp-CodeCell").first.wait_for(timeout=60_000)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for(timeout=60_000)
    for _ in range(120):  # the page says "idle" before it is connected to a kernel
        with urllib.request.urlopen(f"{address.split('/lab/')[0]}/api/kernels") as reply:
            kernels = json.load(reply)
        if kernels and kernels[0]["connections"] and kernels[0]["execution_state"] == "idle":
            break
        page.wait_for_timeout(500)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("li[data-command='runmenu:run-all']").click()
