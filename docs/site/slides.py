"""A lecture from a notebook: every idea is a slide, and its code is the slide below.

An idea is some prose and what the cells after it show. Its first slide holds the prose with the
first picture or table, which waits for a key where the prose asks for a prediction. Further ones
get a slide each, the last picture with the words that close the section. Then comes the code.
`static/slides.js` and `slides.css` make every slide fit.
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
WORDS = 75  # of all that is said to one picture, on one slide with it


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
        shown = [out for cell in self.cells for out in taken_out(cell)]
        code = list(pages(self.cells)) or [[]]
        later = ["fragment"] if self.asks() else []  # comes with the next key
        if not shown:
            for part in [part for cell in code[0] for part in outputs(cell)]:
                part["classes"] += later
            code[0][:0] = box("prose", self.prose)
            code[-1] += box("prose", self.reading, *later)
            yield from code
            return
        read = max((k for k, out in enumerate(shown) if is_picture(out)), default=len(shown) - 1)
        cut = self.apart(read == 0)
        if cut:
            yield box("prose", self.prose[:cut])
        for k, out in enumerate(shown):
            words = [*(self.prose[cut:] if k == 0 else []), *(self.reading if k == read else [])]
            hidden = later if k == 0 and not cut else []
            yield [*box("prose", words), *box("result", [out], *hidden)]
        yield from code

    def asks(self) -> bool:
        return any(re.search(r"\b[Pp]redict\b", block.astext()) for block in self.prose)

    def apart(self, read_at_once: bool) -> int:
        """How many blocks of the prose are a slide of their own: up to a table; or all, where the
        words to the same picture hold the answer, or would be too many."""
        words = sum(len(block.astext().split()) for block in [*self.prose, *self.reading])
        if read_at_once and self.reading and (self.asks() or words > WORDS):
            return len(self.prose)
        tables = [k for k, block in enumerate(self.prose) if isinstance(block, nodes.table)]
        return tables[-1] + 1 if tables else 0


def outputs(cell: nodes.Element) -> list[nodes.Element]:
    return [part for part in cell.children if "cell_output" in part["classes"]]


def taken_out(cell: nodes.Element) -> list[nodes.Element]:
    """Pictures, then tables of a cell, which keeps its code and what it prints. What stands under a
    heading stays with it."""
    found = [o for part in outputs(cell) for o in part if not isinstance(o, nodes.literal_block)]
    shown: list[nodes.Element] = []
    for out in found:
        out.parent.remove(out)
        if isinstance(out, nodes.rubric):
            shown.append(nodes.container("", out))
        elif shown and isinstance(shown[-1].next_node(), nodes.rubric) and not is_picture(out):
            shown[-1].append(out)
        else:
            shown.append(out)
    return sorted(shown, key=is_picture, reverse=True)


def is_picture(out: nodes.Element) -> bool:
    return next(iter(out.findall(nodes.image)), None) is not None


def box(name: str, children: list[nodes.Node], *more: str) -> list[nodes.Node]:
    """A container, unless there is nothing to put into it."""
    return [nodes.container("", *children, classes=[name, *more])] if children else []


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
        for slide in [slide for idea in ideas(blocks) for slide in idea.slides() if slide]:
            brake = [revealjs_break()] if place > 1 else []
            section[place:place] = [*brake, *box("idea", slide)]
            place += len(brake) + 1
