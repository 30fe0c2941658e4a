"""Tables from files alone: numbers, intervals, and verdicts on the paper's claims."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pecrs_lib.cli.paper_tables import claims_as_text
from pecrs_lib.data import DataError
from pecrs_lib.evaluation import paired_bootstrap, recall_table
from pecrs_lib.figures.paper_figures import differences_figure, grid_figure, turns_figure
from pecrs_lib.metrics import item_f1, perplexity
from pecrs_lib.reproduction.claims import claims
from pecrs_lib.reproduction.evidence import (
    FAILS,
    HOLDS,
    OPEN,
    Results,
    cell,
    count,
    gain,
    paper_table,
    perplexity_row,
    predictions,
    ranks_of,
    reply_rows,
    verdict,
)
from pecrs_lib.reproduction.runs import ABLATIONS, MAIN, NEEDS
from pecrs_lib.reproduction.tables import (
    ELSEWHERE,
    TABLES,
    figure_3,
    figure_4,
    genres,
    table_1,
    table_2,
    table_5,
    table_6,
)
from pecrs_lib.reproduction.variant_tables import VARIANT_TABLES

ITEMS = [f"m{j}" for j in range(200)]
GENRE = ["Comedy", "action", "Western", ""] * 50
P = 60
FIELDS = ("title", "actors", "directors", "genres", "plot")


def points(rng):
    return {
        "dialogue": np.sort(rng.integers(0, 20, P)).tolist(),
        "turn": rng.integers(0, 18, P).tolist(),
        "item": [ITEMS[j] for j in rng.integers(0, 200, P)],
        "novel": rng.integers(0, 2, P).tolist(),
    }


def run(variant, seed, negatives=64, worst=200):
    same = points(np.random.default_rng(0))
    rng = np.random.default_rng([seed, worst, negatives])
    rank = lambda: rng.integers(1, worst + 1, P).tolist()  # noqa: E731
    main = variant == MAIN
    return {
        "dataset": "inspired", "preset": "cpu", "backbone": "reel-small", "variant": variant,
        "seed": seed, "seconds_per_batch": 1.5, "seconds": {"train": 60.0, "test": 60.0},
        "config": {"negatives": negatives, "candidates": 400, "warm_start": 6},
        "parameters": {"frozen": 90, "LoRA": 10},
        "points": same | {"rank": rank(), "top1": rng.integers(0, 200, P).tolist()},
        "rank_within": {"16": rank(), "150": rank()},
        "rank_without": {f: rank() for f in FIELDS} if main else {},
        "responses": {
            "dialogue": same["dialogue"], "turn": same["turn"],
            "nll": rng.uniform(5, 50, P).tolist(), "tokens": rng.integers(1, 20, P).tolist(),
        },
        "replies": {
            "n": P,
            "metrics": {"F-1": 50.0} | {f"Dist@{n} per sentence": n / 2 for n in (2, 3, 4)},
            "dialogue": same["dialogue"], "turn": same["turn"],
            "rouge1": rng.uniform(0, 50, P).tolist(), "rouge2": rng.uniform(0, 9, P).tolist(),
            "says": rng.integers(0, 2, P).tolist(), "due": rng.integers(0, 2, P).tolist(),
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def files():
    rng = np.random.default_rng(1)
    names = ("items", "dialogues", "utterances", "points", "points_without", "points_with")
    data = {
        "dataset": "inspired", "items": ITEMS, "genre": GENRE,
        "points": points(np.random.default_rng(0)),
        "statistics": {name: 10 * k for k, name in enumerate(names, 1)},
        "baselines": {
            name: {"rank": rng.integers(1, 201, P).tolist(), "top1": [0] * P}
            for name in ("Popularity", "Co-occurrence")
        },
    }  # fmt: skip
    records = [
        run("single stage alone", 0, worst=120),
        run(MAIN, 0),
        run(MAIN, 1),
        run("M_train = 16", 0, 16),
    ]
    records += [run(name, 0, worst=150 + 10 * k) for k, name in enumerate(ABLATIONS)]
    made = {f"{r['variant']}-{r['seed']}": r for r in records}
    other = run(MAIN, 0) | {"backbone": "gpt2"}
    return json.loads(json.dumps({"inspired-data": data, "other": other, **made}))


@pytest.fixture(scope="module")
def results(files):
    return Results.of(files, "inspired", "cpu", "reel-small")


def only(table, **wanted):
    for name, value in wanted.items():
        table = table[table[name] == value]
    [row] = table.to_dict("records")
    return row


# -- numbers and intervals ------------------------------------------------------------------------


def test_one_seed_is_what_the_recall_table_says(results):
    system = ranks_of(results.main[0])
    known = recall_table([system]).set_index("targets")
    for targets in ("all", "novel"):
        of = system.of(targets)
        found = cell("x", "R@10", of.dialogue, [of.rank <= 10])
        for name, column in {"ours": "R@10", "low": "R@10_low", "high": "R@10_high"}.items():
            assert found[name] == pytest.approx(known.loc[targets, column])
        assert found["n"] == known.loc[targets, "n"]


def test_a_difference_is_the_paired_bootstrap(results):
    a, b = ranks_of(results.main[0], "a"), ranks_of(results.main[1], "b")
    known, found = paired_bootstrap(a, b, 50), gain([a], [b], 50)
    assert (found["ours"], found["low"], found["high"]) == pytest.approx(
        (known.difference, known.low, known.high)
    )
    both = gain([a, b], [b, a], 50)
    assert (both["ours"], both["low"], both["high"]) == (0, 0, 0)
    assert both["seeds"] == (known.difference, -known.difference)
    same = gain([a], [a], 50)
    assert (same["low"], same["high"]) == (0, 0)
    moved = replace(a, rank=np.where(a.rank > 50, a.rank + 1, a.rank))
    none = gain([a], [moved], 50)  # nothing seen to differ is not certainty
    assert (none["low"], none["ours"], none["high"]) == (-300 / none["n"], 0, 300 / none["n"])
    assert verdict(-0.1, none) == OPEN and verdict(-1000, none) == FAILS
    with pytest.raises(ValueError, match="same points"):
        gain([a], [b.of("novel")], 50)
    with pytest.raises(ValueError):
        gain([a, b], [b], 50)


@pytest.mark.parametrize("seeds", [1, 3])
def test_where_all_points_are_equal_the_interval_is_what_they_cannot_exclude(seeds):
    dialogue = np.arange(150) // 2

    def bounds(value, n=150, **more):
        found = cell("x", "R@10", dialogue[:n], [np.full(n, value)] * seeds, **more)
        return found["low"], found["ours"], found["high"]

    assert bounds(False) == pytest.approx((0, 0, 2)) and bounds(True) == pytest.approx(
        (98, 100, 100)
    )
    assert bounds(0, between=(-1, 1)) == pytest.approx((-2, 0, 2))
    assert bounds(False, between=None) == (0, 0, 0)
    assert bounds(True, n=2) == (0, 100, 100)  # two points exclude nothing
    assert bounds(0.0, statistic=lambda means: means[..., 0]) == (0, 0, 0)  # no share
    one = cell("x", "R@10", dialogue, [np.arange(150) < 1] * seeds)
    assert one["low"] == 0 and 0.5 < one["high"] < 4  # resampled, as ever
    # of all worlds in which a point is a hit with probability p, n misses exclude p > 3/n
    rng = np.random.default_rng(0)
    assert (rng.random((4000, 150)) < 0.02).any(1).mean() == pytest.approx(0.95, abs=0.01)


def test_perplexity_and_f1_are_those_of_metrics(results):
    record = results.main[0]
    responses, told = record["responses"], record["replies"]
    row = perplexity_row("x", [record])
    assert row["ours"] == pytest.approx(perplexity(sum(responses["nll"]), sum(responses["tokens"])))
    assert row["low"] < row["ours"] < row["high"] and row["n"] == P
    rows = {r["metric"]: r for r in reply_rows("x", [record], {"F-1": 86.0})}
    says, due = np.array(told["says"], bool), np.array(told["due"], bool)
    assert rows["F-1"]["ours"] == pytest.approx(item_f1(says, due))
    assert rows["F-1"]["paper"] == 86
    assert rows["ROUGE-1"]["ours"] == pytest.approx(np.mean(told["rouge1"]))
    assert rows["Dist@3"]["ours"] == 1.5 and np.isnan(rows["Dist@3"]["low"])


def test_nothing_measured_is_nan_with_the_papers_number():
    for row in (cell("x", "R@1", paper=5.0), count("x", "Unique", [], 0, paper=5.0)):
        assert row["paper"] == 5 and np.isnan(row["ours"]) and row["n"] == 0


def test_a_target_outside_the_catalogue_is_never_found():
    place = {"dialogue": [0, 0], "turn": [1, 2], "item": ["a", "b"], "novel": [1, 1]}
    found = predictions(place, [1, None], [0, 0], "x")
    assert found.rank.tolist() == [1, np.inf]


# -- verdicts -------------------------------------------------------------------------------------

CASES = {
    "the same sign": (-20.0, (-15, -5), HOLDS),
    "the same sign, far smaller": (-20.0, (-3, -1), HOLDS),
    "a gain": (4.0, (1, 9), HOLDS),
    "the other sign": (-20.0, (2, 9), FAILS),
    "too small to be it": (-20.0, (-3, 2), FAILS),
    "wide": (-20.0, (-18, 2), OPEN),
    "a small claim": (-1.0, (-3, 2), OPEN),
    "on the border": (-20.0, (-10, 2), OPEN),
    "up to zero": (4.0, (0, 9), OPEN),
}


@pytest.mark.parametrize("case", CASES)
def test_verdicts(case):
    paper, (low, high), expected = CASES[case]
    assert verdict(paper, {"low": low, "high": high}) == expected
    assert verdict(-paper, {"low": -high, "high": -low}) == expected


def test_a_direction_alone_fails_only_on_the_other_side():
    assert verdict(1.0, {"low": -3, "high": 0.1}, sized=False) == OPEN
    assert verdict(1.0, {"low": -3, "high": -0.1}, sized=False) == FAILS
    assert verdict(1.0, {"low": 0.1, "high": 0.2}, sized=False) == HOLDS


@pytest.mark.parametrize("nothing", [0.0, np.nan, np.inf])
def test_no_claim_no_verdict(nothing):
    with pytest.raises(ValueError, match="claims nothing"):
        verdict(nothing, {"low": -1, "high": 1})


# -- tables ---------------------------------------------------------------------------------------


def test_results_are_those_of_one_backbone(files, results):
    assert [r["seed"] for r in results.main] == [0, 1]
    assert len(Results.of(files, "inspired", "cpu", "gpt2").main) == 1
    assert Results.of(files, "inspired", "paper", "gpt2").main == ()
    with pytest.raises(DataError, match=r"no redial-data\.json"):
        Results.of(files, "redial", "cpu", "gpt2")
    points = files["other"]["points"]
    other = files["other"] | {"points": points | {"item": points["item"][::-1]}}
    with pytest.raises(DataError, match="other was measured on other data than inspired-data"):
        Results.of(files | {"other": other}, "inspired", "cpu", "gpt2")


def test_every_table_is_made_or_pointed_to(results):
    assert set(TABLES) | set(VARIANT_TABLES) | set(ELSEWHERE) == set(NEEDS)
    columns = {"row", "metric", "paper", "ours", "low", "high", "n", "seeds"}
    for make in TABLES.values():
        table = make(results)
        assert columns <= set(table) and len(table) and table.attrs["title"]
        known = table.dropna(subset=["ours", "low"])
        assert (known["low"] <= known["ours"] + 1e-9).all()
        assert (known["ours"] <= known["high"] + 1e-9).all()


def test_tables_without_runs_hold_the_papers_numbers(files):
    empty = Results.of(files, "inspired", "paper", "gpt2-medium")
    for name, make in TABLES.items():
        table = make(empty)
        if name in ("2", "3", "5", "6"):
            assert table["paper"].notna().any()
        if name in ("3", "5", "6"):
            assert table["ours"].isna().all()


def test_table_1_counts(results):
    row = only(table_1(results), metric="dialogues")
    assert (row["paper"], row["ours"]) == (999, 20)


def test_table_2_has_the_papers_rows_our_baselines_and_us(results):
    table = table_2(results)
    assert only(table, row="UniCRS", metric="R@10")["paper"] == 25
    assert "KBRD" not in set(table["row"])  # the paper has it on ReDial only
    ours = only(table, row="PECRS-small", metric="R@50", targets="all")
    assert ours["paper"] == 33.3 and len(ours["seeds"]) == 2
    ranks = [np.array(r["points"]["rank"]) for r in results.main]
    assert ours["ours"] == pytest.approx(100 * np.mean([r <= 50 for r in ranks]))
    novel = only(table, row="Popularity", metric="R@50", targets="novel")
    assert np.isnan(novel["paper"]) and novel["n"] == sum(results.data["points"]["novel"])


def test_table_5_judges_every_ablation(results):
    table = table_5(results)
    rows = table[table["metric"] == "R@50"].set_index("row")
    assert list(rows.index) == [MAIN, *ABLATIONS]
    assert rows["verdict"].notna().sum() == len(ABLATIONS)
    assert rows.loc["w/o Recall loss", "paper difference"] == pytest.approx(19.3 - 40.5)
    of, main = results.paired("w/o Rerank loss")
    assert [r["seed"] for r in main] == [0] == [r["seed"] for r in of]
    assert main[0]["variant"] == MAIN


def test_without_recall_loss_is_compared_with_no_warm_start_either(results):
    _, reference = results.paired("w/o Recall loss")
    assert [r["variant"] for r in reference] == ["single stage alone"]
    row = only(table_5(results), row="w/o Recall loss", metric="R@50")
    hits = np.mean(np.array(reference[0]["points"]["rank"]) <= 50)
    assert row["difference"] == pytest.approx(row["ours"] - 100 * hits)
    without = Results(results.dataset, results.data, {
        k: v for k, v in results.runs.items() if k != "single stage alone"
    })  # fmt: skip
    assert not without.paired("w/o Recall loss")[0]
    cold = [r | {"config": r["config"] | {"warm_start": 0}} for r in results.main]
    papers = Results(results.dataset, results.data, {**without.runs, MAIN: cold})
    assert papers.paired("w/o Recall loss")[1][0]["variant"] == MAIN


def test_table_6_compares_with_nothing_left_out(results):
    table = table_6(results)
    plot = only(table, row="plot")
    assert plot["paper difference"] == pytest.approx(20.7 - 33.3)
    whole = only(table, row="none")["ours"]
    assert plot["difference"] == pytest.approx(plot["ours"] - whole)


def test_genres_by_a_loop(results):
    table = genres(results)
    one = [results.main[0]]
    table = genres(Results("inspired", results.data, {MAIN: one}))
    genre = dict(zip(ITEMS, (g.lower() for g in GENRE), strict=True))
    place = one[0]["points"]
    pairs = [
        (genre[item], GENRE[top].lower())
        for item, top in zip(place["item"], place["top1"], strict=True)
    ]
    right = [a == b for a, b in pairs if a == "action"]
    row = only(table, row="Action", metric="correctly predicted (%)")
    assert row["ours"] == pytest.approx(100 * np.mean(right)) and row["n"] == len(right)
    assert row["paper"] == 50.5
    assert only(table, row="Western", metric="items (%)")["ours"] == pytest.approx(100 / 3)
    share = only(table, row="Comedy", metric="recommendations in test (%)")["ours"]
    assert share == pytest.approx(100 * np.mean([a == "comedy" for a, _ in pairs if a]))


def test_figures_draw_their_tables(results):
    grid = figure_3(results)
    assert set(zip(grid["M_train"], grid["M_inference"], strict=True)) == {
        (m, k) for m in (16, 64) for k in (16, 150, 400)
    }
    lines = grid_figure(grid).axes[0].containers
    assert len(lines) == 2
    prior = figure_4(results)
    assert prior[prior["row"] == "PECRS"]["n"].sum() == P
    assert [line.get_label() for line in turns_figure(prior).axes[0].lines] == [
        "Popularity", "Co-occurrence", "PECRS"
    ]  # fmt: skip
    drawn = differences_figure(table_5(results), "inspired")
    assert len(drawn.axes[0].get_yticks()) == len(ABLATIONS)
    said = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert said == ["the paper (ReDial)", "ours (INSPIRED)"]


@pytest.mark.parametrize("number", range(1, 11))
def test_the_papers_tables_are_there(number):
    assert isinstance(paper_table(number), pd.DataFrame) and len(paper_table(number))


def test_claims_gather_what_can_be_judged(files, results):
    found = claims(results)
    tables = found["table"].value_counts()
    assert tables["5"] >= len(ABLATIONS) and tables["6"] == 6 and tables["figure-3"] == 2
    assert set(found["verdict"]) <= {HOLDS, FAILS, OPEN}
    more = found[found["claim"].str.startswith("More negatives")].iloc[0]
    one, other = results.main[0], results.runs["M_train = 16"][0]
    hits = [np.mean(np.array(r["points"]["rank"]) <= 50) for r in (one, other)]
    assert more["difference"] == pytest.approx(100 * (hits[0] - hits[1]))
    assert np.isnan(more["paper difference"])
    candidates = found[found["claim"].str.startswith("More candidates")].iloc[0]
    within = [np.mean(np.array(r["rank_within"]["16"]) <= 50) for r in results.main]
    whole = [np.mean(np.array(r["points"]["rank"]) <= 50) for r in results.main]
    assert candidates["difference"] == pytest.approx(100 * (np.mean(whole) - np.mean(within)))
    assert claims(Results.of(files, "inspired", "paper", "gpt2")).empty
    assert "More negatives in training recall more" in claims_as_text(found)
