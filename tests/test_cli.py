"""The command line: the whole way from files to a conversation, and every way to get it wrong."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from pecrs_lib import chat
from pecrs_lib.cli import app
from pecrs_lib.cli.options import Format
from pecrs_lib.cli.page import chat_page, notebook_of
from pecrs_lib.cli.settings import describe_fields, make_config, refuse_negatives
from pecrs_lib.cli.terminal import EXPECTED
from pecrs_lib.cli.train import Preset
from pecrs_lib.config import PRESETS
from pecrs_lib.data import (
    FORMATS,
    Catalogue,
    DataError,
    Dialogue,
    Mention,
    Movie,
    Utterance,
    read_catalogue,
    read_jsonl,
    write_catalogue,
    write_jsonl,
)
from pecrs_lib.evaluation import Predictions
from pecrs_lib.reproduction.variants import COMPAT
from pecrs_lib.transcript import find_items, read_transcript
from tests.toys import toy_dialogues

SMALL = [
    "--set", "context_tokens=64", "--set", "utterance_tokens=48", "--set", "window=192",
    "--set", "candidates=12", "--set", "lora_rank=4", "--set", "response_tokens=8",
    "--negatives", "5",
]  # fmt: skip


def pecrs(*arguments, stdin=None, status=0):
    """Run a command; on an error status, stderr must end in one line and stdout be empty."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    assert result.exit_code == status, result.stderr
    if status == 2:
        assert result.stdout == ""
        assert result.stderr.splitlines()[-1].startswith("pecrs: ")
        assert "Traceback" not in result.stderr
    return result


def complaint(*arguments, stdin=None):
    """The error line of a command that must fail with status 2, without the leading name."""
    return pecrs(*arguments, stdin=stdin, status=2).stderr.splitlines()[-1].removeprefix("pecrs: ")


@pytest.fixture(scope="module")
def files(tmp_path_factory, catalogue, dialogues):
    folder = tmp_path_factory.mktemp("files")
    write_catalogue(catalogue, folder / "movies.csv")
    write_jsonl(dialogues, folder / "train.jsonl")
    write_jsonl(toy_dialogues(catalogue, 3, seed=3), folder / "test.jsonl")
    return folder


def training(files, backbone, out, *more):
    return [
        "train", "--format", "jsonl", "--train", files / "train.jsonl",
        "--catalogue", files / "movies.csv", "--backbone", backbone, "--out", out, *SMALL, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(files, tiny_backbone, tmp_path_factory):
    """The folder of a finished run of two epochs."""
    out = tmp_path_factory.mktemp("trained") / "run"
    pecrs(*training(files, tiny_backbone, out, "--epochs", "2", "--batch-size", "3"))
    return out


# -- the way through ------------------------------------------------------------------------------


def test_train_resumes_and_says_so(files, tiny_backbone, tmp_path, monkeypatch):
    from pecrs_lib.training import Trainer

    command = training(files, tiny_backbone, tmp_path / "run", "--epochs", "2", "--batch-size", "3")
    step = Trainer._gradient

    def interrupted(self, parts):
        if self.progress.step == 4:
            raise KeyboardInterrupt
        return step(self, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_gradient", interrupted)
        stopped = pecrs(*command, status=130)
    assert "interrupted after step 4, saved in" in stopped.stderr.splitlines()[-1]
    assert "epoch 1 of 2" in stopped.stderr and "% (LoRA" in stopped.stderr

    finished = pecrs(*command, "--json")
    assert "1 of 2 epochs and 4 steps are done" in finished.stderr
    report = json.loads(finished.stdout)
    assert [row["epoch"] for row in report["history"]] == [1, 2]
    assert Path(report["best"], "pecrs.json").is_file()
    assert 0 < report["trained_percent"] < 20

    whole = pecrs(*training(files, tiny_backbone, tmp_path / "whole", *command[-4:]), "--json")
    assert json.loads(whole.stdout)["history"] == report["history"]


def test_train_leaves_what_later_commands_need(run, files):
    split = json.loads((run / "split.json").read_text())
    assert split["train"] == 7 and split["valid"] == 1
    [aside] = split["valid_ids"]
    assert aside in {d.id for d in read_jsonl(files / "train.jsonl")}
    assert (run / "catalogue.jsonl").is_file() and (run / "history.csv").is_file()
    config = json.loads((run / "best" / "pecrs.json").read_text())["config"]
    assert Path(config["backbone"]).is_absolute()
    assert config["negatives"] == config["retrieval_negatives"] == 5


def test_compat_sets_every_switch_and_set_has_the_last_word(files, tiny_backbone, tmp_path):
    own = ("--compat", "official", "--set", "gamma=0.7", "--epochs", "1")
    pecrs(*training(files, tiny_backbone, tmp_path / "run", *own))
    config = json.loads((tmp_path / "run" / "best" / "pecrs.json").read_text())["config"]
    assert {name: config[name] for name in COMPAT} == COMPAT | {"gamma": 0.7}
    assert pecrs("recommend", "--checkpoint", tmp_path / "run", stdin="User: scary?\n").stdout
    usage = " ".join(pecrs("train", "--help").stdout.replace("│", " ").split())
    assert all(f"{name}={value}" in usage for name, value in COMPAT.items())


def test_train_refuses_to_resume_what_is_not_the_same(run, files, tiny_backbone, tmp_path):
    before = (run / "split.json").read_bytes()
    line = complaint(*training(files, tiny_backbone, run, "--epochs", "3", "--seed", "1"))
    assert "epochs was 2, is 3" in line and "seed was 0, is 1" in line and "--no-resume" in line
    assert "cannot be made longer" in line
    shape = [*training(files, tiny_backbone, run, "--epochs", "2", "--batch-size", "4")]
    line = complaint(*shape)
    assert "batch_size was 3, is 4" in line and "longer" not in line
    assert (run / "split.json").read_bytes() == before
    movies = (files / "movies.csv").read_text().replace("Horror", "Noir")
    (tmp_path / "movies.csv").write_text(movies)
    other = training(files, tiny_backbone, run, "--epochs", "2", "--batch-size", "3")
    other[other.index("--catalogue") + 1] = tmp_path / "movies.csv"
    assert "other items than --catalogue" in complaint(*other)


def test_evaluate_checkpoint(run, files):
    result = pecrs(
        "evaluate", "--checkpoint", run, "--format", "jsonl", "--test", files / "test.jsonl",
        "--train", files / "train.jsonl", "--always-recommend", "--json",
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert report["n_dialogues"] == 3 and report["n_items"] == 24
    assert report["n_outside_catalogue"] == 0
    systems = [row["system"] for row in report["rows"]]
    assert len(systems) == 12 and systems[-2:] == ["PECRS", "PECRS"]
    for row in report["rows"]:
        assert row["n"] == report["n_points" if row["targets"] == "all" else "n_novel"]
        assert row["R@1"]["low"] <= row["R@1"]["value"] <= row["R@1"]["high"]
        assert row["R@50"]["value"] == 100  # of 24 items
        assert row["Unique"] >= 1
    assert report["text"]["perplexity"] > 1
    assert {"rouge1", "rouge2", "F-1", "Dist@2 per ngram"} <= set(report["text"])
    assert "F-1" in report["text_always_recommend"]

    plain = pecrs(
        "evaluate", "--checkpoint", run / "best", "--format", "jsonl", "--no-replies",
        "--test", files / "test.jsonl", "--candidates", "3",
    ).stdout  # fmt: skip
    assert "PECRS" in plain and "perplexity" in plain and "rouge1" not in plain


def test_two_checkpoints_are_compared_point_by_point(run, files, tmp_path):
    def evaluate(checkpoint, *more, test="test.jsonl"):
        return [
            "evaluate", "--checkpoint", checkpoint, *JSONL, "--test", files / test, "--no-replies",
            *more,
        ]  # fmt: skip

    kept = tmp_path / "kept.npz"
    told = pecrs(*evaluate(run, "--ranks", kept, "--candidates", "3", "--json"))
    assert "differences" not in json.loads(told.stdout)
    same = pecrs(*evaluate(run, "--candidates", "3", "--against", kept, "--json"))
    zero = json.loads(same.stdout)["differences"]
    assert [(d["targets"], d["k"]) for d in zero] == [
        (t, k) for t in ("all", "novel") for k in (1, 10, 50)
    ]
    assert all(d["difference"] == d["low"] == d["high"] == 0 for d in zero if d["k"] < 24)
    assert {(d["difference"], d["low"], d["p_value"]) for d in zero if d["k"] == 50} == {
        (0, None, None)  # of 24 items
    }

    ranked = Predictions.load(kept)
    worse = replace(ranked, rank=ranked.rank + 1)  # whoever was first is second
    worse.save(kept, read_catalogue(run / "catalogue.jsonl"))
    ahead = json.loads(
        pecrs(*evaluate(run, "--candidates", "3", "--against", kept, "--json")).stdout
    )
    first = ahead["differences"][0]
    assert first["difference"] == pytest.approx(100 * (ranked.rank == 1).mean()) and first["n"] > 3
    table = pecrs(*evaluate(run, "--candidates", "3", "--against", kept)).stdout
    line = next(part for part in table.splitlines() if "R@1 " in part and "p = " in part)
    assert line.split()[:4] == ["all", str(first["n"]), "R@1", f"{first['difference']:+.1f}"]

    assert table.splitlines()[-4].split()[-3:] == ["+0.0", "-", "-"]  # R@50
    assert "few items: a random order has 100 % of the catalogue's items" in table

    other = complaint(*evaluate(run, "--against", kept, test="train.jsonl"))
    assert str(kept) in other and "the same dialogues" in other
    worse.save(kept)  # as before files said which items
    assert "an older file" in complaint(*evaluate(run, "--against", kept))
    assert "no folder" in complaint(*evaluate(run, "--ranks", tmp_path / "none" / "kept.npz"))
    assert "not saved predictions" in complaint(*evaluate(run, "--against", files / "test.jsonl"))
    assert "--checkpoint" in complaint(
        "evaluate", *JSONL, "--baselines", "--train", files / "train.jsonl", "--test",
        files / "test.jsonl", "--against", kept,
    )  # fmt: skip


def test_recommend_from_stdin_and_file(run, files, catalogue):
    movie, other = catalogue[1], catalogue[2]
    text = f"seeker: I liked {movie.name}\n\nSystem: and what about this\nuser: {other.title}?"
    result = pecrs("recommend", "--checkpoint", run, "--top", "4", "--json", stdin=text)
    [found] = json.loads(result.stdout)["results"]
    assert set(found["mentioned"]) == {movie.id, other.id}
    places = found["recommendations"]
    assert [p["place"] for p in places] == [1, 2, 3, 4]
    assert [p["score"] for p in places] == sorted((p["score"] for p in places), reverse=True)
    assert all(1 <= p["retrieved"] <= 12 for p in places)  # of 12 candidates
    assert f"recognised: {movie.name}; {other.name}" in result.stderr

    several = pecrs(
        "recommend", "--checkpoint", run, "--no-repeats", "--json", files / "test.jsonl"
    )
    results = json.loads(several.stdout)["results"]
    assert [r["dialogue"] for r in results] == ["d0", "d1", "d2"]
    for r in results:
        assert not set(r["mentioned"]) & {p["id"] for p in r["recommendations"]}

    table = pecrs("recommend", "--checkpoint", run, "--top", "2", stdin=text)
    head, *ranked = table.stdout.splitlines()
    assert head.split(maxsplit=2) == ["title", "score", "before re-ranking"] and len(ranked) == 2
    assert "only differences of scores mean something" in table.stderr


def test_chat_through_a_pipe(run, catalogue, tmp_path):
    typed = [
        f"I loved {catalogue[5].name}", "", "/undo", "/undo", "/nonsense", "/help", "/save",
        "hello", "what else?", f"/save {tmp_path / 'talk.jsonl'}",
        f"/save {tmp_path / 'none' / 'talk.jsonl'}", "/restart", "/save x.jsonl", "/quit", "never",
    ]  # fmt: skip
    result = pecrs(
        "chat", "--checkpoint", run, "--top", "2", "--always-recommend", stdin="\n".join(typed)
    )
    said = result.stdout
    assert said.count("PECRS: ") == 3 and said.count("before re-ranking") == 4  # /help names it
    assert said.count("only differences of scores") == 2  # with the first list of each talk
    assert f"(recognised: {catalogue[5].name})" in said
    assert said.index("taken back") < said.index("nothing to take back") < said.index("/nonsense")
    assert "/restart" in said and "not saved: " in said and "nothing to save" in said
    [talk] = read_jsonl(tmp_path / "talk.jsonl")
    assert [u.role for u in talk.utterances] == ["seeker", "recommender"] * 2
    assert [u.text for u in talk.utterances[::2]] == ["hello", "what else?"]
    again = pecrs("chat", "--checkpoint", run, "--greedy", stdin="hello")  # and end of file
    assert again.stdout.count("PECRS: ") == 1


def test_chat_reacts_explains_and_streams(run, catalogue):
    typed = [
        "/why 1", "/before", f"I loved {catalogue[5].name} and {catalogue[6].title}x (1976)",
        "/film 1", "/why 2", "/before", "/seen 1", "/not 9", "/liked", "/liked two", "/not 2",
        "wörter " * 5000, "一部电影", "/quit",
    ]  # fmt: skip
    for more in ([], ["--beams", "2", "--repeats"]):
        said = pecrs(
            "chat", "--checkpoint", run, "--top", "3", *more, stdin="\n".join(typed)
        ).stdout
        assert said.count("PECRS: ") == 5 and said.count("nothing is listed yet") == 2
        assert said.count("wants the place of a film in the last list, from 1 to 3") == 3
        assert f"({catalogue[6].title}x (1976): did you mean {catalogue[6].name}" in said
        assert "directed by" in said and "plot" in said and "distance" in said
        assert said.count("(recognised: ") == 3 and said.count("only the beginning") == 1


def test_an_interrupted_reply_does_not_end_the_chat(run, tmp_path, monkeypatch):
    replies = iter([None, KeyboardInterrupt])
    respond = chat.respond

    def interrupted(*args, **kwargs):
        if error := next(replies, None):
            raise error
        return respond(*args, **kwargs)

    monkeypatch.setattr(chat, "respond", interrupted)
    kept = tmp_path / "talk.jsonl"
    said = pecrs("chat", "--checkpoint", run, stdin=f"hello\nstop\nmore\n/save {kept}").stdout
    assert said.count("PECRS: ") == 3 and said.count("(stopped") == 1
    [talk] = read_jsonl(kept)
    assert [u.text for u in talk.utterances[::2]] == ["hello", "more"]


def test_chat_needs_no_checkpoint_for_the_bundled_model():
    said = pecrs("chat", "--top", "2", "--greedy", stdin="toy story with robots\n/why 1\nmore")
    assert said.stdout.count("PECRS: ") == 2
    assert said.stdout.count("no film recognised; ") == 1 and '"Up", Home Alone)' in said.stdout
    assert "(toy story: did you mean Toy Story (1995)" in said.stdout
    part = re.search(r"^  robots +(\d+)  (#+)$", said.stdout, re.M)
    assert part and abs(int(part[1]) / 4 - len(part[2])) <= 1
    assert "speaks for" in said.stdout and "(100 would be" in said.stdout


def test_the_page_is_a_notebook_that_shows_the_chat(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.parent)
    asked = {"checkpoint": Path(run.name), "catalogue": None, "backbone": None, "cache": None,
             "top": 3, "greedy": True}  # fmt: skip
    notebook = nbformat.from_dict(notebook_of(asked))
    nbformat.validate(notebook)
    monkeypatch.chdir(tmp_path)  # where the page runs is another place
    lines = notebook.cells[0].source.splitlines()
    scope: dict = {}
    exec("\n".join(lines[:-1]), scope)
    widget = eval(lines[-1], scope)
    widget.line.value = "hello"
    widget.enter.click()
    assert len(widget.chat.answers[0].reply.ranked) == 3
    broken = chat_page(**asked | {"checkpoint": str(tmp_path / "none")})
    assert "no such folder" in broken.value


def test_the_page_complains_before_it_opens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is taken" in complaint("chat", "--page", "--port", port)
    assert "no such folder" in complaint(
        "chat", "--page", "--port", port, "--checkpoint", "nowhere"
    )


def test_a_moved_backbone_is_pointed_at(files, tiny_backbone, run, tmp_path):
    moved = tmp_path / "run"
    record = json.loads((run / "best" / "pecrs.json").read_text())
    record["config"]["backbone"] = str(tmp_path / "gone")
    (moved / "best").mkdir(parents=True)
    for source in (run / "best").rglob("*"):
        place = moved / "best" / source.relative_to(run / "best")
        place.mkdir() if source.is_dir() else place.write_bytes(source.read_bytes())
    (moved / "best" / "pecrs.json").write_text(json.dumps(record))
    (moved / "best" / "SHA256SUMS").unlink()
    hello = {"stdin": "seeker: hello"}
    assert "--catalogue" in complaint("recommend", "--checkpoint", moved, **hello)
    items = ["--catalogue", files / "movies.csv"]
    assert "--backbone" in complaint("recommend", "--checkpoint", moved, *items, **hello)
    there = ["--backbone", tiny_backbone]
    pecrs("recommend", "--checkpoint", moved, *items, *there, **hello)
    (moved / "best" / "heads.safetensors").write_bytes(b"half")
    line = complaint("recommend", "--checkpoint", moved, *items, *there, **hello)
    assert "cannot be loaded" in line


# -- data -----------------------------------------------------------------------------------------


def test_baselines_on_inspired(shared_data, tmp_path):
    folder = shared_data / "inspired" / "pecrs"
    command = [
        "evaluate", "--baselines", "--format", "pecrs", "--json",
        "--train", folder / "train_data_processed", "--test", folder / "test_data_processed",
    ]  # fmt: skip
    result = pecrs(*command)
    report = json.loads(result.stdout)
    assert (report["n_dialogues"], report["n_points"]) == (99, 280)
    rows = {(row["system"], row["targets"]): row for row in report["rows"]}
    assert len(rows) == 10
    known = {"Popularity": (3.6, 15.4, 33.9), "Mentioned, then popular": (12.5, 27.5, 42.5)}
    for system, recalls in known.items():
        row = rows[system, "all"]
        assert tuple(round(row[f"R@{k}"]["value"], 1) for k in (1, 10, 50)) == recalls
    assert "no --catalogue" in result.stderr

    write_catalogue(Catalogue((Movie("1", "Up", 2009),)), tmp_path / "one.csv")
    alone = pecrs(*command, "--catalogue", tmp_path / "one.csv")
    assert "are no ids in" in alone.stderr
    assert json.loads(alone.stdout)["n_outside_catalogue"] >= 279


def test_describe_inspired(shared_data):
    folder = shared_data / "inspired" / "pecrs"
    paths = [folder / f"{split}_data_processed" for split in ("train", "dev", "test")]
    counts = json.loads(pecrs("data", "describe", "--format", "pecrs", *paths, "--json").stdout)
    assert (counts["dialogues"], counts["utterances"]) == (999, 21_124)
    assert (counts["points_without"], counts["points_with"]) == (7_243, 2_879)


def test_describe_split_convert(files, tmp_path, dialogues):
    source = files / "train.jsonl"
    table = pecrs("data", "describe", "--format", "jsonl", source, files / "test.jsonl", status=0)
    assert table.stdout.split()[:2] == ["Dialogues", "11"]
    assert "please check" not in table.stderr
    write_jsonl([Dialogue("none", ())], tmp_path / "odd.jsonl")
    odd = pecrs("data", "describe", "--format", "jsonl", source, tmp_path / "odd.jsonl", "--json")
    [doubt] = json.loads(odd.stdout)["doubts"]
    assert (doubt["n"], doubt["places"]) == (1, ["dialogue 'none'"])
    assert "please check: dialogues without an utterance: 1 (dialogue 'none')" in odd.stderr

    outs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    pecrs(
        "data", "split", "--format", "jsonl", source, "--share", "0.25",
        "--out-train", outs[0], "--out-valid", outs[1],
    )  # fmt: skip
    parts = [read_jsonl(out) for out in outs]
    assert [len(part) for part in parts] == [6, 2]
    assert sorted(d.id for part in parts for d in part) == sorted(d.id for d in dialogues)
    assert json.loads((tmp_path / "b.jsonl.split.json").read_text())["valid"] == 2

    pecrs(
        "data", "convert", "--format", "jsonl", source, "--out", tmp_path / "c.jsonl.gz",
        "--catalogue", files / "movies.csv", "--out-catalogue", tmp_path / "c.jsonl",
    )  # fmt: skip
    assert read_jsonl(tmp_path / "c.jsonl.gz") == dialogues
    assert "outside" in pecrs(
        "data", "describe", "--format", "jsonl", tmp_path / "c.jsonl.gz", "--json",
        "--catalogue", tmp_path / "c.jsonl",
    ).stdout  # fmt: skip


def test_ids_of_another_catalogue_are_matched_by_title(tmp_path):
    """One id is in both, for different films: titles decide, and what is lost is said."""
    text = "I saw Jumanji (1995) and Home Alone (1990) and Obscure Film (1950)"
    spans = {name: (text.index(name), text.index(")", text.index(name)) + 1) for name in (
        "Jumanji (1995)", "Home Alone (1990)", "Obscure Film (1950)",
    )}  # fmt: skip
    mentions = tuple(Mention(str(7 + k), *span) for k, span in enumerate(spans.values()))
    write_jsonl([Dialogue("d", (Utterance("seeker", text, mentions),))], tmp_path / "d.jsonl")
    movies = Catalogue((Movie("7", "Home Alone", 1990), Movie("1", "Jumanji", 1995)))
    write_catalogue(movies, tmp_path / "m.csv")
    result = pecrs(
        "data", "convert", "--format", "jsonl", tmp_path / "d.jsonl",
        "--out", tmp_path / "out.jsonl", "--catalogue", tmp_path / "m.csv",
    )  # fmt: skip
    [dialogue] = read_jsonl(tmp_path / "out.jsonl")
    assert dialogue.utterances[0].items == ("1", "7", "9")
    assert "66.7% of 3 mentions matched" in result.stderr and "Obscure Film" in result.stderr


def test_ids_of_the_same_catalogue_are_kept(tmp_path):
    """Two films of one title: the id says which, although another id is unknown."""
    movies = Catalogue((Movie("a", "Psycho"), Movie("b", "Psycho"), Movie("c", "Home Alone")))
    write_catalogue(movies, tmp_path / "m.csv")
    text = "Psycho, Home Alone, Nothing Known"
    mentions = (Mention("b", 0, 6), Mention("c", 8, 18), Mention("x", 20, 33))
    write_jsonl([Dialogue("d", (Utterance("seeker", text, mentions),))], tmp_path / "d.jsonl")
    pecrs(
        "data", "convert", "--format", "jsonl", tmp_path / "d.jsonl",
        "--out", tmp_path / "out.jsonl", "--catalogue", tmp_path / "m.csv",
    )  # fmt: skip
    [dialogue] = read_jsonl(tmp_path / "out.jsonl")
    assert dialogue.utterances[0].items == ("b", "c", "x")


def test_download_and_verify(shared_data, tmp_path, monkeypatch):
    cache = ["--cache", tmp_path]
    missing = pecrs("data", "verify", "inspired/dev.tsv", *cache, status=1)
    assert "fetch https://" in missing.stdout and str(tmp_path) in missing.stdout
    monkeypatch.setenv("PECRS_MIRRORS", "file:///no/such/folder/{name}")
    line = complaint("data", "download", "inspired/dev.tsv", *cache)
    assert "could not download inspired/dev.tsv" in line and "pecrs data verify" in line
    monkeypatch.setenv("PECRS_MIRRORS", f"{(shared_data / 'inspired').as_uri()}/{{name}}")
    got = pecrs("data", "download", "inspired/dev.tsv", *cache, "--json")
    assert json.loads(got.stdout)["files"] == [str(tmp_path / "inspired" / "dev.tsv")]
    states = json.loads(pecrs("data", "verify", "inspired/dev.tsv", *cache, "--json").stdout)
    assert [file["state"] for file in states["files"]] == ["ok"]


def test_sources_names_every_dataset():
    rows = json.loads(pecrs("data", "sources", "--json").stdout)
    assert {"redial", "inspired", "inspired-pecrs"} <= {row["dataset"] for row in rows}
    assert "CC BY 4.0" in pecrs("data", "sources").stdout


# -- errors ---------------------------------------------------------------------------------------

JSONL = ["--format", "jsonl"]
WRONG = {
    "no such command": (["fly"], "fly"),
    "missing option": (["train"], "--train"),
    "unknown format": (["data", "describe", "--format", "xml", "f"], "'redial', 'inspired'"),
    "missing file": (["data", "describe", *JSONL, "none.jsonl"], "none.jsonl: no such file"),
    "wrong format": (["data", "describe", "--format", "redial", "{train}"], "format 'jsonl'"),
    "not a pecrs file": (["data", "describe", "--format", "pecrs", "{train}"], "torch.save"),
    "unknown data set": (["data", "download", "netflix"], "known: redial"),
    "unknown data set to verify": (["data", "verify", "netflix"], "known: redial"),
    "both parts in one file": (
        ["data", "split", *JSONL, "{train}", "--out-train", "x", "--out-valid", "x"], "same file",
    ),
    "share out of range": (
        ["data", "split", *JSONL, "{train}", "--out-train", "x", "--out-valid", "y",
         "--share", "2"], "between 0 and 1",
    ),
    "nothing to evaluate": (["evaluate", *JSONL, "--test", "{train}"], "--baselines"),
    "baselines without train": (
        ["evaluate", "--baselines", *JSONL, "--test", "{train}"], "--train",
    ),
    "catalogue missing": (
        ["evaluate", "--baselines", *JSONL, "--test", "{train}", "--train", "{train}",
         "--catalogue", "none.csv"], "none.csv",
    ),
    "not a checkpoint": (
        ["evaluate", "--checkpoint", "{folder}", *JSONL, "--test", "{train}"],
        "no PECRS checkpoint",
    ),
    "no such checkpoint": (["chat", "--checkpoint", "nowhere"], "nowhere: no such folder"),
    "dialogue file missing": (["recommend", "none.txt"], "none.txt"),
    "unknown field": (["{train_command}", "--set", "negative=3"], "did you mean negatives"),
    "unknown field, nothing close": (["{train_command}", "--set", "qqq=3"], "there are: backbone"),
    "no value": (["{train_command}", "--set", "epochs"], "field=value"),
    "wrong type": (["{train_command}", "--set", "epochs=few"], "a whole number, got 'few'"),
    "wrong value": (["{train_command}", "--set", "temperature=0"], "temperature"),
    "all of what": (["{train_command}", "--set", "patience=all"], "number or none, got 'all'"),
    "no number": (["{train_command}", "--set", "alpha=nan"], "alpha must be a finite number"),
    "wrong switch": (["{train_command}", "--set", "dot_product=yes"], "must be true or false"),
    "wrong compat": (["{train_command}", "--compat", "paper"], "'official'"),
    "wrong dtype": (["{train_command}", "--dtype", "int8"], "bfloat16"),
    "wrong negatives": (["{train_command}", "--negatives", "many"], "'all'"),
    "negatives larger than catalogue": (["{train_command}", "--negatives", "24"], "24 items"),
    "train file missing": (["{train_command}", "--train", "none.jsonl"], "none.jsonl"),
    "run is a file": (["{train_command}", "--out", "{train}"], "train.jsonl"),
    "window beyond the backbone": (
        ["{train_command}", "--set", "window=4000"], "window=1024 context_tokens=384 utter",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_errors_are_one_line(case, files, tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, expected = WRONG[case]
    whole = []
    for argument in arguments:
        if argument == "{train_command}":
            whole += training(files, tiny_backbone, tmp_path / "out")
        else:
            whole.append(argument.format(train=files / "train.jsonl", folder=files))
    result = pecrs(*whole, status=2)
    errors = [line for line in result.stderr.splitlines() if line.startswith("pecrs: ")]
    assert len(errors) == 1 and expected in errors[0], result.stderr
    assert not (tmp_path / "out").exists()


FIRST = {  # command: what is wrong with it
    "chat": (["chat", "--checkpoint", "{folder}"], "no PECRS checkpoint"),
    "chat, catalogue": (["chat", "--catalogue", "none.csv"], "none.csv: no such file"),
    "serve": (["serve", "--checkpoint", "{folder}"], "no PECRS checkpoint"),
    "recommend, format": (["recommend", "--format", "jsonl", "{catalogue}"], "csv:1: not JSON"),
    "evaluate": (["evaluate", "--checkpoint", "{run}", *JSONL, "--test", "none"], "none: no such"),
    "evaluate, format": (
        ["evaluate", "--checkpoint", "{run}", "--format", "redial", "--test", "{train}"],
        "looks like format 'jsonl'",
    ),
    "evaluate, train": (
        ["evaluate", "--checkpoint", "{run}", *JSONL, "--test", "{train}", "--train", "none"],
        "none: no such file",
    ),
    "rate": (
        ["rate", "reply", "--checkpoint", "{run}", *JSONL, "--test", "none", "--system", "a",
         "--out", "x"], "none: no such file",
    ),
    "train": (["train", *JSONL, "--train", "{train}", "--out", "x", "--valid", "none"], "none: no"),
    "train, catalogue": (
        ["train", *JSONL, "--train", "{train}", "--out", "x", "--catalogue", "{train}"], "train.jso"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FIRST)
def test_what_is_cheap_to_check_is_refused_first(case, files, run, monkeypatch):
    """No language model is loaded: whoever asks for one hears of it here."""
    from pecrs_lib.backbone import Backbone

    def loaded(*_, **__):
        raise AssertionError("the language model is loaded before the input is checked")

    monkeypatch.setattr(Backbone, "load", loaded)
    arguments, expected = FIRST[case]
    places = {"folder": files, "run": run, "train": files / "train.jsonl"}
    line = complaint(*(a.format(**places, catalogue=files / "movies.csv") for a in arguments))
    assert expected in line


def test_another_run_is_refused_before_the_model_is_loaded(run, files, tiny_backbone, monkeypatch):
    from pecrs_lib.model import PECRS

    monkeypatch.setattr(PECRS, "from_backbone", None)
    assert "negatives" in complaint(*training(files, tiny_backbone, run, "--negatives", "4"))


def test_bad_dialogues_on_stdin(run, tmp_path):
    def line(text, *more):
        return complaint("recommend", "--checkpoint", run, *more, stdin=text)

    assert "<stdin>:2: a line begins with 'seeker:'" in line("seeker: hi\nhello")
    assert "<stdin>: no line" in line("\n")
    assert "<stdin>:1: field 'utterances': missing" in line('{"id": "d"}')
    assert "<stdin>" in line("seeker: hi", "--format", "jsonl")
    (tmp_path / "t.csv").write_text("dialogue,role,text,items\nd1,seeker,hi,\n")
    assert "data convert --format csv" in line(None, tmp_path / "t.csv")


def test_a_fault_of_the_program_is_one_line_and_debug_shows_it(files, monkeypatch):
    import pecrs_lib.data

    def broken(*_):
        raise KeyError("oops")

    monkeypatch.setattr(pecrs_lib.data, "describe", broken)
    command = ["data", "describe", *JSONL, files / "train.jsonl"]
    short = pecrs(*command, status=1)
    assert short.stderr.count("\n") == 1 and "KeyError: 'oops'" in short.stderr
    long = pecrs("--debug", *command, status=1)
    assert "Traceback" in long.stderr and "in broken" in long.stderr


def test_ctrl_c_while_loading_is_one_line(files, monkeypatch):
    import pecrs_lib.data

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pecrs_lib.data, "describe", interrupted)
    stopped = pecrs("data", "describe", *JSONL, files / "train.jsonl", status=130)
    assert (stopped.stdout, stopped.stderr) == ("", "pecrs: interrupted\n")


def test_names_spelled_out_agree_with_the_library():
    """Repeated in the command line so that its help does not import torch."""
    from pecrs_lib.backbone import BackboneError
    from pecrs_lib.checkpoint import CheckpointError
    from pecrs_lib.data.download import DownloadError

    assert {f.value for f in Format} == set(FORMATS)
    assert {p.value for p in Preset} == set(PRESETS)
    ours = (DataError, DownloadError, BackboneError, CheckpointError)
    assert {error.__name__ for error in ours} <= set(EXPECTED)


# -- parts ----------------------------------------------------------------------------------------


def test_settings_have_the_last_word():
    config = make_config("tiny", {"epochs": 2}, ["epochs=5", "negatives=all", "patience=none"])
    assert (config.epochs, config.negatives, config.patience) == (5, None, None)
    config = make_config("paper-small", {}, ["share_over_batch=False", "clip=0.5"])
    assert config.share_over_batch is False and config.clip == 0.5
    assert "; tiny differs in: backbone=reel-small, " in describe_fields()


def test_negatives_of_retrieval_count_where_they_are_drawn_apart():
    own = ["retrieval_negatives=8"]
    with pytest.raises(ValueError, match="needs --set share_over_tasks=False"):
        make_config("paper-small", {}, own)
    apart = make_config("paper-small", {}, [*own, "share_over_tasks=false", "negatives=4"])
    assert (apart.negatives, apart.retrieval_negatives) == (4, 8)
    with pytest.raises(ValueError, match=r"retrieval_negatives=8, .* only 5 items"):
        refuse_negatives(apart, 5)
    refuse_negatives(make_config("paper-small", {}, ["negatives=4"]), 5)  # 150 are not drawn


MOVIES = Catalogue(
    (
        Movie("up", "Up", 2009),
        Movie("it", "It", 2017),
        Movie("matrix", "The Matrix", 1999),
        Movie("inception", "Inception", 2010),
        Movie("alone", "Home Alone", 1990),
        Movie("alone2", "Home Alone 2", 1992),
        Movie("love", "I Love You", 2000),
        Movie("psycho60", "Psycho", 1960),
        Movie("psycho98", "Psycho", 1998),
    )
)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("I loved Up (2009) and the matrix (1999)", ["up", "matrix"]),
        ('"up" was great', ["up"]),
        ("It was fun. Up we go, it is good", []),
        ("I loved Inception", ["inception"]),
        ("Inception is a strange word", []),
        ("Yes, Home Alone 2!", ["alone2"]),
        ("home alone on a Sunday", []),
        ("i love you", []),
        ("The Matrix, then Inception", ["matrix", "inception"]),
        ("we saw Psycho", []),  # which?
        ("we saw Psycho (1998)", ["psycho98"]),
        ("Home Alone (1960)", ["alone"]),  # an honest mistake: the title stands without its year
    ],
)
def test_titles_are_recognised_where_people_mark_them(text, items):
    found = find_items(text, MOVIES)
    assert [mention.item for mention in found] == items
    for mention in found:
        words = text[mention.start : mention.end].lower()
        assert MOVIES[MOVIES.row[mention.item]].title.lower().removeprefix("the ") in words


def test_transcript_merges_neighbouring_lines_and_knows_both_names():
    dialogue = read_transcript("User: hi\nseeker: I saw Home Alone\nSYSTEM: ok", MOVIES, "x")
    assert [u.role for u in dialogue.utterances] == ["seeker", "recommender"]
    first = dialogue.utterances[0]
    assert first.text == "hi I saw Home Alone" and first.items == ("alone",)
    [mention] = first.mentions
    assert first.text[mention.start : mention.end] == "Home Alone"


# -- as a program ---------------------------------------------------------------------------------


def test_help_answers_at_once_and_imports_no_torch():
    code = (
        "import sys; from pecrs_lib.cli import main; sys.argv = ['pecrs', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert time.perf_counter() - start < 5  # about 0.15 s; a busy machine is no failure
    for command in (
        "train",
        "evaluate",
        "recommend",
        "chat",
        "serve",
        "reproduce",
        "data download",
        "data describe",
    ):
        assert "Example" in pecrs(*command.split(), "--help").stdout, command


def test_the_module_runs_as_a_program(files):
    command = [sys.executable, "-m", "pecrs_lib", "data", "describe", *JSONL]
    done = subprocess.run([*command, "none.jsonl"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pecrs: none.jsonl: no such file\n"
    done = subprocess.run(
        [*command, str(files / "train.jsonl"), "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["dialogues"] == 8 and done.stderr == ""


# -- pretrain -------------------------------------------------------------------------------------


def test_pretrain_makes_a_backbone_and_refuses_what_it_measures(files, tmp_path):
    (tmp_path / "book.txt").write_text("A line.\n\nAnother, about a robot.\n")
    small = [
        "--layers", 1, "--dim", 16, "--heads", 2, "--positions", 16, "--steps", 2,
        "--vocabulary", 300, "--format", "jsonl", "--out", tmp_path / "lm",
    ]  # fmt: skip
    held = ["--held-out", files / "test.jsonl"]
    given = ["--dialogues", files / "train.jsonl", "--text", tmp_path / "book.txt"]
    pecrs("pretrain", *given, *held, *small)
    record = json.loads((tmp_path / "lm" / "pretrain.json").read_text())
    assert record["sources"]["book.txt"] == 2 and record["sources"]["dialogues"] > 2
    assert record["curve"][-1]["held_out_perplexity"]["test.jsonl"] > 1
    same = ["--held-out", files / "train.jsonl"]
    assert "train.jsonl" in complaint("pretrain", *given, *same, *small)
    kept = ["--keep-out", files / "train.jsonl"]
    assert "train.jsonl" in complaint("pretrain", *given, *held, *kept, *small)
    assert "nothing to train on" in complaint("pretrain", *held, *small)


def test_train_without_a_catalogue_knows_items_by_their_ids(files, tiny_backbone, tmp_path):
    command = [
        "train", "--format", "jsonl", "--train", files / "train.jsonl", "--backbone",
        tiny_backbone, "--out", tmp_path / "run", *SMALL, "--epochs", "1",
    ]  # fmt: skip
    assert "are known by their ids alone" in pecrs(*command).stderr
    assert (tmp_path / "run" / "best" / "pecrs.json").is_file()


def test_one_unknown_id_leaves_the_others_alone(files, catalogue, tmp_path):
    """Mentions without words have no title, so nothing speaks against their ids."""
    said = [Utterance("recommender", "this one", (Mention(m.id),)) for m in catalogue]
    said.append(Utterance("recommender", "that one", (Mention("b999"),)))
    write_jsonl([Dialogue("d", tuple(said))], tmp_path / "bare.jsonl")
    told = pecrs(
        "data", "describe", "--format", "jsonl", tmp_path / "bare.jsonl", "--json",
        "--catalogue", files / "movies.csv",
    )  # fmt: skip
    assert "1 mentioned item ('b999'; 1 mention) is no id in the catalogue, and no" in told.stderr
    assert json.loads(told.stdout)["items"] >= len(catalogue)


def test_ids_with_the_wrong_separator_are_told_apart(files, catalogue, tmp_path):
    ids = ",".join(movie.id for movie in catalogue.movies[:2])
    (tmp_path / "d.csv").write_text(f'dialogue,role,text,items\nd,system,see these,"{ids}"\n')
    told = pecrs(
        "data", "describe", "--format", "csv", tmp_path / "d.csv", "--catalogue",
        files / "movies.csv",
    )  # fmt: skip
    assert f"{ids!r} looks like several ids; separate ids by '|'" in told.stderr


def test_recommend_without_a_checkpoint_asks_the_one_that_comes_with_the_package():
    told = pecrs("recommend", "--top", "2", "--json", stdin="seeker: I loved Home Alone")
    assert len(json.loads(told.stdout)["results"][0]["recommendations"]) == 2
