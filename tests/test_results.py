"""What the repository shows comes from its result files."""

from __future__ import annotations

import json

import pytest

from experiments.draw_figures import PARTS, RESULTS, ROOT, write_readme
from pecrs_lib.figures import recall_figure


@pytest.fixture(scope="module", params=PARTS)
def part(request):
    return request.param


@pytest.fixture(scope="module")
def record(part):
    return json.loads((RESULTS / PARTS[part]).read_text(encoding="utf-8"))


def test_the_readme_shows_the_result_file(part, record):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count(f"<!-- {part}: ") == 1
    assert write_readme(readme, part, record) == readme, "run `make figures`"


def test_a_result_file_says_where_it_comes_from(record):
    assert {"config", "commit", "hardware", "torch", "n_items", "rows"} <= set(record)
    for row in record["rows"]:
        for k in (1, 10, 50):
            cell = row[f"R@{k}"]
            assert 0 <= cell["low"] <= cell["value"] <= cell["high"] <= 100
        assert row["n"] > 0
    systems = {row["system"] for row in record["rows"]}
    assert {"Random", "Popularity", "Co-occurrence", "BM25"} <= systems


def test_the_figure_draws_the_table(record):
    figure = recall_figure(record["rows"])
    shown = [row for row in record["rows"] if row["targets"] == "all"]
    for ax, k in zip(figure.axes, (1, 10, 50), strict=True):
        drawn = [bar.get_width() for bar in ax.patches]
        assert drawn == [row[f"R@{k}"]["value"] for row in shown]
