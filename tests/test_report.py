"""The report: every claim judged or excused, verdicts that follow the numbers, nothing typed in."""

from __future__ import annotations

import copy
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pecrs_lib.cli import app
from pecrs_lib.data import bundled
from pecrs_lib.evaluation import Point
from pecrs_lib.figures.paper_figures import verdicts_figure
from pecrs_lib.reproduction.better import TARGETS, better, better_table, better_text
from pecrs_lib.reproduction.claims import CLAIMS, PLACES, Claim, findings
from pecrs_lib.reproduction.evidence import FAILS, HOLDS, OPEN, Results, paper_table
from pecrs_lib.reproduction.findings import (
    MISSING,
    UNTESTED,
    VERDICTS,
    Files,
    Finding,
    read_files,
    weakest,
)
from pecrs_lib.reproduction.judges import ablation, printed, printed_text, rival
from pecrs_lib.reproduction.layout import wide
from pecrs_lib.reproduction.report import RULE, SYMBOLS, baselines_text, markdown, report
from pecrs_lib.reproduction.report_tables import (
    against_baselines,
    by_chance,
    counts,
    evidence_rows,
    one_seed,
    printed_noise,
    runs_table,
    settings,
    verdicts,
)
from pecrs_lib.reproduction.runs import read_runs
from pecrs_lib.reproduction.tables import NAMES, table_2
from pecrs_lib.reproduction.text_judges import dist_moves_more, weakly_related, zero_shot

DATA = "INSPIRED"


@pytest.fixture(scope="module")
def committed():
    return read_files()


@pytest.fixture(scope="module")
def found(committed):
    return findings(committed)


@pytest.fixture(scope="module")
def text(committed):
    return report(committed)


@pytest.fixture(scope="module")
def nothing():
    return report(Files.of({}))


def of(claim_id):
    [claim] = [claim for claim in CLAIMS if claim.id == claim_id]
    return claim


def changed(files, variant, rank):
    """The same files, the ranks of every run of a variant on INSPIRED replaced."""
    runs = dict(files.runs)
    for name, run in runs.items():
        if run.get("variant") == variant and run["dataset"] == "inspired":
            new = copy.deepcopy(run)
            new["points"]["rank"] = [rank] * len(new["points"]["rank"])
            runs[name] = new
    return Files.of(runs, files.others)


# -- claims ---------------------------------------------------------------------------------------


def test_every_claim_has_a_judge_or_a_reason():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS) > 40
    assert {claim.table for claim in CLAIMS} == set(PLACES)
    for claim in CLAIMS:
        assert (claim.judge is None) == bool(claim.reason)
        assert claim.says.endswith(".") and claim.where and set(claim.on) <= set(NAMES)
        assert claim.judge is None or claim.unit or claim.id == "1-counts"
    with pytest.raises(ValueError, match="either a judge or a reason"):
        Claim("x", "2", "Table 2", "Something.")
    with pytest.raises(ValueError, match="either a judge or a reason"):
        Claim("x", "2", "Table 2", "Something.", judge=ablation("w/o Recall loss"), reason="None.")
    with pytest.raises(ValueError, match="no place '11'"):
        Claim("x", "11", "Table 11", "Something.", reason="None.")


def test_without_files_nothing_is_judged(nothing):
    found = findings(Files.of({}))
    assert {f.verdict for each in found.values() for f in each.values() if f} == {MISSING, UNTESTED}
    for claim, each in found.items():
        for name, f in each.items():
            about = {v: k for k, v in NAMES.items()}[name] in claim.on
            assert (f is not None) == about
            assert f is None or (f.verdict == UNTESTED) == bool(claim.reason)
    assert "none of" in nothing and "can be judged yet" in nothing
    assert by_chance(found)["n"] == 0 and "By chance" not in nothing


def test_files_are_sorted_by_setting(committed):
    assert list(Files.of({}).columns) == list(NAMES.values())
    name, run = next((k, r) for k, r in committed.runs.items() if r.get("variant") == "PECRS")
    other = {**committed.runs, "other": run | {"backbone": "gpt2", "preset": "paper"}}
    columns = Files.of(other).columns
    assert f"{NAMES[run['dataset']]} (paper, gpt2)" in columns
    without = {k: r for k, r in committed.runs.items() if not k.endswith("-data")}
    assert not any(results.main for results in Files.of(without).columns.values())
    assert committed.names([run, {}]) == (f"runs/{name}.json",)


# -- judges ---------------------------------------------------------------------------------------


def test_a_verdict_moves_when_the_ranks_do(committed):
    claim = of("5-recall-loss")
    variant = "w/o Recall loss"
    verdict = {
        rank: claim.find(files, files.columns[DATA]).verdict
        for rank in (None, 1)
        for files in [changed(committed, variant, rank)]
    }
    assert verdict == {None: HOLDS, 1: FAILS}
    same = changed(committed, variant, 1)
    assert findings(same)[of("6-plot")][DATA] == findings(committed)[of("6-plot")][DATA]


def test_a_difference_is_that_of_the_points(committed):
    results = committed.columns[DATA]
    f = of("5-rerank-loss").find(committed, results)
    a, b = results.paired("w/o Rerank loss")
    share = [
        np.mean([r is not None and r <= 50 for run in runs for r in run["points"]["rank"]])
        for runs in (a, b)
    ]
    assert f.ours == pytest.approx(100 * (share[0] - share[1]))
    assert f.paper == pytest.approx(printed(5, "w/o Rerank loss", "R@50") - 40.5)
    assert f.seeds == len(a) and f.n == len(a[0]["points"]["item"])
    assert f.files == committed.names([*a, *b]) and len(f.files) == 2 * len(a)


def test_systems_of_the_paper_are_judged_in_its_settings_only(committed):
    claim = of("2-unicrs")
    here = claim.find(committed, committed.columns[DATA])
    assert here.verdict == UNTESTED and "paper's own numbers say the opposite" in here.note
    results = committed.columns[DATA]
    paper = Results("inspired", results.data, {
        "PECRS": [r | {"preset": "paper", "backbone": "gpt2"} for r in results.main]
    })  # fmt: skip
    assert claim.find(committed, paper).verdict == FAILS
    small = Results("inspired", results.data, {
        "PECRS": [r | {"preset": "paper"} for r in results.main]
    })  # fmt: skip
    assert claim.find(committed, small).verdict == UNTESTED
    perfect = [copy.deepcopy(r) for r in paper.main]
    for run in perfect:
        run["points"]["rank"] = [1] * len(run["points"]["rank"])
    best = Results("inspired", results.data, {"PECRS": perfect})
    f = rival("MESE", "PECRS-small")(committed, best)
    assert f.verdict == HOLDS and "3 comparisons (3 holds)" in f.note


def test_the_weakest_comparison_speaks_for_a_claim():
    good = Finding(HOLDS, 1.0, 2.0, 1.0, 3.0)
    less = Finding(HOLDS, 1.0, 2.0, 0.5, 3.0)
    assert weakest({"a": None, "b": None}) is None
    assert weakest({"a": good, "b": None}) is good
    assert "least favourable: b" in weakest({"a": good, "b": less}).note
    mixed = weakest({"a": good, "b": Finding(FAILS, note="Why."), "c": Finding(OPEN)})
    assert mixed.verdict == FAILS and mixed.note.endswith("b. Why.")
    falling = {"a": Finding(HOLDS, -1.0, -2.0, -3.0, -0.1), "b": Finding(HOLDS, -1, -2, -3, -1)}
    assert "favourable: a" in weakest(falling).note


def test_language_models_by_their_file(committed):
    judge = zero_shot("vicuna: list of 20", "Vicuna-1.5-7B", 1)
    f = judge(committed, committed.columns[DATA])
    assert f.paper == pytest.approx(8.2 - 5.4) and f.files == ("zero_shot.json",)
    rows = copy.deepcopy(committed.others["zero_shot"])
    for row in rows["paired"]:
        row |= {"difference": 9.0, "low": 8.0, "high": 10.0}
    ahead = Files({}, {"zero_shot": rows}, committed.columns)
    assert judge(ahead, committed.columns[DATA]).verdict == HOLDS
    assert judge(Files.of({}), committed.columns[DATA]) is None


def strategies(rouge, dist):
    rows = [
        {"model": "trained", "Dist@2 per sentence": d,
         "ROUGE-1": {"value": r, "low": r - 0.1, "high": r + 0.1}}
        for r, d in zip(rouge, dist, strict=True)
    ]  # fmt: skip
    return Files({}, {"decoding": {"rows": rows, "replies": 10}}, {})


def test_decoding_by_its_file():
    empty = Results("minireel", {}, {})
    many = np.arange(1.0, 41.0)
    moves = dist_moves_more(strategies([20, 21, 22], [1, 2, 9]), empty)
    assert moves.verdict == HOLDS and moves.ours == pytest.approx(9 / (22 / 20))
    assert dist_moves_more(strategies([10, 30, 60], [1, 1.1, 1.2]), empty).verdict == FAILS
    assert weakly_related(strategies(many, -many), empty).verdict == FAILS
    shuffled = np.random.default_rng(0).permutation(many)
    related = weakly_related(strategies(many, shuffled), empty)
    assert abs(related.ours) < 0.3 and related.verdict == HOLDS
    few = weakly_related(strategies(many[:5], shuffled[:5]), empty)
    assert few.verdict == OPEN
    assert related.paper < -0.9 and "own Table 8" in related.note


# -- tables ---------------------------------------------------------------------------------------


def test_counts_add_up(found):
    table = counts(found)
    assert list(table.index) == list(VERDICTS)
    for name in table:
        assert table[name].sum() == sum(each[name] is not None for each in found.values())


def test_chance_counts_verdicts_with_an_interval(found):
    chance = by_chance(found)
    n = sum(bool(f and np.isfinite(f.low) and f.verdict in VERDICTS[:3])
            for each in found.values() for f in each.values())  # fmt: skip
    assert chance["n"] == n > 10
    assert chance["expected"] == pytest.approx(0.025 * n)
    assert 0 < chance["at least one"] < 100


def test_one_seed_is_flagged(found, text):
    flagged = one_seed(found)
    assert "7-first on INSPIRED" in flagged
    assert not any(found[of(f.split(" on ")[0])][f.split(" on ")[1]].seeds > 1 for f in flagged)
    assert flagged[0] in text.split("## Threats")[1]


def test_the_papers_own_differences_beside_noise(committed):
    table = printed_noise(committed.columns[DATA])
    rows = table[(table["less"] == "UniCRS") & (table["R@"] == 50)].set_index("PECRS")
    assert rows.loc["PECRS-small", "difference"] == pytest.approx(33.3 - 41.0)
    n = rows.loc["PECRS-small", "n"]
    noise = 196 * np.sqrt((0.333 * 0.667 + 0.41 * 0.59) / n)
    assert rows.loc["PECRS-small", "noise"] == pytest.approx(noise)
    assert set(table["less"]) == {"UniCRS", "MESE"} and len(table) == 12
    assert printed_noise(Results("redial", {}, {})).empty


def test_baselines_in_words(committed):
    results = committed.columns[DATA]
    best = changed(committed, "PECRS", 1).columns[DATA]
    said = baselines_text(DATA, against_baselines(best))
    names = ", ".join(results.data["baselines"])
    assert said == (
        f"At R@50 PECRS on {DATA} is on all targets ahead of {names}, "
        f"and on novel targets ahead of {names}."
    )
    table = against_baselines(results)
    row = table[(table["PECRS less"] == "Popularity") & (table["targets"] == "novel")].iloc[0]
    novel = np.array(results.data["points"]["novel"], bool)
    other = np.array(results.data["baselines"]["Popularity"]["rank"], float)[novel] <= 10
    own = [np.array(r["points"]["rank"], float)[novel] <= 10 for r in results.main]
    assert row["R@10"].startswith(f"{100 * (np.mean(own) - other.mean()):+.1f} [")
    assert baselines_text(DATA, against_baselines(Results("redial", {}, {}))) == ""


def test_settings_that_are_not_the_papers(committed):
    results = committed.columns[DATA]
    table = settings(results).set_index("setting")
    assert table.loc["backbone", "the paper"] == "gpt2" and "seed" not in table.index
    config = results.main[0]["config"]
    assert all(config[name] == value for name, value in table["ours"].items())
    assert not (table["ours"] == table["the paper"]).any()


def test_every_run_is_listed_with_its_command(committed, text):
    table = runs_table(committed)
    row = table[(table["data"] == DATA) & (table["run"] == "PECRS")].iloc[0]
    seeds = [run["seed"] for run in committed.columns[DATA].main]
    assert row["seeds"] == ", ".join(map(str, seeds))
    assert row["command"].startswith("pecrs reproduce 2 --dataset inspired --preset cpu")
    assert (table["seeds"] == "not run").any() and text.count("not run") > 1
    assert len(table) == text.split("## Runs")[1].count("`pecrs reproduce")


# -- the report -----------------------------------------------------------------------------------


def test_the_report_names_every_claim_once_and_its_verdict(text, found):
    listed, details = text.split("## The method")
    for claim, each in found.items():
        [line] = [line for line in listed.splitlines() if line.startswith(f"| `{claim.id}` |")]
        cells = [cell.strip() for cell in line.strip("|").split("|")][3:]
        assert cells == [SYMBOLS[f.verdict] if f else "" for f in each.values()]
        assert details.count(f"**{claim.says}**") == 1
        if claim.reason:
            assert f"{UNTESTED}. {claim.reason}" in details
    assert len(set(SYMBOLS.values())) == len(VERDICTS)


def test_the_report_changes_when_a_result_does(committed, text):
    other = report(changed(committed, "w/o Recall loss", 1))
    assert other != text

    def line(of_text):
        return next(x for x in of_text.splitlines() if x.startswith("| `5-recall-loss` |"))

    assert SYMBOLS[HOLDS] in line(text) and SYMBOLS[FAILS] in line(other)
    assert SYMBOLS[HOLDS] not in line(other)
    assert report(committed) == text


def test_no_number_of_a_report_without_files_is_typed_in(nothing):
    """Without result files, only numbers of the paper's tables and of sections are left."""
    known = {
        f"{x:,.6g}" for k in range(1, 11) for x in paper_table(k).select_dtypes("number").stack()
    }
    places = r"sections? [\d. and]+|Tables? [\d and]+|Figures? \d+|@\d+|F-1|GPT-2|EACL 2024|ROUGE-1"
    rest = re.sub(places, "", nothing.split("## Runs")[0])
    rest = re.sub(r"`[^`]*`", "", rest)
    numbers = set(re.findall(r"\d+(?:\.\d+)?", rest)) - {"95"}  # the level of every interval
    # Sections 1 and 3 of the first heading; how many claims there are; the recorded lists of twenty
    counted = {str(len([c for c in CLAIMS if d in c.on])) for d in NAMES}
    cells = {v for v in counts(findings(Files.of({}))).to_numpy().ravel().astype(str)}
    assert numbers <= known | counted | cells | {"09"}, numbers - known - counted - cells
    assert "95" in RULE


def test_evidence_prints_what_was_found(found):
    rows = evidence_rows(found, "5").set_index(["claim", "data"])
    f = found[of("5-recall-loss")][DATA]
    row = rows.loc[("5-recall-loss", DATA)]
    assert row["ours [95 %]"] == f"{f.ours:+.1f} [{f.low:+.1f}, {f.high:+.1f}]"
    assert row["the paper"] == f"{f.paper:+.1f}" and row["n"] == f"{f.n:,}"
    assert row["novel targets"].startswith(f"{f.novel['ours']:+.1f}")
    assert evidence_rows(findings(Files.of({})), "5").empty


def test_markdown_tables():
    table = pd.DataFrame({"a": ["x|y"], "b": [1]})
    assert markdown(table) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"
    assert markdown(pd.DataFrame()) == ""


def test_a_wide_table_has_a_line_per_system_and_targets(committed):
    table = wide(table_2(committed.columns[DATA]))
    row = table[(table["row"] == "Popularity") & (table["targets"] == "novel")].iloc[0]
    novel = sum(committed.columns[DATA].data["points"]["novel"])
    assert row["n"] == str(novel) and "[" in row["R@50"]
    uni = table[table["row"] == "UniCRS"].iloc[0]
    assert uni["R@50"] == "41 | –" and uni["n"] == ""


def test_numbers_of_the_papers_text():
    assert printed_text("trained") == 5
    assert printed_text("genre-hit", "ReDial") == 41.20
    assert np.isnan(printed_text("genre-hit", "MiniReel"))
    assert np.isnan(printed(2, "KGSF", "INSPIRED R@1"))


def test_the_figure_shows_a_square_per_claim_and_data_set(found):
    table = verdicts(found)
    ax = verdicts_figure(table).axes[0]
    squares = sum(f is not None for each in found.values() for f in each.values())
    assert len(ax.patches) == len(ax.texts) == squares
    shown = verdicts_figure(table, judged_only=True).axes[0]
    assert 0 < len(shown.get_yticks()) < len(ax.get_yticks())


def test_the_command_writes_the_report(tmp_path):
    out = tmp_path / "runs"
    command = ["reproduce", "--report", str(tmp_path / "r.md"), "--out", str(out)]
    nothing = CliRunner().invoke(app, command)  # as outside the repository
    assert nothing.exit_code == 2 and f"no result files in {out}" in nothing.stderr
    assert not (tmp_path / "r.md").exists()

    out.mkdir()
    shutil.copy(bundled("results") / "runs" / "minireel-data.json", out)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.stderr
    written = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert written == report(Files.of(read_runs(out)))


# -- the better model -----------------------------------------------------------------------------


def fused(recall):
    """A file of `experiments.fusion` with every recall of the chosen model set to `recall`."""

    def row(system, targets, value):
        named = {f"R@{k}": {"value": value, "low": 0, "high": 99} for k in (1, 10, 50)}
        return {"system": system, "targets": targets, "n": 280, **named}

    baseline, mine = TARGETS["inspired"][0], "with counts"
    others = ("counts alone", "retrieval alone", "for R@1", "for R@10", "for R@50")
    against = {"system": mine, "targets": "all", "difference": recall - 20, "low": -1, "high": 9}
    return {
        "n": 280,
        "model": "m",
        "runs": [{"name": mine, "weights": {"retrieval": 1.0, "named": 0.5, "recent": 0.0}}],
        "rows": [
            row(system, targets, value)
            for system, value in ((baseline, 20.0), (mine, recall), *((o, 10.0) for o in others))
            for targets in ("all", "novel")
        ],
        "paired": [
            against | {"k": k, "against": b} for k in (1, 10, 50) for b in (baseline, others[0])
        ],
    }


@pytest.mark.parametrize(
    ("recall", "word"),
    [
        (25.0, "passed at R@10 by 5.0"),
        (20.0, "missed at R@10 by 0.0"),
        (7.5, "missed at R@10 by 12.5"),
    ],
)
def test_the_better_model_passes_or_misses_its_target(recall, word):
    files = Files.of({}, {"fusion_inspired": fused(recall)})
    text, *why = better_text(files)
    assert word in text and "weights retrieval 1, named 0.5." in text
    assert bool(why) == word.startswith("missed")
    table = better_table(files)
    assert len(table) == 8 and set(table["n"]) == {280}
    chosen = better(files).query("row == 'PECRS with counts' and metric == 'R@10'")
    assert list(chosen["ours"]) == [recall, recall]
    assert text in report(files)


def test_without_its_file_the_report_has_no_better_model(nothing):
    assert "counts beside it" not in nothing and better_table(Files.of({})).empty


def test_the_report_says_where_points_are_missing():
    """Of 4 targets named before the baseline finds 3, ours 1; of 16 novel ones 1 and 2."""
    record = fused(15.0)
    share = {("all", 20): (20.0, 15.0), ("novel", 16): (6.25, 12.5)}
    for (targets, n), (theirs, ours) in share.items():
        for row in record["rows"]:
            if row["targets"] == targets:
                row |= {"n": n, "R@1": {"value": ours, "low": 0, "high": 99}}
                if row["system"] == TARGETS["inspired"][0]:
                    row["R@1"]["value"] = theirs
    record["n"] = 20
    _, why = better_text(Files.of({}, {"fusion_inspired": record}))
    assert "at R@1 25.0 % of the 4 targets named before (the baseline 75.0 %)" in why
    assert "12.5 % of the 16 novel ones (6.2 %)" in why


def test_ranks_with_counts_are_those_of_a_full_sort():
    from experiments.fusion import COUNTS, Part

    rng = np.random.default_rng(0)
    part = Part.__new__(Part)
    part.known = {
        turn: rng.integers(0, 4, (1 + len(COUNTS), 30)).astype(np.float32)
        for turn in ((0, 1), (2, 5))
    }
    part.places = {(0, 1): [0, 1], (2, 5): [3]}
    part.row = [7, 19, -1, 4]
    part.points = [Point(0, 1, "7", True), Point(0, 1, "19", True), Point(1, 1, "x", True),
                   Point(2, 5, "4", True)]  # fmt: skip
    found = part.ranked({"retrieval": 1.0, COUNTS[0]: 0.5, COUNTS[2]: -2.0})
    for k, turn in ((0, (0, 1)), (1, (0, 1)), (3, (2, 5))):
        near, first, _, third, *_ = part.known[turn]
        score = near + 0.5 * first - 2 * third
        order = sorted(range(30), key=lambda j: (-score[j], j))
        assert found.rank[k] == order.index(part.row[k]) + 1 and found.top1[k] == order[0]
    assert np.isinf(found.rank[2]) and found.top1[2] == -1


def test_weights_are_those_that_no_step_makes_better():
    from experiments.fusion import ALONE, COUNTS, STEPS, Part, chosen, goodness

    rng = np.random.default_rng(1)
    part = Part.__new__(Part)
    turns = [(d, 1) for d in range(40)]
    part.known = {t: rng.random((1 + len(COUNTS), 60), dtype=np.float32) for t in turns}
    part.row = [int(part.known[turn][:2].sum(0).argmax()) for turn in turns]
    part.places = {turn: [n] for n, turn in enumerate(turns)}
    part.points = [Point(d, t, str(d), True) for d, t in turns]
    weights = chosen(part, COUNTS, ALONE)
    best = goodness(part.ranked(weights))
    assert best > goodness(part.ranked(ALONE)) and weights[COUNTS[0]] > 0
    for count in COUNTS:
        for step in STEPS:
            other = weights | {count: weights.get(count, 0) + step}
            assert goodness(part.ranked(other)) <= best


def test_what_counts_know_of_a_film_is_found_by_a_loop_too():
    from experiments.fusion import RARE, RECENT, cosines, mentions
    from pecrs_lib.baselines import CoOccurrence
    from tests.toys import toy_catalogue, toy_dialogues

    catalogue = toy_catalogue(12)
    train = toy_dialogues(catalogue, 20, seed=1)
    baskets = [{i for u in d.utterances for i in u.items if i in catalogue} for d in train]
    counted = CoOccurrence().fit(train, catalogue)
    size = dict(zip([m.id for m in catalogue], counted.popularity, strict=True))
    before = train[0]
    alike = cosines(counted).together(before)
    flag, fresh = mentions(before, catalogue)
    last = len(before.utterances) - 1
    for j, movie in enumerate(catalogue):
        want = sum(
            sum({i, movie.id} <= b for b in baskets)
            / np.sqrt((size[i] + RARE) * (size[movie.id] + RARE))
            for i in baskets[0] - {movie.id}
        )
        assert alike[j] == pytest.approx(want)
        at = [t for t, u in enumerate(before.utterances) if movie.id in u.items]
        assert flag[j] == bool(at)
        assert fresh[j] == pytest.approx(np.exp(-(last - max(at)) / RECENT) if at else 0)
