"""What the repository shows comes from its result files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from experiments.draw_figures import (
    PAGE,
    PARTS,
    RESULTS,
    reproduction_text,
    results_table,
    run_figures,
    write_block,
)
from pecrs_lib.figures import recall_figure
from pecrs_lib.reproduction.evidence import Results
from pecrs_lib.reproduction.findings import read_files
from pecrs_lib.reproduction.runs import MAIN, read_runs


@pytest.fixture(scope="module", params=PARTS)
def part(request):
    return request.param


@pytest.fixture(scope="module")
def record(part):
    return json.loads((RESULTS / PARTS[part]).read_text(encoding="utf-8"))


def test_the_page_shows_the_result_file(part, record):
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(f"<!-- {part}: ") == 1
    assert write_block(page, part, results_table(record)) == page, "run `make figures`"


def test_the_page_shows_what_the_report_says():
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- report: ") == 1
    text = reproduction_text(read_files(RESULTS))
    assert "INSPIRED" in text and write_block(page, "report", text) == page


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


def test_figures_are_of_runs_that_have_files():
    results = Results.of(read_runs(RESULTS / "runs"), "inspired", "cpu", "reel-small")
    always = {"ablations", "grid", "turns"}
    assert set(run_figures(replace(results, runs={}))) == always
    main = {MAIN: results.main}
    assert set(run_figures(replace(results, runs=main))) == always | {"reliability"}
    short = {"5 % of training": results.main[:1]}
    assert set(run_figures(replace(results, runs=main | short))) - always == {
        "reliability", "learning_curve"
    }  # fmt: skip
