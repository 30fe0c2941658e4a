"""The glossary's names exist, and its notebooks hold what it says they hold."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from functools import reduce
from pathlib import Path
from typing import Any

import nbformat
import pytest

from pecrs_lib.config import TINY
from pecrs_lib.model import PECRS

ROOT = Path(__file__).resolve().parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and "`pecrs_lib`" not in line
]
NAMES = sorted({name for row in ROWS for name in re.findall(r"`([^`]+)`", row[2])})


@pytest.fixture(scope="module")
def model(tiny_backbone: str) -> PECRS:
    return PECRS.from_backbone(TINY.with_(backbone=tiny_backbone))


def part(whole: Any, name: str) -> Any:
    """An attribute; a dataclass's field without default is one, too."""
    if dataclasses.is_dataclass(whole) and name in {f.name for f in dataclasses.fields(whole)}:
        return name
    return getattr(whole, name)


def look_up(name: str, model: PECRS) -> None:
    """Raises where `module.name.attribute(argument)` is not there."""
    dotted, _, argument = name.rstrip(")").partition("(")
    module, *rest = dotted.split(".")
    start: Any = importlib.import_module(f"pecrs_lib.{module}")
    if rest[0] == "PECRS":  # heads are attributes of a model, not of the class
        start, rest = model, rest[1:]
    found = reduce(part, rest, start)
    if (
        argument
        and argument
        not in inspect.signature(found.forward if "forward" in dir(found) else found).parameters
    ):
        raise AttributeError(f"{dotted} has no argument {argument}")


def test_every_row_is_whole():
    assert len(ROWS) > 35
    for row in ROWS:
        assert len(row) == 4 and all(row), row


@pytest.mark.parametrize("name", NAMES)
def test_every_name_exists(name, model):
    look_up(name, model)


@pytest.mark.parametrize(
    "wrong", ["losses.no_loss", "model.PECRS.h", "losses.rerank_loss(q)", "config.Config.delta"]
)
def test_a_wrong_name_is_noticed(wrong, model):
    with pytest.raises(AttributeError):
        look_up(wrong, model)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_notebook_contains_it(row):
    link, words = re.fullmatch(r"\[.+?\]\((.+?)\): (.+)", row[3]).groups()
    cells = nbformat.read((GLOSSARY.parent / link).resolve(), as_version=4).cells
    text = "\n".join(cell.source for cell in cells)
    for word in re.findall(r"`([^`]+)`", words):
        assert word in text, f"{word} is not in {link}"
