"""The site and the slides: every notebook is there, every link leads somewhere, nothing is remote.

Skipped where the extra `docs` is not installed. How they look is tested in `tests/browser`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from experiments.notebooks import paths, repository
from experiments.site import build

ROOT = Path(__file__).resolve().parents[1]
DOCS = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "data").glob("**/README.md"))]


class Page(HTMLParser):
    """What a page links to and loads, and the places in it that links can name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []  # (tag, address)
        self.places: set[str] = set()
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append((tag, value))
            elif name in ("id", "name") and value:
                self.places.add(value)


def problems(folder: Path) -> list[str]:
    """Links that lead nowhere, and what a page would load from elsewhere."""
    pages = {path.resolve(): Page(path) for path in sorted(folder.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for tag, address in page.links:
            parts = urlsplit(address)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            if parts.netloc:
                wrong = "is loaded" if tag != "a" else ""
            elif parts.scheme:
                wrong = ""  # data:
            elif not target.exists():
                wrong = "is not there"
            else:
                wrong = "has no such place" if place and place not in pages[target].places else ""
            if wrong:
                found.append(f"{path.relative_to(folder.resolve())}: {address} {wrong}")
    for style in folder.rglob("*.css"):
        if re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8")):
            found.append(f"{style.name} loads something from elsewhere")
    return found


def not_shown(site: Path) -> list[str]:
    """Notebooks that lack a page with outputs, the Colab button or a place in the list."""
    start = Page(site / "index.html")
    lacking = []
    for path in paths():
        name = path.relative_to(ROOT).with_suffix("").as_posix()
        page = Page(site / f"{name}.html")
        colab = f"https://colab.research.google.com/github/{repository()}/blob/main/{name}.ipynb"
        button = page.links.count(("a", colab)) == 1 and 'alt="Open in Colab"' in page.html
        cells = "cell_output" in page.html and "cell_input" in page.html
        if not (button and cells and ("a", f"{name}.html") in start.links):
            lacking.append(name)
    return lacking


def test_the_site_is_whole_and_nothing_in_it_is_remote(tmp_path):
    for package in ("sphinx", "furo", "myst_nb", "sphinx_revealjs", "latex2mathml"):
        pytest.importorskip(package)
    site = tmp_path / "site"
    call = [sys.executable, "-m", "experiments.site", "pages", str(site)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]  # a warning of Sphinx is an error
    assert problems(site) == []
    assert not_shown(site) == []
    for path in (ROOT / "README.md", *DOCS):
        assert (site / path.relative_to(ROOT).with_suffix(".html")).exists()
    for name, formulas in (("notebooks/04_retrieval_loss", 1), ("docs/glossary", 40)):
        html = (site / f"{name}.html").read_text(encoding="utf-8")
        assert html.count("<math") >= formulas and "\\mathcal" not in html


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    pytest.importorskip("sphinx")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="something else"):
        build("pages", tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_broken_link_and_a_remote_script_are_noticed(tmp_path):
    (tmp_path / "a.html").write_text(
        '<script src="https://cdn.example/x.js"></script><a href="b.html">b</a>'
        '<a href="#x">x</a><a href="https://example.org">fine</a><i id="y"></i><a href="#y">y</a>'
    )
    (tmp_path / "a.css").write_text('@import "https://fonts.example/f.css";')
    assert len(problems(tmp_path)) == 4


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_the_docs_lead_somewhere(path):
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link


def test_the_teaching_plan_has_every_notebook_and_its_sections_exist():
    text = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert path.stem in text
    named = re.findall(r"\]\((\.\./notebooks/\S+?)\),? (?:up to )?\*([^*]+)\*", text)
    assert len(named) >= 6
    for link, section in named:
        source = (ROOT / "docs" / link).read_text(encoding="utf-8")
        assert f"## {section}" in source, f"{link} has no section {section!r}"
