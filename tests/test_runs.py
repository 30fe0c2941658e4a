"""Runs of the reproduction: what they change, that they resume and are skipped, what they leave."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import pecrs_lib.data
from experiments import pruned_catalogue
from pecrs_lib.assessment import predictions_of, rank_dialogues
from pecrs_lib.baselines import Popularity
from pecrs_lib.cli import app
from pecrs_lib.cli.reproduce import Dataset, Preset
from pecrs_lib.config import Config
from pecrs_lib.data import CORPORA, Catalogue, DataError
from pecrs_lib.model import PECRS
from pecrs_lib.reproduction import running
from pecrs_lib.reproduction.measuring import confidence_of, data_record
from pecrs_lib.reproduction.pruning import mentioned, rank_among_mentioned
from pecrs_lib.reproduction.running import carry_out, some
from pecrs_lib.reproduction.runs import (
    ABLATIONS,
    AS_IN_PAPER,
    MAIN,
    NEEDS,
    PRESETS,
    REFERENCE,
    Recipe,
    Run,
    estimate,
    needed,
    plan,
    read_runs,
    variants,
    write_run,
)
from pecrs_lib.reproduction.variants import AS_OFFICIAL, BEYOND, COMPAT, LEARNING_CURVE, OFFICIAL
from pecrs_lib.training import Trainer
from tests.toys import toy_catalogue, toy_dialogues

CATALOGUE = toy_catalogue(24)
SPLITS = {
    "train": toy_dialogues(CATALOGUE, 40, seed=0),
    "valid": toy_dialogues(CATALOGUE, 2, seed=1),
    "test": toy_dialogues(CATALOGUE, 4, seed=2),
}
CORPUS = CATALOGUE, SPLITS
CONFIG = Config(
    context_tokens=64, utterance_tokens=48, window=192, response_tokens=8, lora_rank=4,
    negatives=5, retrieval_negatives=5, epochs=2, batch_size=3, learning_rate=3e-3, candidates=12,
    warm_start=2, query_pooling=True, rerank_from_retrieval=True,
)  # fmt: skip
RECIPE = Recipe(CONFIG, (3, 5), (4, 12), minutes=2, read_lm=False, dialogues=6, replies=2)


@pytest.fixture
def tiny(monkeypatch, tiny_backbone):
    """MiniReel with preset cpu is a toy here; gives its runs."""
    monkeypatch.setitem(PRESETS["cpu"], "minireel", RECIPE)
    return lambda variant=MAIN, seed=0: Run("minireel", "cpu", tiny_backbone, variant, seed)


def without_times(record):
    text = json.dumps({k: v for k, v in record.items() if k != "seconds_per_batch"})
    return re.sub(r'"(train|test)": [\d.]+(?=[,}])', "", text)


# -- what is run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dataset", CORPORA)
def test_every_variant_is_one_change_of_the_main_run(preset, dataset):
    main = Run(dataset, preset, "x").config
    seen = {main: MAIN}
    for name, changes in variants(PRESETS[preset][dataset]).items():
        run = Run(dataset, preset, "x", name)
        settings = {k: v for k, v in changes.items() if k not in ("titles", "share")}
        assert {k for k, v in settings.items() if getattr(main, k) == v} <= {
            "warm_start",  # the paper's preset has none
            "beta" if name == "loss weights of the code" else "",
        }, f"{name} changes nothing"
        assert run.titles_only == (name == "w/o Metadata (just title)")
        assert run.share == LEARNING_CURVE.get(name, {}).get("share", 1)
        if name != MAIN and settings:
            assert run.config not in seen
            seen[run.config] = name
    names = [Run(dataset, preset, "x", name).name for name in variants(PRESETS[preset][dataset])]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[a-z0-9-]+", n) for n in names)


def test_a_run_with_a_name_that_is_none_is_refused():
    with pytest.raises(ValueError, match="no variant 'w/o luck'; there are: PECRS; w/o Recall"):
        Run("minireel", "cpu", "x", "w/o luck")
    with pytest.raises(ValueError, match="no preset 'gpu'; there are cpu, paper"):
        Run("minireel", "gpu", "x")
    with pytest.raises(ValueError, match="no data set 'imdb'"):
        Run("imdb", "cpu", "x")


def test_tables_need_variants_once_and_the_main_run_first():
    assert needed(["1", "4"], "cpu", "inspired") == []
    assert needed(["2", "figure-4"], "cpu", "inspired") == [MAIN]
    assert needed(["5", "2"], "cpu", "inspired") == [MAIN, *ABLATIONS, *REFERENCE.values()]
    assert needed(["5", "2"], "paper", "inspired") == [MAIN, *ABLATIONS]
    grid = needed(["figure-3"], "cpu", "inspired")
    assert needed(["deviations"], "cpu", "redial") == [MAIN, *AS_IN_PAPER]
    assert needed(["deviations"], "paper", "redial") == [MAIN]  # it has none of them
    assert grid[0] == MAIN and all(v.startswith("M_train = ") for v in grid[1:]) and grid[1:]
    assert needed(["beyond"], "cpu", "redial") == [MAIN, *BEYOND]
    assert needed(["official"], "paper", "redial") == [MAIN, *OFFICIAL]
    assert needed(["learning-curve"], "cpu", "inspired") == [MAIN, *LEARNING_CURVE]
    assert set(needed(list(NEEDS), "paper", "redial")) == set(variants(PRESETS["paper"]["redial"]))


def test_the_budget_takes_what_fits_in_order():
    runs = [Run("inspired", "cpu", "x", seed=s) for s in range(4)]
    minutes = dict(zip(runs, (5, 9, 5, 1), strict=True))
    assert plan(runs, minutes, None) == (runs, [])
    assert plan(runs, minutes, 11) == ([runs[0], runs[2], runs[3]], [runs[1]])
    assert plan(runs, minutes, 0) == ([], runs)


def test_an_estimate_becomes_a_measurement():
    main, other = Run("inspired", "cpu", "x"), Run("inspired", "cpu", "x", "w/o Rerank loss", 1)

    def done(variant, seed, seconds, backbone="x"):
        return {
            "dataset": "inspired", "preset": "cpu", "backbone": backbone, "variant": variant,
            "seed": seed, "seconds": {"train": seconds, "test": 60.0},
        }  # fmt: skip

    assert estimate(main, {}) == estimate(other, {}) == main.recipe.minutes
    files = {"data": {"dataset": "inspired"}, "a": done(MAIN, 0, 240), "b": done(MAIN, 1, 360)}
    assert estimate(main, files) == estimate(other, files) == 6
    assert estimate(other, files | {"c": done("w/o Rerank loss", 0, 120)}) == 3
    assert estimate(main, {"d": done(MAIN, 0, 240, "y")}) == main.recipe.minutes


def test_a_subset_is_drawn_by_the_seed_and_keeps_its_order():
    numbers = list(range(50))
    drawn = some(numbers, 10, 3)
    assert len(drawn) == 10 and drawn == sorted(drawn) == some(numbers, 10, 3)
    assert drawn != some(numbers, 10, 4)
    assert some(numbers, None, 0) == some(numbers, 99, 0) == numbers


def test_names_spelled_out_agree_with_the_library():
    assert {d.value for d in Dataset} == set(CORPORA)
    assert {p.value for p in Preset} == set(PRESETS)
    assert all(set(of) == set(CORPORA) for of in PRESETS.values())


# -- running --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", variants(RECIPE))
def test_every_variant_trains_and_changes_what_it_claims(tiny, variant, tmp_path):
    run = tiny(variant)
    record = carry_out(run, CORPUS, tmp_path, show=False)
    changed = dict(variants(RECIPE)[variant])
    changed.pop("titles", None)
    share = changed.pop("share", 1)
    assert record["config"] == CONFIG.with_(backbone=run.model, **changed).to_dict()
    assert run.backbone not in json.dumps(record)  # a folder of this machine
    model = PECRS.from_pretrained(tmp_path / run.name / "best")
    names = {name for name, _ in model.items.named_parameters()}
    assert ("w" in names) == (variant != "w/o Item pooling")
    assert any(n.startswith("h_item") for n in names) == (variant != "w/o Item head")
    last = record["history"][-1]
    without = ("w/o Recall loss", "single stage alone")
    assert (record["warm_start"] == []) == (variant in without)
    assert (model.queries.gate is None) == (variant == "query from [REC] alone")
    assert record["n"]["train"] == min(6, 40 * share) and record["n"]["test"] == 4
    assert all(np.isfinite(last[k]) for k in ("recall", "rerank", "gen"))
    assert record["pruned"] is None  # every item is mentioned
    assert set(record["rank_within"]) == {"4"} and len(record["replies"]["says"]) > 0
    assert set(record["rank_without"]) == (
        {"title", "actors", "directors", "genres", "plot"} if variant == MAIN else set()
    )


@pytest.mark.parametrize("variant", LEARNING_CURVE)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_share_of_training_is_all_that_is_read(tiny, variant, seed, tmp_path, monkeypatch):
    """Neither warm start nor single stage sees a dialogue more, and seeds draw others."""
    read = {"warm start": [], "single stage": []}
    encode, trainer = running.encode_windows, running.Trainer

    def encoding(dialogues, *rest):
        read["warm start"] += [d.id for d in dialogues]
        return encode(dialogues, *rest)

    def training(model, catalogue, train, *rest, **more):
        read["single stage"] += [d.id for d in train]
        return trainer(model, catalogue, train, *rest, **more)

    monkeypatch.setattr(running, "encode_windows", encoding)
    monkeypatch.setattr(running, "Trainer", training)
    record = carry_out(tiny(variant, seed), CORPUS, tmp_path, show=False)
    size = int(40 * LEARNING_CURVE[variant]["share"])
    drawn = {d.id for d in some(SPLITS["train"], size, seed)}
    assert len(drawn) == size == len(read["warm start"]) and set(read["warm start"]) == drawn
    assert set(read["single stage"]) <= drawn and len(read["single stage"]) == min(6, size)
    assert record["n"]["warm start"] == size
    assert drawn != {d.id for d in some(SPLITS["train"], size, seed + 2)}
    assert drawn >= {d.id for d in some(SPLITS["train"], size // 2, seed)}


def test_a_pruned_catalogue_holds_what_some_dialogue_mentions(tiny, tmp_path, monkeypatch):
    dialogues = [d for part in SPLITS.values() for d in part]
    said = {m.item for d in dialogues for u in d.utterances for m in u.mentions}
    unknown = toy_catalogue(30).movies[24:]  # nobody mentions them
    catalogue = Catalogue((*unknown[:3], *CATALOGUE.movies, *unknown[3:]))
    assert [m.id for m in mentioned(catalogue, SPLITS)] == [m.id for m in CATALOGUE]
    assert said == {m.id for m in CATALOGUE}
    record = carry_out(tiny(), (catalogue, SPLITS), tmp_path, show=False)
    model = PECRS.from_pretrained(tmp_path / tiny().name / "best")
    v = model.encode_catalogue(model.item_features(CATALOGUE))
    ranked = rank_dialogues(model, SPLITS["test"], CATALOGUE, v)
    found = predictions_of(ranked, SPLITS["test"], CATALOGUE)
    pruned = record["pruned"]
    assert pruned["items"] == 24 and pruned["rank"] == found.rank.tolist()
    first = [-1 if j < 0 else catalogue[j].id for j in pruned["top1"]]
    assert first == [-1 if j < 0 else CATALOGUE[j].id for j in found.top1]
    whole = [np.inf if r is None else r for r in record["points"]["rank"]]
    assert (found.rank <= whole).mean() > 0.9 and (found.rank < whole).any()
    assert rank_among_mentioned(model, CATALOGUE, SPLITS) is None

    path = tmp_path / "out" / f"{tiny().name}.json"  # a file of before there were pruned ranks
    write_run({k: v for k, v in record.items() if k != "pruned"}, path)
    monkeypatch.setattr(pruned_catalogue, "load_corpus", lambda name: (catalogue, SPLITS))
    places = ["--runs", str(path.parent), "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["x", "--dataset", "minireel", *places])
    pruned_catalogue.main()
    assert json.loads(path.read_text())["pruned"] == pruned


def test_a_loss_taken_away_has_no_gradient_of_its_own(tiny, tmp_path):
    """With α = 0 and without a warm start nothing pulls on what only retrieval reads."""
    run = tiny("w/o Recall loss")
    model = PECRS.from_backbone(run.config)
    trainer = Trainer(
        model, CATALOGUE, SPLITS["train"], SPLITS["valid"], tmp_path, show=False
    )  # fmt: skip
    batch = [[w for w in trainer.train_windows if any(t.items for t in w.turns)]]
    trainer._gradient(batch)
    assert model.queries.share.grad is None or not model.queries.share.grad.any()
    assert model.g[0].weight.grad.any()


def test_interrupted_and_resumed_is_the_same_run(tiny, tmp_path, monkeypatch):
    whole = carry_out(tiny(), CORPUS, tmp_path / "whole", show=False)
    gradient = Trainer._gradient

    def stop(self, parts):
        if self.progress.step == 3:
            raise KeyboardInterrupt
        return gradient(self, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_gradient", stop)
        with pytest.raises(KeyboardInterrupt):
            carry_out(tiny(), CORPUS, tmp_path / "part", show=False)
    with monkeypatch.context() as patch:  # once more, after training
        patch.setattr("pecrs_lib.reproduction.running.measure", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            carry_out(tiny(), CORPUS, tmp_path / "part", show=False)
    part = carry_out(tiny(), CORPUS, tmp_path / "part", show=False)
    assert part["seconds_per_batch"] > 0
    assert without_times(part) == without_times(whole)
    assert part["seconds"]["train"] > 0


def test_the_file_is_what_the_model_does(tiny, tmp_path):
    record = carry_out(tiny(), CORPUS, tmp_path, show=False)
    model = PECRS.from_pretrained(tmp_path / tiny().name / "best")
    features = model.item_features(CATALOGUE)
    v = model.encode_catalogue(features)
    for m, ranks in {"12": record["points"]["rank"], **record["rank_within"]}.items():
        ranked = rank_dialogues(model, SPLITS["test"], CATALOGUE, v, candidates=int(m))
        found = predictions_of(ranked, SPLITS["test"], CATALOGUE)
        assert found.rank.tolist() == ranks
        if m == "12":
            assert confidence_of(ranked, found) == record["points"]["confidence"]
            last = (ranked.dialogue == found.dialogue[-1]) & (ranked.utterance == found.turn[-1])
            sure = pytest.approx(ranked.confidence[last][0], abs=1e-4)
            assert record["points"]["confidence"][-1] == sure
    assert record["points"]["item"] == found.item.tolist()
    pruned = [f for f in ("title", "actors", "directors", "genres")]
    w = model.encode_catalogue(model.item_features(CATALOGUE, fields=pruned))
    ranked = rank_dialogues(model, SPLITS["test"], CATALOGUE, w)
    assert (
        predictions_of(ranked, SPLITS["test"], CATALOGUE).rank.tolist()
        == (record["rank_without"]["plot"])
    )
    assert ranked.nll.sum() != sum(record["responses"]["nll"])
    assert sum(record["responses"]["tokens"]) == ranked.tokens.sum()


def test_files_hold_no_sentence(tiny, tmp_path):
    texts = [carry_out(tiny(), CORPUS, tmp_path, show=False), data_record("minireel", CORPUS)]
    said = {u.text for part in SPLITS.values() for d in part for u in d.utterances}
    long = [text for text in said if len(text.split()) > 3]
    assert long
    for record in texts:
        text = json.dumps(record)
        assert not [words for words in long if words in text]
        assert not [movie.plot for movie in CATALOGUE if movie.plot in text]


def test_popularity_is_what_the_baseline_counts():
    counts = data_record("minireel", CORPUS)["popularity"]
    known = Popularity().fit(SPLITS["train"], CATALOGUE).counts
    assert counts == known.tolist() and sum(counts) > 0
    assert all(isinstance(count, int) for count in counts)


def test_a_written_run_reads_as_it_was(tmp_path):
    record = {"a": [1, None, 2.5], "b": {"ä": "ß"}}
    write_run(record, tmp_path / "x.json")
    assert read_runs(tmp_path) == {"x": record}
    assert (tmp_path / "x.json").read_text(encoding="utf-8").count("\n") == 4
    (tmp_path / "y.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"y\.json.*remove it to run again"):
        read_runs(tmp_path)


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def command(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(pecrs_lib.data, "load_corpus", lambda name: CORPUS)

    def invoke(*arguments, status=0):
        places = ["--out", tmp_path / "out", "--work", tmp_path / "work"]
        backbone = ["--backbone", tiny().backbone]
        whole = ["reproduce", *arguments, *backbone, *places]
        result = CliRunner().invoke(app, [str(a) for a in whole])
        if not isinstance(result.exception, SystemExit | None):
            raise result.exception
        assert result.exit_code == status, result.stderr
        return result

    return invoke


def test_reproduce_runs_what_is_missing_and_prints_the_table(command, tiny, tmp_path):
    first_of_all = command("2", "--list")
    assert "no result files in" in first_of_all.stderr
    listed = first_of_all.stdout
    assert "to do" in listed and "1 of 1 runs to do, about 2 minutes" in listed
    assert not (tmp_path / "out").exists()

    first = command("2")
    assert f"run 1 of 1: {tiny().name}" in first.stderr
    assert "Table 2: recommendation" in first.stdout
    assert "Co-occurrence" in first.stdout and "PECRS-small" in first.stdout
    path = tmp_path / "out" / f"{tiny().name}.json"
    before = path.stat().st_mtime_ns
    again = command("2")
    assert again.stderr == "" and again.stdout == first.stdout
    assert path.stat().st_mtime_ns == before
    assert "done" in command("2", "--list").stdout

    left = command("2", "--seeds", "0,1", "--budget", "0")
    assert "left out for the budget of 0 minutes" in left.stderr
    assert "left out" in command("2", "--seeds", "0,1", "--budget", "0", "--list").stdout
    assert left.stdout == first.stdout


def test_a_file_of_other_settings_is_made_anew(command, tiny, monkeypatch, tmp_path):
    command("2")
    path = tmp_path / "out" / f"{tiny().name}.json"
    record = json.loads(path.read_text())
    config = record["config"]
    write_run(record | {"config": config | {"clip": 0.5}}, path)
    assert "0 of 1 runs" not in command("2", "--list").stdout
    again = command("2")
    assert f"{path} is of other settings, and made anew" in again.stderr
    assert json.loads(path.read_text())["config"] == config

    young = ("item_pooling", "item_head")  # a file older than a setting has its default
    write_run(record | {"config": {k: v for k, v in config.items() if k not in young}}, path)
    assert "0 of 1 runs" in command("2", "--list").stdout


def test_reproduce_interrupted_says_how_to_go_on(command, tiny, monkeypatch, tmp_path):
    def stop(self, parts):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_gradient", stop)
        stopped = command("2", status=130)
    assert stopped.stderr.splitlines()[-1] == (
        f"pecrs: interrupted in {tiny().name}; the same command goes on from there"
    )
    assert "begun" in command("2", "--list").stdout
    command("2")


def test_compat_puts_a_run_as_the_official_code_in_place_of_the_main_run(command, tiny, tmp_path):
    made = command("2", "--compat", "official")
    run = tiny(AS_OFFICIAL)
    assert f"run 1 of 1: {run.name}" in made.stderr
    record = json.loads((tmp_path / "out" / f"{run.name}.json").read_text())
    assert COMPAT.items() <= record["config"].items()
    assert "as the official code; " in made.stdout.splitlines()[0]
    hits = 100 * np.mean(np.array(record["points"]["rank"]) <= 1)
    line = next(x for x in made.stdout.splitlines() if x.split()[:2] == ["PECRS-small", "all"])
    assert f" {hits:.3g} [" in line
    every = command("--compat", "official", "--list").stdout
    assert "1 of 1" not in every and "0 of 1 runs" in every
    wrong = command("5", "--compat", "official", status=2).stderr
    assert "--compat has no table '5', only 2, 3, 9, 10, figure-4" in wrong
    assert "'official'" in command("2", "--compat", "unofficial", status=2).stderr


def test_tables_made_elsewhere_are_pointed_to(command):
    said = command("4", "7", "8", "1").stdout
    assert "pecrs rate" in said and "zero_shot.json" in said and "decoding.json" in said
    assert "Table 1: statistics" in said


WRONG = {
    "no such table": (["11"], "no table '11' in the paper; there are 1, 2"),
    "no such figure": (["figure-5"], "figure-3, figure-4"),
    "seeds": (["2", "--seeds", "a"], "whole numbers separated by commas, as 0,1,2; got 'a'"),
    "no seeds": (["2", "--seeds", ""], "whole numbers"),
    "budget": (["2", "--budget", "-1"], "'--budget': Input should be greater"),
    "data set": (["2", "--dataset", "imdb"], "'minireel', 'inspired', 'redial'"),
    "preset": (["2", "--preset", "gpu"], "'cpu', 'paper'"),
    "folder of a bundled set": (["2", "--data", "."], "'minireel' is not read from a folder"),
    "no folder": (["2", "--dataset", "redial", "--data", "none"], "none: no such folder"),
    "empty folder": (["2", "--dataset", "redial", "--data", "{folder}"], "movie_db: no such file"),
    "empty folder of inspired": (
        ["2", "--dataset", "inspired", "--data", "{folder}"], "id2movie.jsonl.gz: no such file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_errors_are_one_line(case, command, tmp_path):
    arguments, expected = WRONG[case]
    result = command(*(a.format(folder=tmp_path) for a in arguments), status=2)
    assert result.stdout == ""
    assert expected in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("pecrs: ")
