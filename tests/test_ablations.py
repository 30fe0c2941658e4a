"""Where differences between runs come from, and how much data they need."""

from __future__ import annotations

import numpy as np
import pytest

from pecrs_lib.figures import dots_figure, dots_table
from pecrs_lib.figures.paper_figures import differences_figure, grid_figure, points_figure
from pecrs_lib.reproduction.ablations import (
    PAIRED,
    ROWS,
    SEPARATE,
    costs,
    differences,
    kinds,
    points_needed,
    points_of_paper,
    retrained,
    seeds_of,
    shuffled_recall,
    smallest_told,
    stages,
    warm_starts,
)
from pecrs_lib.reproduction.evidence import Results
from pecrs_lib.reproduction.layout import NO_RUN, judged, panels, wide
from pecrs_lib.reproduction.runs import ABLATIONS, MAIN
from pecrs_lib.reproduction.tables import TABLES

P = 80
POINTS = {
    "dialogue": np.repeat(np.arange(20), 4).tolist(),
    "turn": [1] * P,
    "item": [f"m{j}" for j in range(P)],
    "novel": ([0, 1, 1, 1] * 20),
}


def run(variant, seed=0, rank=None, retrieval=None, warm_start=(3.0, 2.0)):
    drawn = np.random.default_rng(seed).integers(1, 101, P).tolist()
    rank = drawn if rank is None else list(rank)
    return {
        "variant": variant, "seed": seed, "warm_start": list(warm_start), "rank_without": {},
        "config": {"warm_start": len(warm_start), "candidates": 100, "negatives": 8},
        "points": POINTS | {
            "rank": rank, "retrieval_rank": rank if retrieval is None else list(retrieval),
            "top1": [0] * P,
        },
        "rank_within": {}, "replies": None, "seconds_per_batch": None,
    }  # fmt: skip


def results(*runs):
    popular = [1, 1, 99, 99] * 20  # of each dialogue: named before, popular, and two others
    data = {"points": POINTS, "baselines": {"Popularity": {"rank": popular, "top1": [0] * P}}}
    by_variant = {}
    for one in runs:
        by_variant.setdefault(one["variant"], []).append(one)
    return Results("inspired", data, by_variant)


def of(table, row, **where):
    rows = table[table["row"] == row]
    for name, value in where.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def test_the_paired_interval_is_that_of_the_change_alone():
    main = run(MAIN)
    worse = list(main["points"]["rank"])
    lost = [k for k, rank in enumerate(worse) if rank <= 50][:4]
    for k in lost:
        worse[k] = 99
    found = differences(results(main, run("w/o Generation loss", rank=worse)))
    paired = of(found, "w/o Generation loss", way=PAIRED)
    apart = of(found, "w/o Generation loss", way=SEPARATE)
    assert paired["ours"] == apart["ours"] == pytest.approx(-100 * 4 / P)
    assert apart["high"] - apart["low"] > 2 * (paired["high"] - paired["low"]) > 0
    assert np.isnan(of(found, "w/o Item head", way=PAIRED)["ours"])


def test_without_recall_loss_is_compared_with_the_run_that_has_no_warm_start():
    cold = run("single stage alone", rank=[99] * P, warm_start=())
    lost = run("w/o Recall loss", rank=[99] * P, warm_start=())
    found = differences(results(run(MAIN), cold, lost))
    assert of(found, "w/o Recall loss", way=PAIRED)["ours"] == 0
    assert of(found, "single stage alone", way=PAIRED)["ours"] < 0


def test_stages_before_and_after_re_ranking():
    found = stages(results(run(MAIN, rank=[1] * P, retrieval=[99] * P)))
    assert of(found, MAIN, stage="retrieved")["ours"] == 0
    assert of(found, MAIN, stage="re-ranked")["ours"] == 100
    assert list(dict.fromkeys(found["row"])) == list(ROWS)


def test_kinds_part_the_points():
    rank = [1, 99, 99, 99] * 20  # only films named before are found
    found = kinds(results(run(MAIN, rank=rank)))
    shares = {k: of(found, MAIN, kind=k) for k in ("named before", "popular", "other")}
    assert [s["ours"] for s in shares.values()] == [100, 0, 0]
    assert [s["n"] for s in shares.values()] == [20, 20, 40]
    popular = kinds(results(run(MAIN, rank=[99, 1, 99, 99] * 20)))
    assert of(popular, MAIN, kind="popular")["ours"] == 100


def test_recall_of_a_random_order_is_that_of_drawing_places():
    record = run(MAIN, retrieval=[1, 80, 100, None] * 20)  # three quarters are candidates
    rng = np.random.default_rng(0)
    places = rng.integers(1, 101, 100_000)
    assert shuffled_recall(record) == pytest.approx(75 * 0.5)
    assert shuffled_recall(record, 10) == pytest.approx(75 * (places <= 10).mean(), abs=0.5)
    assert shuffled_recall(record, 1000) == 75  # never more than what was retrieved


def test_a_warm_start_that_did_not_train_what_is_missing_is_the_main_runs():
    found = warm_starts(
        results(
            run(MAIN),
            run("w/o Rerank loss"),
            run("w/o Item head", warm_start=(3.0, 2.5)),
            run("single stage alone", warm_start=()),
        )
    )
    same = {MAIN: "yes", "w/o Rerank loss": "yes", "w/o Item head": "no"}
    assert found["as the main run"].to_dict() == {row: same.get(row, "") for row in ROWS}
    assert found.loc["w/o Item head", "last loss"] == 2.5 and found.loc[MAIN, "epochs"] == 2
    assert found.loc["single stage alone", "epochs"] == 0
    assert found.loc["w/o Item pooling"].tolist() == [""] * 4  # no run


def test_seeds_of_what_there_is_and_is_not():
    found = seeds_of(results(run(MAIN), run(MAIN, 2), run("M_train = 8")))["seeds"]
    assert found[MAIN] == "0, 2" and found["M_train = 8"] == "0"
    assert found["w/o Item head"] == "no run yet"


def test_costs_are_shares_of_the_full_model():
    timed = [run(MAIN), run(MAIN, 1), run("w/o Item head")]
    for record, seconds in zip(timed, (1.0, 3.0, 6.0), strict=True):
        record["seconds_per_batch"] = seconds
    found = costs(TABLES["5"](results(*timed)))
    head = of(found, "w/o Item head", by="ours")
    assert (head["ours"], head["low"], head["high"]) == (3, 2, 6)
    shared = of(found, "w/o Neg. sharing (tasks)", by="the paper")
    assert shared["ours"] == pytest.approx(9.1 / 6.1)
    assert np.isnan(of(found, "w/o Neg. sharing (tasks)", by="ours")["ours"])


def test_every_pair_of_seeds_is_a_difference_of_nothing():
    seeds = [run(MAIN, seed) for seed in (0, 1, 2)]
    found = retrained(results(*seeds))
    assert found["row"].tolist() == ["seed 1 - seed 0", "seed 2 - seed 0", "seed 2 - seed 1"]
    assert found["ours"][0] - found["ours"][1] == pytest.approx(-found["ours"][2])
    assert retrained(results(seeds[0])).empty


def test_as_many_points_as_needed_tell_four_times_in_five():
    rng = np.random.default_rng(0)
    churn, delta = 0.03, 0.02  # share of hits that retraining changes; what is taken away
    half = 100 * 1.96 * np.sqrt(churn / 500)
    n = round(points_needed(100 * delta, -half, half, 500))
    retraining = rng.choice([-1, 0, 1], p=[churn / 2, 1 - churn, churn / 2], size=(800, n))
    change = retraining + (rng.random((800, n)) < delta)
    low = change.mean(1) - 1.96 * change.std(1) / np.sqrt(n)
    assert 0.74 < (low > 0).mean() < 0.86
    assert points_needed(-2, -half, half, 500) == points_needed(2, -half, half, 500)
    with pytest.raises(ValueError, match="difference of 0"):
        points_needed(0, -1, 1, 100)


def test_points_of_the_paper_need_two_seeds():
    found = points_of_paper(results(run(MAIN), run(MAIN, 1))).set_index("row")
    assert set(found.index) == set(ABLATIONS)
    needed = found["ours"]
    assert needed["w/o Neg. sharing (tasks)"] > needed["w/o Item head"] > needed["w/o Rerank loss"]
    assert points_of_paper(results(run(MAIN)))["ours"].isna().all()


def test_more_seeds_tell_smaller_differences():
    found = smallest_told([30.0, 32.0, 34.0], [1, 4])
    assert found["told"][1] == pytest.approx(2.8 * 2 * np.sqrt(2))
    assert found["told"][4] == pytest.approx(found["told"][1] / 2)
    # chi-square, 2 degrees of freedom: quantiles are -2 ln(1 - p)
    assert found["high"][1] / found["told"][1] == pytest.approx(
        np.sqrt(2 / (-2 * np.log(0.975))), rel=0.02
    )
    with pytest.raises(ValueError, match="two of them, got 1"):
        smallest_told([30.0], [1])


def test_panels_leave_places_of_missing_runs_empty():
    names, made = panels(stages(results(run(MAIN))), series="stage", labels="{} (%)")
    missing = [f"{row}: {NO_RUN}" for row in ROWS[1:]]
    assert names == [MAIN, *missing] and list(made) == ["R@50 (%)"]
    cells = made["R@50 (%)"]["re-ranked"]
    assert cells[0]["low"] <= cells[0]["value"] <= cells[0]["high"]
    assert [c["value"] for c in cells[1:]] == [None] * (len(ROWS) - 1)
    assert dots_table(names, made).iloc[1, 0] == "–"
    two = (MAIN, "w/o Item head")
    few, smaller = panels(stages(results(run(MAIN))), series="stage", rows=two)
    assert few == [MAIN, f"w/o Item head: {NO_RUN}"] and smaller["R@50"]["retrieved"] == [
        cells[0],
        {"value": None},
    ]


def test_tables_as_text_show_the_interval_and_what_is_missing():
    table = TABLES["5"](results(run(MAIN), run("w/o Rerank loss", seed=0, rank=[99] * P)))
    lost = of(table, "w/o Rerank loss", metric="R@50")
    shown = wide(table).set_index("row")
    assert shown.loc["w/o Rerank loss", "R@50"] == "12.2 | 0 [0, 3.75]"
    assert shown.loc["w/o Item head", "R@50"] == "37.9 | –"
    assert list(shown.index) == [MAIN, *ABLATIONS]
    row = judged(table).loc["w/o Rerank loss"]
    assert row["the paper"] == "-28.3" and row["n"] == "80" and row["verdict"] == lost["verdict"]
    assert row["ours"].startswith(f"{lost['difference']:+.1f} [{lost['difference low']:+.1f}, ")
    assert judged(table).loc["w/o Item head"].tolist() == ["–", "–", "–", ""]
    assert not judged(TABLES["5"](results())).loc["w/o Item head", "verdict"]


def test_figures_without_runs_say_so():
    empty = results()
    for table in (differences(empty), stages(empty), kinds(empty), costs(TABLES["5"](empty))):
        assert dots_figure(*panels(table))
    assert not (warm_starts(empty) != "").any(axis=None)
    tables = [TABLES[name](empty) for name in ("5", "6", "figure-3")]
    figures = [
        differences_figure(tables[0], "inspired"),
        differences_figure(tables[1], "inspired"),
        grid_figure(tables[2]),
        points_figure(points_of_paper(empty), {}),
    ]
    assert [f.axes[0].texts[0].get_text() for f in figures] == ["no run yet"] * 4


def test_the_grids_legend_stands_beside_the_axes():
    grid = TABLES["figure-3"](results(run(MAIN), run(MAIN, 1)))
    figure = grid_figure(grid)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_window_extent())


def test_points_figure_draws_what_there_is():
    found = points_of_paper(results(run(MAIN), run(MAIN, 1)))
    ax = points_figure(found, {"INSPIRED": 280, "ReDial": 4000}).axes[0]
    assert [float(line.get_xdata()[0]) for line in ax.lines[-2:]] == [280, 4000]
    assert ax.get_yticklabels()[0].get_text() == "w/o Recall loss (-21.2)"
