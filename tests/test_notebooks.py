"""The notebooks' form (their content is executed by nbval): what a reader may rely on in each."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import nbformat
import pytest

from experiments.notebooks import badges, cleaned, paths, repository

ROOT = Path(__file__).resolve().parents[1]
ALL = paths()
LESSONS = [p for p in ALL if p.parent.name == "notebooks"]
lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
every = pytest.mark.parametrize("path", ALL, ids=lambda p: p.stem)


def cells(path: Path, kind: str = "") -> list:
    notebook = nbformat.read(path, as_version=4)
    return [c for c in notebook.cells if kind in c.cell_type]


def problems(path: Path) -> list[str]:
    """What keeps a notebook from being as committed by a run from top to bottom."""
    found = []
    code = cells(path, "code")
    if [c.execution_count for c in code] != list(range(1, len(code) + 1)):
        found.append("not executed from top to bottom")
    for k, cell in enumerate(code):
        text = str(cell.outputs)
        if any(o.output_type == "error" for o in cell.outputs):
            found.append(f"cell {k} failed")
        if any(o.get("name") == "stderr" for o in cell.outputs):
            found.append(f"cell {k} wrote to stderr")
        if re.search(r"/(home|tmp|root|work|usr)/|https?://|\d+%\|", text):
            found.append(f"cell {k} shows a path, an address or a progress bar")
        last = ast.parse(cell.source).body[-1]
        if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
            name = ast.unparse(last.value.func)
            if name.endswith(("_figure", "_diagram", "_strip")) and "image/png" not in text:
                found.append(f"cell {k} has lost its figure")
    return found


def test_there_are_notebooks_and_every_lesson_has_solutions():
    assert len(LESSONS) >= 8
    solved = {p.stem.removesuffix("_solutions") for p in ALL} - {p.stem for p in LESSONS}
    assert not solved
    assert {f"{p.stem}_solutions" for p in LESSONS} <= {p.stem for p in ALL}


@every
def test_committed_as_run_from_top_to_bottom(path):
    assert problems(path) == []


def test_a_notebook_without_outputs_fails(tmp_path):
    notebook = nbformat.read(LESSONS[0], as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, tmp_path / "stripped.ipynb")
    found = problems(tmp_path / "stripped.ipynb")
    assert "not executed from top to bottom" in found and len(found) > 1


@lessons
def test_the_first_cells(path):
    first = cells(path)[0].source
    for part in (
        "# ",
        "colab-badge.svg",
        "**You will learn**",
        "**Time**",
        "**Needs**",
        "**Paper**",
    ):
        assert part in first, part
    assert f"/github/{repository()}/blob/main/notebooks/{path.name}" in first
    setup, imports, parameters = cells(path, "code")[:3]
    assert "setup" in setup.metadata.tags and "import" in imports.source
    assert "parameters" in parameters.metadata.tags


def test_one_set_up_cell():
    setups = {cells(p, "code")[0].source for p in ALL}
    assert len(setups) == 1
    assert f"git+https://github.com/{repository()}" in setups.pop()


@lessons
def test_sizes(path):
    assert len(cells(path)) <= 45
    lines = [len(c.source.splitlines()) for c in cells(path, "code")[1:]]  # the first is shared
    assert max(lines) <= 15 and statistics.median(lines) <= 7
    for cell in cells(path, "markdown"):
        prose = re.sub(r"\|.*\||\(http\S*\)", "", cell.source)
        assert len(prose.split()) <= 120, cell.source[:60]


@every
def test_no_number_of_a_result_is_typed_into_prose(path):
    not_results = r"`[^`]*`|\(http\S*\)|[Ss]ections? \d\.\d(,? (and )?\d\.\d)*"
    for cell in cells(path, "markdown"):
        prose = re.sub(not_results, "", cell.source)
        typed = re.findall(r"(?<![\w./])\d+\.\d+(?![\w.])", prose)
        assert not typed, f"{typed} in: {cell.source[:80]}"


@lessons
def test_every_section_shows_something(path):
    shown: dict[str, bool] = {}
    section = ""
    for cell in cells(path)[4:]:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("## "):
                section = line
                shown[section] = False
        if section and (cell.get("outputs") or "|---" in cell.source):
            shown[section] = True
    assert all(shown.values()), [s for s, ok in shown.items() if not ok]


@lessons
def test_four_to_six_exercises_with_checks(path):
    exercises = [n for c in cells(path, "markdown") for n in re.findall(r"\*\*\d\.\*\*", c.source)]
    checks = [c for c in cells(path, "code") if re.search(r"^check\(", c.source, re.M)]
    assert 4 <= len(exercises) == len(checks) <= 6
    unsolved = "Not yet: " if path.stem == "spot_the_bug" else "Not answered yet"
    for cell in checks:
        assert unsolved in str(cell.outputs), "the lesson is committed unsolved"


def test_links_between_notebooks_lead_somewhere():
    for path in ALL:
        for cell in cells(path, "markdown"):
            for link in re.findall(r"\]\((?!http)([^)#]+)\)", cell.source):
                assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_cleaning_keeps_results_and_drops_noise():
    view = "application/vnd.jupyter.widget-view+json"
    outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="50%|"),
        nbformat.v4.new_output("stream", name="stdout", text="kept"),
        nbformat.v4.new_output("display_data", {view: {"model_id": "x"}, "text/plain": "Panel()"}),
        nbformat.v4.new_output("display_data", {view: {"model_id": "y"}, "text/plain": "0%|   |"}),
    ]
    kept = cleaned(outputs)
    assert [o.get("text") for o in kept] == ["kept", None]
    assert "controls" in kept[1].data["text/plain"] and view not in kept[1].data


def test_badges_are_rewritten_everywhere(tmp_path, monkeypatch):
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    citation = tmp_path / "CITATION.cff"
    citation.write_text((ROOT / "CITATION.cff").read_text(encoding="utf-8"), encoding="utf-8")
    copy = tmp_path / LESSONS[0].name
    copy.write_text(LESSONS[0].read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr("experiments.notebooks.PYPROJECT", pyproject)
    monkeypatch.setattr("experiments.notebooks.CITATION", citation)
    monkeypatch.setattr("experiments.notebooks.paths", lambda: [copy])
    old = repository()
    assert f'repository-code: "https://github.com/{old}"' in citation.read_text(encoding="utf-8")
    badges("someone/course")
    assert repository() == "someone/course"
    cited = citation.read_text(encoding="utf-8")
    assert old not in cited and "github.com/someone/course" in cited
    text = copy.read_text(encoding="utf-8")
    assert old not in text and "colab.research.google.com/github/someone/course/blob" in text
    with pytest.raises(SystemExit, match="owner/name"):
        badges("not an address")
