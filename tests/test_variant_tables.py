"""Tables of our own variants from files alone: recall, paired differences, shares, pruned ranks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pecrs_lib.cli.paper_tables import as_text
from pecrs_lib.evaluation import paired_bootstrap
from pecrs_lib.figures.beyond_figures import learning_curve_figure, recall_panels, variants_figure
from pecrs_lib.reproduction.evidence import Results, ranks_of
from pecrs_lib.reproduction.runs import MAIN, NEEDS
from pecrs_lib.reproduction.variant_tables import (
    DIFFERENCE,
    PRUNED,
    PRUNED_TOO,
    VARIANT_TABLES,
    beyond,
    learning_curve,
    official,
    worth,
)
from pecrs_lib.reproduction.variants import AS_OFFICIAL, BEYOND, COMPAT, LEARNING_CURVE, OFFICIAL
from tests.test_reproduction import ITEMS, P, only, points, run

DIST = [f"Dist@{n} per {per}" for per in ("sentence", "ngram") for n in (2, 3, 4)]


def made(variant, seed, worst=200):
    record = run(variant, seed, worst=worst)
    record["replies"]["metrics"] = {name: k + seed / 10 for k, name in enumerate(DIST)}
    rng = np.random.default_rng([seed, 7])
    if variant in (MAIN, AS_OFFICIAL):
        record["pruned"] = {
            "items": 150,
            "rank": rng.integers(1, 100, P).tolist(),
            "top1": rng.integers(0, 200, P).tolist(),
        }
    return record


@pytest.fixture(scope="module")
def results():
    names = [*BEYOND, *OFFICIAL, *LEARNING_CURVE]
    records = [made(MAIN, 0), made(MAIN, 1), made(MAIN, 2)]
    records += [made(name, 0, 100 + 10 * k) for k, name in enumerate(names)]
    records += [made("items with adapters", 2, 100), made("items with adapters", 5, 100)]
    files = {f"{r['variant']}-{r['seed']}": r for r in records}
    data = {
        "dataset": "inspired", "items": ITEMS, "genre": [""] * len(ITEMS), "baselines": {},
        "points": points(np.random.default_rng(0)), "statistics": {"items": 150},
    }  # fmt: skip
    files = json.loads(json.dumps({"inspired-data": data, **files}))
    return Results.of(files, "inspired", "cpu", "reel-small")


def less(results, *variants):
    kept = {name: runs for name, runs in results.runs.items() if name not in variants}
    return Results(results.dataset, results.data, kept)


def test_every_variant_has_recall_and_a_difference_to_the_main_run(results):
    for make, variants in ((beyond, BEYOND), (learning_curve, LEARNING_CURVE)):
        table = make(results)
        assert set(table["row"]) == {MAIN, *variants}
        for name in variants:
            rows = table[table["row"] == name]
            assert set(rows["metric"]) == {"R@1", "R@10", "R@50", "Unique", DIFFERENCE}
            assert set(rows["targets"]) == {"all", "novel"}
            assert (
                rows[rows["metric"] == DIFFERENCE][["ours", "low", "high"]].notna().to_numpy().all()
            )
        assert DIFFERENCE not in set(table[table["row"] == MAIN]["metric"])


@pytest.mark.parametrize("targets", ["all", "novel"])
def test_differences_are_paired_by_seed(results, targets):
    row = only(
        beyond(results), row="items with adapters", metric=DIFFERENCE, targets=targets
    )  # fmt: skip
    novel = np.array(results.data["points"]["novel"], dtype=bool) | (targets == "all")
    main = {r["seed"]: np.array(r["points"]["rank"]) for r in results.main}
    of = {r["seed"]: np.array(r["points"]["rank"]) for r in results.runs["items with adapters"]}
    each = [100 * np.mean((of[s] <= 50)[novel] * 1.0 - (main[s] <= 50)[novel]) for s in (0, 2)]
    assert row["seeds"] == pytest.approx(each) and row["ours"] == pytest.approx(np.mean(each))
    assert row["n"] == novel.sum()  # seed 5 has no main run, and main run 1 no counterpart
    assert row["low"] < row["ours"] < row["high"]


def test_the_interval_of_a_difference_is_the_paired_bootstrap(results):
    row = only(
        learning_curve(results), row="20 % of training", metric=DIFFERENCE, targets="all"
    )  # fmt: skip
    one, main = ranks_of(results.runs["20 % of training"][0]), ranks_of(results.main[0])
    found = paired_bootstrap(one, main, 50)
    assert (row["low"], row["high"]) == pytest.approx((found.low, found.high))


def test_the_learning_curve_ends_with_all_of_training(results):
    table = learning_curve(results)
    rows = table[(table["metric"] == "R@10") & (table["targets"] == "all")]
    assert rows["share"].tolist() == [5, 20, 50, 100] and rows["row"].iloc[-1] == MAIN
    part = learning_curve(less(results, "20 % of training", MAIN))
    rows = part[(part["metric"] == "R@10") & (part["targets"] == "all")]
    assert rows["ours"].isna().tolist() == [False, True, False, True]
    assert DIFFERENCE not in set(part["metric"])  # nothing to compare with


def test_the_pruned_catalogue_is_compared_with_the_same_run(results):
    table = official(results)
    row = only(table, row=PRUNED, metric="R@10", targets="all")
    hits = [np.mean(np.array(r["pruned"]["rank"]) <= 10) for r in results.main]
    assert row["seeds"] == pytest.approx([100 * h for h in hits])
    row = only(table, row=PRUNED, metric=DIFFERENCE, targets="all")
    gained = [
        np.mean(np.array(r["pruned"]["rank"]) <= 50) - np.mean(np.array(r["points"]["rank"]) <= 50)
        for r in results.main
    ]
    assert row["ours"] == pytest.approx(100 * np.mean(gained)) and row["n"] == P
    both = only(table, row=PRUNED_TOO, metric=DIFFERENCE, targets="all")
    assert len(both["seeds"]) == 1 and both["ours"] != row["ours"]


def test_nothing_is_gained_where_every_item_is_mentioned(results):
    data = results.data | {"statistics": {"items": len(ITEMS)}}
    of = {MAIN: [{k: v for k, v in r.items() if k != "pruned"} for r in results.main]}
    row = only(
        official(Results("inspired", data, of)), row=PRUNED, metric=DIFFERENCE, targets="all"
    )  # fmt: skip
    assert (row["ours"], row["low"], row["high"], row["n"]) == (0, 0, 0, P)


def test_runs_that_do_not_say_are_left_out_of_the_pruned_row(results):
    first, *rest = results.main
    old = {k: v for k, v in first.items() if k != "pruned"}  # a file of an older version
    some = Results("inspired", results.data, {MAIN: [old, *rest, made(MAIN, 3) | {"pruned": None}]})
    assert len(only(official(some), row=PRUNED, metric="R@1", targets="all")["seeds"]) == 2


def test_dist_stands_with_both_denominators(results):
    table = official(results)
    for k, name in enumerate(DIST):
        row = only(table, row=f"{MAIN}: replies", metric=name)
        assert row["seeds"] == pytest.approx((k, k + 0.1, k + 0.2)) and row["n"] == P
        assert only(table, row=f"{AS_OFFICIAL}: replies", metric=name)["ours"] == k


def test_the_tables_print_also_without_runs(results):
    nothing = Results("inspired", results.data, {})
    assert set(VARIANT_TABLES) <= set(NEEDS)
    for make in VARIANT_TABLES.values():
        assert "difference in R@50" in as_text(make(results)).splitlines()[1]
        table = make(nothing)
        assert table["ours"].isna().all() and as_text(table)


def test_what_a_variant_is_worth_in_a_word(results):
    name = "20 % of training"
    main = {r["seed"]: r for r in results.main}

    def ranked(rank):
        points = main[0]["points"] | {"rank": [rank] * P}
        return Results(results.dataset, results.data, {
            MAIN: results.main, name: [main[0] | {"points": points, "variant": name}]
        })  # fmt: skip

    table = learning_curve(ranked(1))
    assert list(worth(table).index) == list(LEARNING_CURVE)
    assert worth(table).loc[name, "R@50 is"] == "higher"
    assert worth(learning_curve(ranked(99))).loc[name, "R@50 is"] == "lower"
    row = only(learning_curve(ranked(99)), row=name, metric=DIFFERENCE, targets="all")
    line = worth(learning_curve(ranked(99))).loc[name]
    assert line["all targets"] == f"{row['ours']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
    assert line["n"].startswith(f"{P} / ") and line["seeds"] == "1"
    same = {MAIN: results.main, name: results.main}
    equal = learning_curve(Results(results.dataset, results.data, same))
    assert worth(equal).loc[name, "R@50 is"] == "the same"
    other = {MAIN: results.main[:1], name: [results.main[1] | {"seed": 0, "variant": name}]}
    noise = worth(learning_curve(Results(results.dataset, results.data, other)))
    assert noise.loc[name, "R@50 is"] == "not told apart"
    missing = worth(learning_curve(less(results, name))).loc[name]
    assert missing["R@50 is"] == "no run yet" and missing["all targets"] == "–"
    alone = worth(learning_curve(less(results, MAIN)))
    assert set(alone["R@50 is"]) == {"no main run of its seed"}


@pytest.mark.parametrize("make", VARIANT_TABLES.values())
def test_figures_and_words_say_what_has_no_run(results, make):
    table = make(Results("inspired", results.data, {}))
    labels = [label.get_text() for label in variants_figure(table).axes[0].get_yticklabels()]
    assert labels == [f"{name}: no run yet" for name in worth(table).index] and labels
    assert set(worth(table)["R@50 is"]) == {"no run yet"}
    assert all(": no run yet" in name for name in recall_panels(table)[0])


def test_all_at_once_is_every_switch():
    alone = [changes for name, changes in OFFICIAL.items() if name != AS_OFFICIAL]
    assert OFFICIAL[AS_OFFICIAL] == COMPAT
    assert sum(map(len, alone)) == len(COMPAT)  # no two change the same
    assert all(changes.items() <= COMPAT.items() for changes in alone)


def test_figures_draw_their_tables(results):
    table = official(results)
    drawn = variants_figure(table).axes[0]
    names = [*OFFICIAL, PRUNED, PRUNED_TOO]
    assert [label.get_text() for label in drawn.get_yticklabels()] == names
    all_, novel = drawn.containers
    rows = table[(table["metric"] == DIFFERENCE) & (table["targets"] == "all")]
    assert all_.lines[0].get_xdata().tolist() == pytest.approx(rows["ours"].tolist())
    assert (all_.get_label(), novel.get_label()) == ("all targets", "novel targets")
    curve = learning_curve_figure(learning_curve(less(results, "20 % of training"))).axes[0]
    assert [c.get_label() for c in curve.containers] == ["Recall@1", "Recall@10", "Recall@50"]
    assert curve.containers[0].lines[0].get_xdata().tolist() == [5, 50, 100]
    ticks = [label.get_text() for label in curve.get_xticklabels()]
    assert ticks == ["5", "20\nno run yet", "50", "100"]
    nothing = learning_curve_figure(learning_curve(Results("inspired", results.data, {})))
    assert all("no run yet" in label.get_text() for label in nothing.axes[0].get_xticklabels())
