"""A lecture from a notebook: every idea is a slide, and its code is the slide below.

An idea is some prose and what the cells after it show. Its first slide holds the prose with the
first picture (or, if there is none, the first table); further ones get a slide each, the last with
the words that close the section. Then comes the code, with what it prints. `static/slides.js` and
`slides.css` make every slide fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx_revealjs.nodes import revealjs_break

LINES = 24  # of code and what it prints, on one slide


def without_scaffolding(notebook: dict[str, Any]) -> None:
    """A lecture shows neither set-up, imports and parameters nor the cells that check answers."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for k, cell in enumerate(code):
        if k < 3 or re.search(r"^check\(", "".join(cell["source"]), re.M):
            cell["metadata"].setdefault("tags", []).append("remove-cell")


@dataclass
class Idea:
    """Prose, the cells after it, and the words after those that end the section."""

    prose: list[nodes.Node] = field(default_factory=list)
    cells: list[nodes.Element] = field(default_factory=list)
    reading: list[nodes.Node] = field(default_factory=list)

    def slides(self) -> Iterator[list[nodes.Node]]:
        """What stands on each slide; pictures and tables are taken out of their cells."""
        shown = [out for cell in self.cells for out in outputs(cell) if not is_text(out)]
        shown.sort(key=is_table)  # a picture goes first
        for out in shown:
            out.parent.remove(out)
        code = list(pages(self.cells))
        if not shown and len(code) <= 1:
            yield [box("prose", self.prose), *(code[0] if code else ()), box("prose", self.reading)]
            return
        for k, out in enumerate(shown):
            before = self.prose if k == 0 else []
            after = self.reading if k == len(shown) - 1 else []
            yield [box("prose", [*before, *after]), box("result", [out])]
        if not shown:
            yield [box("prose", self.prose), *code.pop(0)]
        yield from code
        if not shown and self.reading:
            yield [box("prose", self.reading)]


def outputs(cell: nodes.Element) -> list[nodes.Element]:
    return [out for part in cell.children if "cell_output" in part["classes"] for out in part]


def is_table(out: nodes.Element) -> bool:
    return next(iter(out.findall(nodes.image)), None) is None


def is_text(out: nodes.Element) -> bool:
    return isinstance(out, nodes.literal_block)


def box(name: str, children: list[nodes.Node]) -> nodes.Element:
    return nodes.container("", *children, classes=[name])


def pages(cells: list[nodes.Element]) -> Iterator[list[nodes.Node]]:
    """Cells, a few lines of code on each slide."""
    page: list[nodes.Node] = []
    length = 0
    for cell in cells:
        lines = sum(block.astext().count("\n") + 2 for block in cell.findall(nodes.literal_block))
        if page and length + lines > LINES:
            yield page
            page, length = [], 0
        page.append(cell)
        length += lines
    if page:
        yield page


def ideas(blocks: list[nodes.Element]) -> list[Idea]:
    """The children of a section, apart from its title and its subsections."""
    found = [Idea()]
    for block in blocks:
        if "cell" in block.get("classes", []):
            found[-1].cells.append(block)
        elif found[-1].cells:
            found.append(Idea([block]))
        else:
            found[-1].prose.append(block)
    if len(found) > 1 and not found[-1].cells:
        closing = found.pop()
        found[-1].reading = closing.prose
    return found


def sections_to_slides(app: Sphinx, document: nodes.document, name: str) -> None:
    """A section goes right, its ideas and their code go down."""
    if app.builder.name != "revealjs":
        return
    for section in list(document.findall(nodes.section)):
        inner = (nodes.title, nodes.section)
        blocks = [child for child in section.children if not isinstance(child, inner)]
        for block in blocks:
            section.remove(block)
        place = section.first_child_matching_class(nodes.title) + 1
        for slide in [slide for idea in ideas(blocks) for slide in idea.slides()]:
            brake = [revealjs_break()] if place > 1 else []
            section[place:place] = [*brake, box("idea", slide)]
            place += len(brake) + 1
