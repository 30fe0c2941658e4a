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

from tests.browser.serving import CHROMIUM, ROOT, SHOTS, free_port, opened, served

playwright = pytest.importorskip("playwright.sync_api")
for package in ("sphinx", "furo", "myst_nb", "sphinx_revealjs", "latex2mathml"):
    pytest.importorskip(package)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
PHONE = {"width": 390, "height": 844}
# the theme hides what sticks out of the page, and lets a narrow page's content scroll as a whole
WIDTH = """Math.max(...[...document.querySelectorAll("html, body, .content, article")]
    .map(box => box.scrollWidth))"""
SCREEN = {"width": 1280, "height": 720}
# what of the slide that is shown sticks out, is scrolled, or is too small for the last row
MISFITS = """() => {
    const slide = Reveal.getCurrentSlide(), misfits = new Set();
    const title = slide.querySelector("h1, h2, h3").innerText;
    for (const box of slide.querySelectorAll("*:not(math *)")) {
        const { left, top, right, bottom } = box.getBoundingClientRect();
        const inside = left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
        const { fontSize, overflowX, overflowY } = getComputedStyle(box);
        if (["auto", "scroll"].includes(overflowY) && box.scrollHeight > box.clientHeight + 1
            || ["auto", "scroll"].includes(overflowX) && box.scrollWidth > box.clientWidth + 1)
            misfits.add("scrolls");
        else if (box.clientWidth && !inside) misfits.add("sticks out");
        if (box.matches("p, li, td, code") && parseFloat(fontSize) < 13) misfits.add("small type");
        if (box.matches(".result img") && Math.min(box.clientWidth / box.naturalWidth,
            box.clientHeight / box.naturalHeight) < 0.6) misfits.add("small picture");
    }
    return [...misfits].map(text => `${title}: ${text}`);
}"""
# over the steps of a slide, which bring what waits for a key
NEXT = """const from = Reveal.getCurrentSlide();
    while (!Reveal.isLastSlide() && Reveal.getCurrentSlide() == from) Reveal.next()"""


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
    failures: list[str] = []
    with opened(**PHONE) as page:
        page.on("console", lambda m: failures.append(m.text) if m.type == "error" else None)
        near = (address, "data:", "file:")
        page.on("request", lambda r: None if r.url.startswith(near) else failures.append(r.url))
        yield page
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


def test_every_slide_fits_the_screen(page: Any, address: str, folder: Path) -> None:
    page.set_viewport_size(SCREEN)
    misfits = []
    decks = sorted((folder / "slides" / "notebooks").glob("*.html"))
    assert len(decks) > 16
    for path in decks:
        page.goto(f"{address}/{path.relative_to(folder)}")
        page.wait_for_selector(".reveal.arranged")
        for _ in range(page.evaluate("Reveal.getTotalSlides()")):
            misfits += [f"{path.stem}, {text}" for text in page.evaluate(MISFITS)]
            page.evaluate(NEXT)
        assert page.evaluate("Reveal.isLastSlide()")
    assert not misfits
    page.evaluate("Reveal.getCurrentSlide().querySelector('.idea').style.fontSize = '200px'")
    assert page.evaluate(MISFITS), "what does not fit would be noticed"


def test_a_picture_stands_with_its_words_and_code_below(page: Any, address: str) -> None:
    page.set_viewport_size(SCREEN)
    page.goto(f"{address}/slides/notebooks/04_retrieval_loss.html")
    page.wait_for_selector(".reveal.arranged")
    page.screenshot(path=SHOTS / "slides_title.png")
    shown = page.locator("section.present:not(.stack)")
    page.keyboard.press("ArrowRight")
    with_words = shown.filter(has=page.locator(".prose p")).filter(has=page.locator("img"))
    for k in range(3):
        page.screenshot(path=SHOTS / f"slides_{k}.png")
        if with_words.count():
            break
        page.keyboard.press("ArrowDown")
    words = shown.inner_text()
    assert with_words.count() == 1 and shown.locator("pre").count() == 0
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert shown.inner_text() != words
    assert "check(" not in page.content(), "exercises are for the notebook"
