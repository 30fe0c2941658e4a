"""docs/architecture.md: its walk runs as it stands there, and its tables are those of the code."""

from __future__ import annotations

import doctest
from pathlib import Path

from experiments.architecture import PAGE, THINGS, WAYS, modules_text, page
from tests.test_package import FLOW, PACKAGE


def test_the_walk_runs_as_it_stands_there():
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, verbose=False)
    assert tried > 20 and failed == 0


def test_every_module_is_listed_with_its_size_and_reason():
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run python -m experiments.architecture"
    listed = modules_text()
    for path in PACKAGE.rglob("*.py"):
        assert f"| `{path.stem}` | {len(path.read_text('utf-8').splitlines())} |" in listed


def test_the_picture_names_modules_that_there_are():
    for source, target, modules in WAYS:
        assert {source, target} <= THINGS.keys()
        assert set(modules.split()) <= set(FLOW)
        (x0, y0), (x1, y1) = THINGS[source][0], THINGS[target][0]
        assert (y1, x1) > (y0, x0), "the flow turns back"
    assert Path(PAGE.parents[1] / "figures" / "architecture.png").exists()
