"""Numbers beyond the paper's tables, on files small enough to count by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from pecrs_lib.data import DataError, bundled
from pecrs_lib.figures import dots_figure
from pecrs_lib.figures.beyond_figures import (
    candidates_figure,
    candidates_table,
    epochs_figure,
    popularity_figure,
    reliability_figure,
)
from pecrs_lib.reproduction.beyond import (
    correlation,
    distinct,
    epochs,
    paper_differences,
    popularity,
    recalls,
    selection,
    sets,
    turns_of,
)
from pecrs_lib.reproduction.confidence import (
    RAW,
    SCALED,
    answers,
    calibration_error,
    confidence_scores,
    cross_fitted,
    platt,
    reliability,
    rescaled,
    scales,
)
from pecrs_lib.reproduction.evidence import Results, half_width
from pecrs_lib.reproduction.layout import panels, paper_and_ours
from pecrs_lib.reproduction.runs import MAIN
from pecrs_lib.zero_shot.recommended import wilson

ITEMS = ["a", "b", "c", "d", "e", "f"]
POINTS = {  # dialogue 1 names two films in one turn, and dialogue 2 the same film twice
    "dialogue": [0, 1, 1, 2, 2, 2],
    "turn": [2, 4, 4, 1, 1, 3],
    "item": ["a", "b", "c", "d", "d", "e"],
    "novel": [1, 1, 1, 0, 0, 1],
}


def record(rank, top1, confidence, seed=0):
    return {
        "dataset": "inspired", "preset": "cpu", "backbone": "x", "variant": MAIN, "seed": seed,
        "points": POINTS | {"rank": rank, "top1": top1, "confidence": confidence},
    }  # fmt: skip


@pytest.fixture(scope="module")
def results():
    data = {
        "dataset": "inspired", "items": ITEMS, "points": POINTS,
        "popularity": [0, 1, 2, 3, 9, 10],
        "baselines": {"Popularity": {"rank": [60, 1, 9, 60, 60, 2], "top1": [5] * 6}},
    }  # fmt: skip
    runs = [
        record([1, 1, 12, 7, 7, None], [0, 1, 1, 5, 5, 2], [0.9, 0.5, 0.5, 0.2, 0.2, 0.1]),
        record([1, 2, 1, 7, 7, 51], [0, 2, 2, 5, 5, 3], [0.9, 0.6, 0.6, 0.3, 0.3, 0.2], seed=1),
    ]
    files = {"inspired-data": data} | {f"run{k}": r for k, r in enumerate(runs)}
    return Results.of(json.loads(json.dumps(files)), "inspired", "cpu", "x")


def value(table, column="ours", **wanted):
    for name, x in wanted.items():
        table = table[table[name] == x]
    [found] = table[column]
    return found


def test_the_papers_rows_get_the_interval_of_a_share(results):
    table = recalls(results)
    row = table[(table["row"] == "UniCRS (paper)") & (table["metric"] == "R@10")].iloc[0]
    assert (row["paper"], row["n"]) == (25.0, 279)
    assert (row["low"], row["high"]) == wilson(70, 279)
    assert "KBRD (paper)" not in set(table["row"])
    of = {"row": "PECRS", "metric": "R@1"}
    assert value(table, targets="all", **of) == pytest.approx(100 * 2 / 6)
    assert value(table, targets="novel", **of) == pytest.approx(100 * 2 / 4)


def test_a_difference_of_two_shares_by_simulation():
    p, q, n = 0.3, 0.2, 279
    rng = np.random.default_rng(0)
    apart = (rng.random((20_000, n)) < p).mean(1) - (rng.random((20_000, n)) < q).mean(1)
    assert half_width(30, 20, n) == pytest.approx(100 * 1.96 * apart.std(), rel=0.02)
    same = rng.random((20_000, n))  # where the lesser hits, so does the greater
    nested = (same < p).mean(1) - (same < q).mean(1)
    rho = (q - p * q) / np.sqrt(p * (1 - p) * q * (1 - q))
    assert half_width(30, 20, n, rho) == pytest.approx(100 * 1.96 * nested.std(), rel=0.02)
    assert half_width(30, 20, n, 1.0) == pytest.approx(100 * 1.96 * nested.std(), rel=0.02)


def test_pairs_of_the_papers_table(results):
    table = paper_differences(results)
    assert len(table) == 2 * 3 * 6 and (table["ours"] >= 0).all()
    assert ((table["low"] > 0) == table["larger than noise"]).all()
    apart, alike = (of.reset_index() for _, of in table.groupby("taken", sort=False))
    narrower = alike["high"] <= apart["high"] + 1e-9
    assert (narrower == (alike["correlation"] >= 0)).all() and narrower.any()
    hits = [[r <= 10 for r in ranks] for ranks in ([60, 1, 9, 60, 60, 2], [1, 1, 12, 7, 7, 99])]
    assert correlation(results, 10) == pytest.approx(np.corrcoef(*hits)[0, 1])


def test_films_of_an_utterance_are_a_set(results):
    of, dialogue = turns_of(POINTS)
    assert of.tolist() == [0, 1, 1, 2, 2, 3] and dialogue.tolist() == [0, 1, 2, 2]
    table = sets(results)
    every = {"row": "Popularity", "k": 10, "targets": "every"}
    assert value(table, metric="points", **every) == pytest.approx(100 * 3 / 6)
    assert value(table, metric="any found", **every) == pytest.approx(100 * 2 / 4)
    several = every | {"targets": "several", "k": 1}
    assert value(table, "n", metric="any found", **several) == 1  # d named twice is one film
    assert value(table, metric="any found", **several) == 100
    assert value(table, metric="share found", **several) == 50
    assert value(table, metric="all found", **several) == 0


def test_popularity_by_hand(results):
    table = popularity(results)
    assert list(dict.fromkeys(table["mentions"])) == ["0", "1-2", "3-9", "10+"]
    shares = table[table["metric"] == "recommended first (%)"]
    for _, mine in shares.groupby("row"):
        assert mine["ours"].sum() == pytest.approx(100)
    assert value(shares, row="Popularity", mentions="10+") == 100
    assert value(table, metric="catalogue (%)", mentions="1-2") == pytest.approx(100 * 2 / 6)
    assert value(table, metric="named (%)", mentions="3-9") == pytest.approx(100 * 3 / 6)
    first = {"metric": "R@1", "row": "PECRS"}
    assert value(table, mentions="1-2", **first) == pytest.approx(100 * (1 / 2 + 1 / 2) / 2)
    assert value(table, "n", mentions="3-9", **first) == 3
    assert value(distinct(results), row="PECRS") == 4
    assert value(distinct(results), row="the recommenders") == 5


# -- confidence -----------------------------------------------------------------------------------


def test_answers_are_counted_per_turn(results):
    dialogue, sure, right = answers(results.main[0])
    assert dialogue.tolist() == [0, 1, 2, 2] and sure.tolist() == [0.9, 0.5, 0.2, 0.1]
    assert right.tolist() == [True, True, False, False]
    unknown = record([1] * 5 + [None], [0] * 5 + [-1], [0.5] * 5 + [None])
    assert len(answers(unknown)[1]) == 3


def test_rescaling_undoes_itself():
    rng = np.random.default_rng(0)
    true = rng.uniform(0.02, 0.9, 40_000)
    right = rng.random(len(true)) < true
    too_sure = rescaled(true, 2.0, 0.6)
    assert platt(too_sure, right) == pytest.approx((0.5, -0.3), abs=0.03)
    np.testing.assert_allclose(rescaled(too_sure, 0.5, -0.3), true, atol=1e-3)
    np.testing.assert_allclose(rescaled(true, 1.0, 0.0), true)
    assert calibration_error(true, right) < 1 < calibration_error(too_sure, right)


def test_fitting_ends_where_nothing_or_everything_is_right():
    sure = np.linspace(0, 1, 40)
    for right in (np.zeros(40, bool), np.ones(40, bool), sure > 0.5):
        assert np.isfinite(platt(sure, right)).all()
        assert abs(rescaled(sure, *platt(sure, right)) - right).mean() < 0.2


def test_a_half_takes_the_scale_of_the_other():
    rng = np.random.default_rng(0)
    true = rng.uniform(0.02, 0.9, 4000)
    dialogue = np.arange(4000)
    right = rng.random(4000) < true
    sure = np.where(dialogue % 2 == 1, rescaled(true, 2.0, 0.0), true)  # the odd are too sure
    scaled, fitted = cross_fitted(dialogue, sure, right)
    assert fitted["odd"] == pytest.approx((0.5, 0), abs=0.1)
    assert fitted["even"] == pytest.approx((1, 0), abs=0.15)
    np.testing.assert_allclose(scaled[::2], rescaled(true[::2], *fitted["odd"]))


def test_the_calibration_error_by_hand():
    sure, right = np.array([0.1, 0.3, 0.8, 0.8]), np.array([False, True, True, True])
    assert calibration_error(sure, right, 2) == pytest.approx(100 * (0.5 * 0.3 + 0.5 * 0.2))
    assert calibration_error(right.astype(float), right, 2) == 0


def test_tables_of_confidence(results):
    table = confidence_scores(results)
    brier = np.mean([np.mean((c - r) ** 2) for _, c, r in map(answers, results.main)])
    assert value(table, row=RAW, metric="Brier score") == pytest.approx(brier)
    assert value(table, row=RAW, metric="right (%)") == 50
    assert value(table, row="always the share right", metric="Brier score") == 0.25
    bins = reliability(results)
    assert bins.groupby("row")["n"].sum().to_dict() == {RAW: 8, SCALED: 8}
    assert len(scales(results)) == 4


# -- what `experiments.beyond` measured ------------------------------------------------------------

CHOICE = {
    "epochs": 2,
    "dialogue": {"dev": [0, 1], "test": [0, 1, 2, 3]},
    "runs": [{"seed": 0, "rank": {
        "dev": [[1, 60], [2, 60]], "test": [[1, 60, 60, 60], [1, 1, 60, 60]],
    }}],
}  # fmt: skip


def test_choosing_on_test_is_never_worse_on_test():
    table = selection(CHOICE)
    first = {"metric": "R@1"}
    assert value(table, row="chosen on dev", **first) == 25  # the first epoch is better on dev
    assert value(table, row="chosen on test", **first) == 50
    assert value(table, row="gain", **first) == 25
    after = epochs(CHOICE)
    assert value(after, row="test", metric="R@1", epoch=2) == 50
    assert value(after, row="dev", metric="R@1", epoch=2) == 0


def test_optimism_is_there_only_where_there_is_a_choice():
    rng = np.random.default_rng(0)
    noise = rng.choice([1, 60], (8, 400)).tolist()  # eight equal epochs
    same = [noise[0]] * 8
    found = []
    for ranks in (noise, same):
        runs = [{"seed": 0, "rank": {"dev": ranks, "test": ranks}}]
        place = {"dev": list(range(400)), "test": list(range(400))}
        table = selection({"epochs": 8, "dialogue": place, "runs": runs}, splits=100)
        found.append(value(table, row="optimism", metric="R@10"))
    assert found[0] > 2 and found[1] == 0


COST = {
    "positions": 512, "points": {"dialogue": [0, 1]}, "rank": {"16": [1, 51], "1024": [1, 50]},
    "timed": [{"M": m, "turns": 4, "seconds": m / 10, "MiB": m} for m in (16, 1024)],
}  # fmt: skip


def test_figures_draw_their_tables(results):
    table = candidates_table(COST)
    assert table["ours"].tolist() == [50, 100]
    assert table["CPU seconds a turn"].tolist() == [0.4, 25.6]
    assert len(candidates_figure(COST).axes) == 3
    assert len(epochs_figure(epochs(CHOICE)).axes) == 3
    assert len(popularity_figure(popularity(results)).axes[0].containers) == 2
    drawn = reliability_figure(reliability(results)).axes[0]
    assert [c.get_label() for c in drawn.containers] == [RAW, SCALED]
    names = ["UniCRS (paper)", "PECRS"]
    labels = {"R@1": "first", "R@10": "ten"}
    shown = panels(recalls(results), "targets", labels, names)[1]
    assert shown["first"]["novel"][0] == {"value": None}
    assert shown["ten"]["all"][1]["value"] == pytest.approx(100 * (4 / 6 + 5 / 6) / 2)
    assert len(dots_figure(names, shown).axes) == 2


def test_the_paper_beside_ours(results):
    names = ["UniCRS (paper)", "PECRS"]
    table = recalls(results)
    both = paper_and_ours(table[table["targets"] == "all"])
    said, made = panels(both, "by", {"R@1": "first"}, names)
    [shown] = made.values()
    assert said == names and shown["the paper"][0]["low"] < 9.4
    assert shown["ours"][0] == {"value": None} == shown["the paper"][1]
    assert shown["the paper"][0]["value"] == 9.4 and set(shown["ours"][1]) == {
        "value",
        "low",
        "high",
    }


def test_files_from_before_say_so(results):
    data = {k: v for k, v in results.data.items() if k != "popularity"}
    with pytest.raises(DataError, match=r"inspired-data\.json has no popularity"):
        popularity(Results("inspired", data, {}))
    old = {**results.main[0], "points": POINTS | {"rank": [1] * 6, "top1": [0] * 6}}
    with pytest.raises(DataError, match="no confidence in the file of seed 0"):
        answers(old)


def test_the_committed_file_is_of_the_committed_run():
    made = json.loads((bundled("results") / "beyond.json").read_text(encoding="utf-8"))
    part = made["candidates"]
    path = bundled("results") / "runs" / f"{part['run']}.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    assert part["points"]["item"] == run["points"]["item"]
    assert {"16", "64"} <= set(part["rank"]) & set(run["rank_within"])
    for m in ("16", "64"):
        assert part["rank"][m] == run["rank_within"][m]
    assert isinstance(selection(made["selection"]), pd.DataFrame)
