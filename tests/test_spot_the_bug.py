"""Spot the bug: each check fails on the bug, passes on the solution, and fails on wrong repairs."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
WRONG = {
    "pooled": """
def pooled(C, mask):
    return (C * mask[..., None]).sum(1) / mask.sum()""",
    "before": """
def before(dialogue, turn):
    return Dialogue(dialogue.id, dialogue.utterances[: max(turn - 1, 0)])""",
    "dist_2": """
def dist_2(replies):
    pairs = list(pairwise(" ".join(replies).split()))
    return len(set(pairs)) / len(pairs)""",
    "chosen": """
def chosen(recall):
    return int(np.argmax(np.add(recall["dev"], recall["test"])))""",
    "names": r"""
def names(reply, title):
    return re.search(rf"\b{re.escape(title)}\b", reply) is not None""",
    "f1": """
def f1(said, due):
    return 100 * np.mean(np.array(said)[np.array(due)])""",
}


def code(name: str) -> list[str]:
    """The code cells after the set-up."""
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"][1:]


LESSON, SOLUTIONS = code("spot_the_bug"), code("solutions/spot_the_bug_solutions")
CHECKS = {found[1]: cell for cell in LESSON if (found := re.search(r"^check\((\w+)", cell, re.M))}


def defines(cells: list[str], name: str) -> str:
    (cell,) = [cell for cell in cells if re.search(rf"^def {name}\(", cell, re.M)]
    return cell


def result(cell: str, names: dict[str, Any]) -> Any:
    """Run a cell; the value of its last line, as a notebook shows it."""
    tree = ast.parse(cell)
    last = tree.body.pop()
    exec(compile(tree, "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    exec(compile(ast.Module([last], []), "cell", "exec"), names)
    return None


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the notebook has defined at its end, every check red on the way."""
    names: dict[str, Any] = {"display": lambda *shown: None, "re": re}
    told = [result(cell, names) for cell in LESSON]
    red = [x for x in told if isinstance(x, str)]
    assert len(red) == len(CHECKS) and all(x.startswith("Not yet: ") for x in red), red
    return names


def test_every_bug_has_a_wrong_repair_here():
    assert set(CHECKS) == set(WRONG)


@pytest.mark.parametrize("name", CHECKS)
def test_the_check_turns_green_by_the_right_repair_only(name, names):
    result(defines(SOLUTIONS, name), names)
    assert result(CHECKS[name], names) == "Right."
    result(WRONG[name], names)
    assert result(CHECKS[name], names).startswith("Not yet: ")
    result(defines(LESSON, name), names)
    assert result(CHECKS[name], names).startswith("Not yet: ")
