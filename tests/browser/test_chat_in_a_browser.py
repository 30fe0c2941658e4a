"""The chat page as a visitor uses it: Voilà, a real chromium, keyboard and buttons.

`make test-browser` runs this; it is skipped where Playwright, Voilà or chromium is missing. The
screenshots `runs/browser/chat.png` and `chat_reaction.png` are kept.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pecrs_lib.data import read_jsonl
from tests.browser.serving import CHROMIUM, SHOTS, free_port, opened, served

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("voila")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
LINE = "Hi! I loved Home Alone and Incpetion. Something with robots?"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page over the bundled model."""
    port = free_port()
    call = [sys.executable, "-m", "pecrs_lib", "chat", "--page", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with served(call, f"{url}/voila/static/", tmp_path_factory.mktemp("chat") / "log"):
        yield url


def test_a_conversation(address: str, tmp_path: Path) -> None:
    with opened(1000, 1230) as page:
        page.goto(address)
        expect = playwright.expect
        line = page.get_by_role("textbox", name="You")
        line.wait_for(timeout=180_000)  # torch, the model and 600 films
        log = page.get_by_role("log")
        said, cards = log.locator("p"), page.locator("article:visible")

        def exchanges(n: int) -> None:
            expect(log.locator(".recommender")).to_have_count(n, timeout=60_000)
            expect(log).to_have_attribute("aria-busy", "false", timeout=60_000)

        def pause() -> None:
            page.wait_for_timeout(500)  # a click this soon after an answer counts as a double one

        line.fill(LINE)
        line.press("Enter")
        exchanges(1)
        expect(line).to_have_value("")
        expect(cards).to_have_count(3, timeout=10_000)
        expect(said.first).to_contain_text(LINE)
        for part in ("h3", ".place", ".genre", ".why"):
            assert cards.first.locator(part).first.inner_text().strip(), part
        assert page.locator("tbody tr").count() == 10
        pause()
        page.get_by_role("button", name="Inception (2010)").click()
        expect(said.first).to_contain_text("Inception (2010)", timeout=60_000)
        exchanges(1)
        page.screenshot(path=SHOTS / "chat.png", full_page=True)

        pause()
        title = cards.first.locator("h3").inner_text().split("\n")[0].removesuffix(" recommended")
        page.get_by_role("button", name="Seen", exact=True).first.dblclick()
        exchanges(2)
        assert f"I have seen {title}. What else?" in log.inner_text()
        assert title not in cards.first.locator("h3").inner_text()
        page.screenshot(path=SHOTS / "chat_reaction.png", full_page=True)
        pause()
        assert log.locator(".recommender").count() == 2, "a double click says it once"

        with page.expect_download() as download:
            page.get_by_role("link", name="Export as JSON").click()
        download.value.save_as(tmp_path / download.value.suggested_filename)
        (talk,) = read_jsonl(tmp_path / "conversation.jsonl")
        assert [u.role for u in talk.utterances] == ["seeker", "recommender"] * 2
        assert len(talk.utterances[0].items) == 2

        page.get_by_role("button", name="Undo").click()
        exchanges(1)
        pause()
        line.fill("<img src=x onerror='document.title=1'> <b>robots</b>")
        page.get_by_role("button", name="Send").click()
        exchanges(2)
        assert "<b>robots</b>" in log.inner_text() and log.locator("img, b").count() == 0
        pause()
        line.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("the line is empty")
        pause()
        line.fill("half a line")
        page.get_by_role("button", name="Restart").click()
        expect(log).to_contain_text("Say what you are in the mood for")
        expect(cards).to_have_count(0)
        expect(line).to_have_value("half a line")
        assert not re.search("Traceback|Error", page.inner_text("body"))
