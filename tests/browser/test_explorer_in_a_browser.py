"""Notebook 04 as a reader uses it: JupyterLab, a real chromium, keyboard and button.

`make test-browser` runs this; it is skipped where Playwright or chromium is missing. The screenshot
`runs/browser/explorer.png` is kept.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tests.browser.serving import CHROMIUM, ROOT, SHOTS, free_port, served

playwright = pytest.importorskip("playwright.sync_api")
NOTEBOOK = ROOT / "notebooks" / "04_retrieval_loss.ipynb"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A JupyterLab over a copy of the notebook."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(NOTEBOOK, folder)
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
        yield f"{url}/lab/tree/{NOTEBOOK.name}"


def test_sliders_by_keyboard_and_live_training(address: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
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
        train = page.get_by_role("button", name="Train live")
        train.wait_for(timeout=400_000)
        picture = page.locator("img[alt^='recall and cost over M_train']").last
        train.scroll_into_view_if_needed()

        def shown() -> str:
            return picture.get_attribute("src") or ""

        def changed(before: str, seconds: float) -> bool:
            end = time.time() + seconds
            while time.time() < end:
                if shown() != before:
                    return True
                time.sleep(0.2)
            return False

        box = page.locator(".widget-vbox", has=train).last
        before = shown()
        handle = box.locator(".noUi-handle").first
        handle.focus()
        handle.press("ArrowRight")
        assert changed(before, 20), "the arrow key moves M_train and redraws"

        for _ in range(3):
            handle.press("ArrowRight")
            time.sleep(0.5)
        page.get_by_text("more than the 599 other films").last.wait_for(timeout=20_000)
        for _ in range(3):
            handle.press("ArrowLeft")
            time.sleep(0.5)

        time.sleep(3)  # the last arrow's picture
        before = shown()
        train.click()
        playwright.expect(train).to_be_disabled(timeout=10_000)
        playwright.expect(train).to_be_enabled(timeout=60_000)
        assert changed(before, 20), "the live point is drawn"
        train.scroll_into_view_if_needed()
        page.screenshot(path=SHOTS / "explorer.png")
        assert not failures
        browser.close()
