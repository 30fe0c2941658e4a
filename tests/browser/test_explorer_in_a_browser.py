"""Notebook 04 as a reader uses it: JupyterLab, a real chromium, keyboard and button.

`make test-browser` runs this; it is skipped where Playwright or chromium is missing. The screenshot
`runs/browser/explorer.png` is kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.browser.serving import CHROMIUM, ROOT, SHOTS, in_lab, opened, run_all

playwright = pytest.importorskip("playwright.sync_api")
NOTEBOOK = ROOT / "notebooks" / "04_retrieval_loss.ipynb"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with in_lab(NOTEBOOK, tmp_path_factory.mktemp("lab")) as url:
        yield url


def test_sliders_by_keyboard_and_live_training(address: str) -> None:
    with opened(1600, 1000) as page:
        run_all(page, address)
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
