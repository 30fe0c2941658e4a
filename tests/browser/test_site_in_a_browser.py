"""The site and the slides as a reader opens them, in a real chromium without a network.

`make test-browser` runs this; it is skipped where Playwright, chromium or the extra `docs` is
missing. The screenshots `runs/browser/site_*.png` and `slides_*.png` are kept.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.serving import CHROMIUM, ROOT, SHOTS, free_port, served

playwright = pytest.importorskip("playwright.sync_api")
for package in ("sphinx", "furo", "myst_nb", "sphinx_revealjs", "latex2mathml"):
    pytest.importorskip(package)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
PHONE = {"width": 390, "height": 844}
# the theme hides what sticks out of the page, and lets a narrow page's content scroll as a whole
WIDTH = """Math.max(...[...document.querySelectorAll("html, body, .content, article")]
    .map(box => box.scrollWidth))"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    for kind in ("pages", "slides"):
        call = [sys.executable, "-m", "experiments.site", kind, str(made / kind)]
        subprocess.run(call, cwd=ROOT, check=True)
    return made


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    port = free_port()
    call = [sys.executable, "-m", "http.server", str(port), "-d", str(folder), "-b", "127.0.0.1"]
    url = f"http://127.0.0.1:{port}"
    with served(call, url, folder / "log"):
        yield url


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    """A page that fails the test for an error on its console or a request to another machine."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=PHONE)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda m: failures.append(m.text) if m.type == "error" else None)
        near = (address, "data:", "file:")
        page.on("request", lambda r: None if r.url.startswith(near) else failures.append(r.url))
        yield page
        browser.close()
    assert failures == []


def test_every_page_fits_a_phone(page: Any, address: str, folder: Path) -> None:
    pages = sorted(p.relative_to(folder) for p in (folder / "pages").rglob("*.html"))
    assert len(pages) > 30
    too_wide = []
    for path in pages:
        page.goto(f"{address}/{path}")
        if page.evaluate(WIDTH) > PHONE["width"]:
            too_wide.append(str(path))
    assert too_wide == []
    page.goto(f"{address}/pages/docs/glossary.html")
    page.evaluate("document.querySelector('h1').style.width = '800px'")
    assert page.evaluate(WIDTH) > PHONE["width"], "what is too wide would be noticed"


def test_wide_tables_and_formulas_scroll_in_their_box(page: Any, address: str) -> None:
    for path, box in (
        ("docs/results", ".table-wrapper"),
        ("docs/glossary", ".table-wrapper"),
        ("notebooks/04_retrieval_loss", "div.math"),
        ("notebooks/12_reproduction_report", ".cell_output"),
    ):
        page.goto(f"{address}/pages/{path}.html")
        moved = page.locator(box).evaluate_all(
            "boxes => boxes.filter(b => { b.scrollLeft = 50; return b.scrollLeft > 0 }).length"
        )
        assert moved, f"nothing to scroll in {path}"


def test_formulas_and_tables_are_drawn(page: Any, address: str) -> None:
    page.goto(f"{address}/pages/notebooks/04_retrieval_loss.html")
    formula = page.locator("div.math math").first
    assert formula.bounding_box()["height"] > 30  # fractions, not a line of letters
    formula.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / "site_phone.png")
    page.goto(f"{address}/pages/docs/glossary.html")
    page.screenshot(path=SHOTS / "site_glossary.png")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{address}/pages/index.html")
    page.screenshot(path=SHOTS / "site.png")


@pytest.mark.parametrize("where", ["a server", "the disk"])
def test_search_finds_a_word(page: Any, address: str, folder: Path, where: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{address if where == 'a server' else folder.as_uri()}/pages/index.html")
    box = page.get_by_role("textbox", name="Search")
    box.fill("angular_distance")
    box.press("Enter")
    found = page.locator("#search-results li a")
    found.first.wait_for()
    assert any("04_retrieval_loss" in (a.get_attribute("href") or "") for a in found.all())
    box = page.get_by_role("textbox", name="Search")
    box.fill("xyzzy")
    box.press("Enter")
    playwright.expect(page.locator("#search-results")).to_contain_text("did not match")


def test_slides_turn(page: Any, address: str, folder: Path) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    for path in sorted((folder / "slides" / "notebooks").glob("*.html")):
        page.goto(f"{address}/{path.relative_to(folder)}")
        page.wait_for_function("Reveal.isReady()")
        assert page.evaluate("Reveal.getTotalSlides()") >= 10, path.name
    page.goto(f"{address}/slides/notebooks/04_retrieval_loss.html")
    page.wait_for_function("Reveal.isReady()")
    page.screenshot(path=SHOTS / "slides_title.png")
    before = page.locator("section.present >> visible=true").last.inner_text()
    for k, key in enumerate(("ArrowRight", "ArrowDown", "ArrowRight", "ArrowRight")):
        page.keyboard.press(key)
        page.wait_for_timeout(300)
        page.screenshot(path=SHOTS / f"slides_{k}.png")
    assert page.locator("section.present >> visible=true").last.inner_text() != before
    assert "check(" not in page.content(), "exercises are for the notebook"
