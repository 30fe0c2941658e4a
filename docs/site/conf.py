"""How Sphinx makes pages (`make site`) and slides (`make slides`) of the notebooks and docs.

Nothing is downloaded, neither here nor by a reader's browser: formulas become MathML, the Colab
button is a picture of ours, and search, styles and reveal.js come with the packages of the extra
`docs`. Notebooks are shown with the outputs they are committed with; no cell is executed.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from slides import sections_to_slides, without_scaffolding  # noqa: E402

from experiments.notebooks import repository  # noqa: E402

project = "PECRS, step by step"
html_title = project
author = "The pecrs_lib contributors"
extensions = ["myst_nb", "sphinx_revealjs"]
if tags.has("slides"):  # noqa: F821  -- from Sphinx: what `-t` names
    root_doc = "notebooks/00_quickstart"
    include_patterns = ["notebooks/*.ipynb"]
    suppress_warnings = ["toc.not_included", "myst.xref_missing"]  # links to solutions and docs
else:
    root_doc = "README"
    include_patterns = ["*.md", "docs/*.md", "data/*/README.md", "data/*/*/README.md",
                        "notebooks/*.ipynb", "notebooks/*/*.ipynb"]  # fmt: skip
exclude_patterns = ["[.]*", "runs", "site", "slides", "**/.*", "**/__pycache__"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_update_mathjax = False
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # they would come from a CDN
nb_mime_priority_overrides = [
    ("revealjs", kind, place)
    for place, kind in enumerate(("image/png", "text/html", "text/markdown", "text/plain"))
]
highlight_language = "none"
pygments_style = "default"

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = "static/icon.svg"
html_show_sourcelink = False
html_show_copyright = False
html_copy_source = False
html_show_search_summary = False  # a page opened from a disk may not fetch other pages

revealjs_static_path = ["static"]
revealjs_css_files = ["slides.css"]
revealjs_style_theme = "white"
revealjs_script_files = ["slides.js"]
revealjs_script_conf = {
    "hash": True, "center": False, "slideNumber": "c/t", "transition": "none", "display": "flex",
    "width": 1280, "height": 720, "margin": 0,
    "viewDistance": 1000, "mobileViewDistance": 1000,  # all laid out at once, to be measured
}  # fmt: skip

BADGE = re.compile(r"\[!\[Open in Colab\].*?\)\]\(.*?\)\s*")
PAGES = """
```{{toctree}}
:hidden:
:caption: {caption}

{pages}
```
"""
SECTIONS = {
    "Notebooks": "notebooks/*.ipynb",
    "For teachers and students": "docs/*.md",
    "Cards": "data/**/README.md",
    "Solutions": "notebooks/solutions/*.ipynb",
}


def with_pages(text: str) -> str:
    """The README with links to every page, which Sphinx shows at its side."""
    for caption, pattern in SECTIONS.items():
        found = sorted(p.relative_to(ROOT) for p in ROOT.glob(pattern))
        pages = [path.with_suffix("").as_posix() for path in found]
        text += PAGES.format(caption=caption, pages="\n".join(pages))
    return text + PAGES.format(caption="Project", pages="CHANGELOG\nCONTRIBUTING")


def colab_button(name: str) -> str:
    address = f"https://colab.research.google.com/github/{repository()}/blob/main/{name}.ipynb"
    return f"[![Open in Colab](/docs/site/static/colab.svg)]({address})\n\n"


def with_button(name: str, notebook: dict[str, Any]) -> None:
    """Our own button under the title, in place of one whose picture comes from the network."""
    first = notebook["cells"][0]
    title, _, rest = "".join(first["source"]).partition("\n\n")
    first["source"] = f"{title}\n\n{colab_button(name)}{BADGE.sub('', rest)}"


def on_read(app: Sphinx, name: str, source: list[str]) -> None:
    if name == "README":
        source[0] = with_pages(source[0])
    elif name.startswith("notebooks/"):
        notebook = json.loads(source[0])
        with_button(name, notebook)
        if app.builder.name == "revealjs":
            without_scaffolding(notebook)
        source[0] = json.dumps(notebook)


def math(translator: Any, node: nodes.Element) -> None:
    block = isinstance(node, nodes.math_block)
    mathml = convert(node.astext(), display="block" if block else "inline")
    translator.body.append(f'<div class="math">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (math, None), (math, None))
    app.connect("source-read", on_read)
    app.connect("doctree-resolved", sections_to_slides)
