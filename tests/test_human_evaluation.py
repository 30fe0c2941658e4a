"""A human evaluation with simulated raters whose preference is known: from files to Table 4."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pecrs_lib.data import DataError, Utterance, write_catalogue, write_jsonl
from pecrs_lib.rating.agreement import cohen_kappa, krippendorff_alpha, sign_test
from pecrs_lib.rating.human_evaluation import agreement, pooled, summary, systems_of
from pecrs_lib.rating.judgements import CRITERIA, Judgement, Sheet, read_judgements
from pecrs_lib.rating.replies import Context, fingerprint, pair, read_replies, write_replies
from tests.test_cli import complaint, pecrs
from tests.test_one_pass import build
from tests.toys import toy_dialogues

OPENS = {"Alpha": "Well,", "Omega": "Sure,"}  # how the simulated raters know the systems
NAN = np.nan


def replies(system, dialogues=10, turns=(1, 3)):
    """Replies of one system; the history is made of what a seeker said."""
    return [
        Context(
            f"d{d}", t,
            tuple(Utterance("seeker", f"line {k} of dialogue {d}") for k in range(t)),
            {system: f"{OPENS[system]} see film {d} at turn {t}"},
        )
        for d in range(dialogues)
        for t in turns
    ]  # fmt: skip


def made(n=20, seed=0):
    return pair(replies("Alpha"), replies("Omega"), n, seed)


def rater(share, seed):
    """Prefers Alpha's fluency in that share of the contexts, else Omega's; relevancy at random."""
    rng = np.random.default_rng(seed)

    def choose(question):
        if question.criterion == "relevancy":
            return rng.choice(["left", "right", "tie"])
        alpha = question.left.startswith(OPENS["Alpha"])
        return "left" if alpha == (rng.random() < share) else "right"

    return choose


def judged(study, name, choose, path):
    sheet = Sheet(study, name, path)
    while question := sheet.question:
        sheet.answer(choose(question))
    return sheet.judgements


def keys(study, name, choose, path):
    """What a rater would type."""
    return [judgement.choice[0] for judgement in judged(study, name, choose, path)]


def row_of(table, criterion, who="all"):
    [row] = table[(table.criterion == criterion) & (table.rater == who)].to_dict("records")
    return row


# -- the whole way --------------------------------------------------------------------------------


def test_from_a_checkpoint_to_a_report(tiny_backbone, catalogue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build(tiny_backbone, catalogue)[0].save_pretrained("run")
    write_catalogue(catalogue, "run/catalogue.jsonl")
    dialogues = toy_dialogues(catalogue, 3, seed=3)
    write_jsonl(dialogues, "test.jsonl")
    command = ["rate", "reply", "--checkpoint", "run", "--format", "jsonl", "--test", "test.jsonl"]
    pecrs(*command, "--system", "Alpha", "--decoding", "greedy", "--out", "a.jsonl")
    pecrs(*command, "--system", "Omega", "--always-recommend", "--out", "b.jsonl.gz")
    turns = {
        (d.id, t) for d in dialogues for t, u in enumerate(d.utterances) if u.role == "recommender"
    }
    said = read_replies("a.jsonl")
    assert {context.key for context in said} == turns
    for context in said:
        [dialogue] = [d for d in dialogues if d.id == context.dialogue]
        before = dialogue.utterances[: context.turn]
        assert [u.text for u in context.history] == [u.text for u in before]
        assert context.replies["Alpha"].strip()

    n = len(turns)
    pecrs("rate", "pair", "a.jsonl", "b.jsonl.gz", "--n", n, "--out", "study.jsonl")
    for name in ("ann", "bob"):
        ask = ["rate", "ask", "study.jsonl", "--rater", name, "--out", f"{name}.csv"]
        done = pecrs(*ask, stdin="l\nt\n" * n)
        assert "Alpha" not in done.output and f"{n} of {n}" in done.stdout
    report = json.loads(pecrs("rate", "report", "ann.csv", "bob.csv", "--json").stdout)
    assert report["systems"] == ["Alpha", "Omega"] and len(report["rows"]) == 6
    assert [row["tie"] for row in report["rows"]] == [0] * 3 + [100] * 3


def test_the_report_finds_the_preference_that_raters_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = pair(replies("Alpha", 60), replies("Omega", 60), 100)
    write_replies(study, "study.jsonl")
    names = ["ann", "bob", "eve"]
    for k, name in enumerate(names):
        typed = keys(study, name, rater(0.8, seed=k), tmp_path / "planned.csv")
        ask = ["rate", "ask", "study.jsonl", "--rater", name, "--out", f"{name}.csv"]
        pecrs(*ask, stdin="\n".join(typed))
        (tmp_path / "planned.csv").rename(f"{name}.planned")
        assert (tmp_path / f"{name}.csv").read_bytes() == (
            tmp_path / f"{name}.planned"
        ).read_bytes()
    files = [f"{name}.csv" for name in names]
    result = pecrs("rate", "report", *files, "--json", "--out", "table4.csv")
    rows = pd.DataFrame(json.loads(result.stdout)["rows"])
    fluency, relevancy = row_of(rows, "fluency"), row_of(rows, "relevancy")
    assert fluency["n"] == relevancy["n"] == 300
    assert 0.4 < fluency["low"] < 0.6 < fluency["high"] < 0.8
    assert fluency["first"] - fluency["second"] == pytest.approx(100 * fluency["preference"])
    assert fluency["tie"] == 0 and fluency["p_value"] < 1e-6
    assert relevancy["low"] < 0 < relevancy["high"] and relevancy["p_value"] > 0.05
    assert all(40 < row["left"] < 60 for row in (fluency, relevancy))

    written = pd.read_csv("table4.csv")
    assert set(written.system) == {"Alpha"} and set(written.other) == {"Omega"}
    assert row_of(written, "fluency")["preference"] == fluency["preference"]
    table = pecrs("rate", "report", *files).stdout
    assert "Krippendorff's alpha" in table and "Alpha" in table.splitlines()[0]
    assert table.count("ann, bob") == len(CRITERIA)


def test_intervals_hold_the_true_preference_as_often_as_they_say():
    """100 studies of 30 dialogues with two contexts; raters' luck is the dialogue's, in part."""
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rows = []
        for d in range(30):
            share = rng.choice([0.4, 1.0])  # Alpha is better in some dialogues: 0.7 on average
            rows += [
                judgement(f"d{d}", t, "left" if rng.random() < share else "right", name)
                for t in (1, 3)
                for name in ("ann", "bob")
            ]
        row = row_of(summary(rows, samples=400), "fluency")
        held += row["low"] <= 2 * 0.7 - 1 <= row["high"]
    assert 88 <= held <= 99


def judgement(dialogue, turn, choice, name="ann", criterion="fluency", study="s"):
    return Judgement(study, name, dialogue, turn, criterion, "Alpha", "Omega", choice)


# -- blind, and balanced --------------------------------------------------------------------------


def test_what_is_shown_never_names_a_system_and_the_file_knows_the_sides(tmp_path):
    study = made()
    write_replies(study, tmp_path / "study.jsonl")
    out = tmp_path / "ann.csv"
    ask = ["rate", "ask", tmp_path / "study.jsonl", "--rater", "ann", "--out", out]
    shown = pecrs(*ask, stdin="l\nr\n" * 20)
    assert not re.search("alpha|omega", shown.output + shown.stderr, re.IGNORECASE)
    seen = re.findall(r"left:  (\S+) .*\nright: (\S+) ", shown.stdout)
    said = read_judgements(out)[0][:: len(CRITERIA)]
    assert seen == [(OPENS[j.left], OPENS[j.right]) for j in said]
    for j in said:
        assert f"line {j.turn - 1} of dialogue {j.dialogue[1:]}" in shown.stdout
    assert [k for k in range(1, 21) if f"\n{k} of 20\n" in shown.stdout] == list(range(1, 21))


def test_who_always_says_left_prefers_neither(tmp_path):
    rows = [
        judged(made(), name, lambda _: "left", tmp_path / f"{name}.csv") for name in ("a", "b", "c")
    ]
    table = summary(pooled(rows))
    assert (table.preference == 0).all() and (table.left == 100).all()
    odd = judged(made(n=19), "a", lambda _: "left", tmp_path / "odd.csv")
    assert summary(odd).preference.abs().tolist() == pytest.approx([1 / 19] * 4)


def test_every_rater_has_an_order_and_sides_of_their_own(tmp_path):
    study = made()
    sheets = {
        name: judged(study, name, lambda _: "tie", tmp_path / f"{name}.csv")
        for name in ("ann", "bob", "eve")
    }
    orders = {tuple((j.dialogue, j.turn) for j in rows) for rows in sheets.values()}
    sides = [{(j.dialogue, j.turn): j.left for j in rows} for rows in sheets.values()]
    assert len(orders) == 3 and len({tuple(sorted(s.items())) for s in sides}) == 3
    for rows in sheets.values():  # neither side follows from the one before it
        left = [j.left for j in rows[:: len(CRITERIA)]]
        assert len(set(itertools.pairwise(left))) == 4
    again = judged(study[::-1], "ann", lambda _: "tie", tmp_path / "again.csv")
    assert again == sheets["ann"]  # whatever the order of the study's lines


# -- interrupted ----------------------------------------------------------------------------------


def test_a_rater_interrupted_anywhere_ends_as_one_who_was_not(tmp_path):
    study = made(n=6)
    write_replies(study, tmp_path / "study.jsonl")
    typed = keys(study, "ann", rater(0.7, seed=5), tmp_path / "whole.csv")
    whole = (tmp_path / "whole.csv").read_bytes()
    for stop in range(len(typed) + 1):
        out = tmp_path / f"{stop}.csv"
        ask = ["rate", "ask", tmp_path / "study.jsonl", "--rater", "ann", "--out", out]
        end = ["q"] * (stop % 2)  # else the end of the input, as of a closed terminal
        first = pecrs(*ask, stdin="\n".join([*typed[:stop], *end]))
        assert ("complete" in first.stderr) == (stop == len(typed))
        if stop < len(typed):
            assert f"stopped at {1 + stop // 2} of 6" in first.stderr
            pecrs(*ask, stdin="\n".join(typed[stop:]))
        assert out.read_bytes() == whole


def test_ctrl_c_keeps_the_answers(tmp_path, monkeypatch):
    def typed(_):
        if len(said) == 3:
            raise KeyboardInterrupt
        said.append("t")
        return "t"

    said = []
    write_replies(made(), tmp_path / "study.jsonl")
    monkeypatch.setattr("builtins.input", typed)
    out = tmp_path / "ann.csv"
    ask = ["rate", "ask", tmp_path / "study.jsonl", "--rater", "ann", "--out", out]
    assert pecrs(*ask, status=130).stderr == "pecrs: interrupted\n"
    assert len(read_judgements(out)[0]) == 3


def test_a_file_torn_at_any_byte_goes_on(tmp_path):
    study, path = made(n=3), tmp_path / "ann.csv"
    choose = rater(0.7, seed=1)
    plan = [j.choice for j in judged(study, "ann", choose, path)]
    whole = path.read_bytes()
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        sheet = Sheet(study, "ann", path)
        assert len(sheet.judgements) == max(0, whole[:size].count(b"\n") - 1)
        assert (sheet.dropped == 0) == (whole[size - 1 : size] == b"\n")
        for choice in plan[len(sheet.judgements) :]:
            sheet.answer(choice)
        assert path.read_bytes() == whole


def test_a_torn_line_is_said(tmp_path):
    study, path = made(n=3), tmp_path / "ann.csv"
    write_replies(study, tmp_path / "study.jsonl")
    rows = judged(study, "ann", lambda _: "tie", path)
    path.write_bytes(path.read_bytes()[:-2])
    report = pecrs("rate", "report", path, "--json")
    assert "half-written" in report.stderr
    assert sum(r["n"] for r in json.loads(report.stdout)["rows"]) == 2 * (len(rows) - 1)
    ask = ["rate", "ask", tmp_path / "study.jsonl", "--rater", "ann", "--out", path]
    assert "half-written" in pecrs(*ask, stdin="t").stderr
    assert "half-written" not in pecrs(*ask).stderr
    assert read_judgements(path) == (rows, 0)


def test_undo_takes_back_across_contexts_and_sessions(tmp_path):
    study, out = made(n=4), tmp_path / "ann.csv"
    write_replies(study, tmp_path / "study.jsonl")
    ask = ["rate", "ask", tmp_path / "study.jsonl", "--rater", "ann", "--out", out]
    first = pecrs(*ask, stdin="u\nleft\nR\nhm\n\nl\nq\n").stdout
    assert "nothing to take back" in first and first.count("l is left") == 2
    assert [j.choice for j in read_judgements(out)[0]] == ["left", "right", "left"]
    second = pecrs(*ask, stdin="u\nu\nu\nu\nt\nq\n").stdout
    assert second.count("\n1 of 4\n") == 1 and second.count("taken back") == 3
    assert [j.choice for j in read_judgements(out)[0]] == ["tie"]
    last = pecrs(*ask, stdin="t\n" * 7 + "l\nu\nr\nq")  # all is answered: "l" is no answer
    assert "complete" in last.stderr and last.stdout.count("all is answered") == 3
    assert [j.choice for j in read_judgements(out)[0]] == ["tie"] * 7 + ["right"]
    sheet = Sheet(study, "ann", out)
    assert all(sheet.undo() for _ in range(8)) and not sheet.undo()
    assert read_judgements(out) == ([], 0)


# -- files and studies ----------------------------------------------------------------------------


def test_a_study_is_drawn_by_seed_alone():
    a, b = replies("Alpha"), replies("Omega")
    study = pair(a, b, 5, seed=1)
    assert study == pair(a[::-1], b[::-1], 5, seed=1) == pair(a, b, 9, seed=1)[:5]
    assert {c.key for c in study} != {c.key for c in pair(a, b, 5, seed=2)}
    assert fingerprint(study) == fingerprint(study[::-1]) == fingerprint(pair(b, a, 5, seed=1))
    other = [replace(study[0], replies={**study[0].replies, "Alpha": "hm"}), *study[1:]]
    assert len({fingerprint(s) for s in (study, other, study[:4], made(5, 2))}) == 4
    counts = Counter(c.key for seed in range(200) for c in pair(a, b, 5, seed))
    assert len(counts) == 20 and 25 <= min(counts.values()) <= max(counts.values()) <= 75  # 50


def test_replies_are_written_and_read_again(tmp_path):
    odd = Context("7", 0, (), {"Alpha": "two\nlines, a “quote” and 🎬", "Omega": ""})
    for name in ("a.jsonl", "a.jsonl.gz"):
        write_replies([*made(), odd], tmp_path / name)
        assert read_replies(tmp_path / name) == [*made(), odd]
    ask = ["rate", "ask", tmp_path / "odd.jsonl", "--rater", "a", "--out", tmp_path / "a.csv"]
    write_replies([odd], tmp_path / "odd.jsonl")
    shown = pecrs(*ask, stdin="").stdout
    assert "(the conversation begins)" in shown and "(says nothing)" in shown
    assert "two lines, a" in shown


HISTORY = '"history": [{"role": "seeker", "text": "hi"}]'
GOOD = f'{{"dialogue": "d", "turn": 1, {HISTORY}, "replies": {{"A": "ok"}}}}'
BAD_LINES = {
    "not JSON": ("hello", "not JSON"),
    "field missing": (GOOD.replace('"turn": 1, ', ""), "field 'turn': missing"),
    "unknown field": (GOOD.replace("turn", "Turn"), "unknown field 'Turn'"),
    "turn below 0": (GOOD.replace("1", "-1"), "count from 0"),
    "turn is text": (GOOD.replace("1", '"1"'), "an integer"),
    "another role": (GOOD.replace("seeker", "both"), "got 'both'"),
    "no system": (GOOD.replace('{"A": "ok"}', "{}"), "{system: reply}"),
    "reply is no text": (GOOD.replace('"ok"', "null"), "field 'replies.A': a string"),
    "system without name": (GOOD.replace('"A"', '" "'), "name of a system"),
    "id of two lines": (GOOD.replace('"d"', '"d\\ne"'), "an id must be one line"),
    "context twice": (f"{GOOD}\n{GOOD}", "stands in line 1 already"),
    "systems differ": (f"{GOOD}\n{GOOD.replace('A', 'B').replace('1', '2')}", "replies of 'A'"),
    "empty": ("", "empty"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_bad_files_of_replies_are_refused_with_their_place(case, tmp_path):
    text, expected = BAD_LINES[case]
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"a\.jsonl") as error:
        read_replies(tmp_path / "a.jsonl")
    assert expected in str(error.value)


A, B = replies("Alpha"), replies("Omega")
BAD_PAIRS = {
    "same system": ((A, A, 5), "'Alpha': two systems"),
    "two systems in one": ((made(), B, 5), "one system each"),
    "nothing": (([], B, 5), "one system each"),
    "context of one only": ((A, B[:-1], 5), "1 contexts have a reply of one system only"),
    "context of the other only": ((A[2:], B, 5), "turn 1 of dialogue 'd0'"),
    "histories differ": ((A, [replace(B[0], history=()), *B[1:]], 5), "different histories"),
    "too many": ((A, B, 21), "the 20 contexts there are, got 21"),
    "none": ((A, B, 0), "got 0"),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_what_is_no_pair_is_refused(case):
    arguments, expected = BAD_PAIRS[case]
    with pytest.raises(ValueError, match=re.escape(expected)):
        pair(*arguments)


def test_studies_and_raters_do_not_mix(tmp_path):
    path = tmp_path / "ann.csv"
    mine = judged(made(), "ann", lambda _: "tie", path)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"ann\.csv:2: an answer to another study"):
        Sheet(made(n=19), "ann", path)
    with pytest.raises(DataError, match="an answer of 'ann'; each rater needs"):
        Sheet(made(), "bob", path)
    path.write_bytes(before.replace(b"Alpha,Omega,tie", b"Omega,Alpha,tie", 1))
    with pytest.raises(DataError, match="was the file edited"):
        Sheet(made(), "ann", path)
    path.write_bytes(before + before.splitlines(keepends=True)[-1])
    with pytest.raises(DataError, match=r":42: not the question"):
        Sheet(made(), "ann", path)
    (tmp_path / "note.txt").write_text("my thesis")  # no line break: half a line of ours?
    with pytest.raises(DataError, match="not a file of judgements"):
        Sheet(made(), "ann", tmp_path / "note.txt")
    assert (tmp_path / "note.txt").read_text() == "my thesis"

    other = judged(made(n=19), "bob", lambda _: "tie", tmp_path / "bob.csv")
    with pytest.raises(ValueError, match="different studies"):
        pooled([mine, other])
    with pytest.raises(ValueError, match="twice"):
        pooled([mine, mine])
    with pytest.raises(ValueError, match="no judgements yet"):
        pooled([[], []])
    with pytest.raises(ValueError, match="Alpha, Beta, Omega"):
        pooled([mine, [replace(mine[0], right="Beta", left="Alpha", rater="bob")]])
    with pytest.raises(ValueError, match="not one of them"):
        pooled([[replace(mine[0], rater="all")]])
    assert systems_of(mine) == ("Alpha", "Omega")


@pytest.mark.parametrize("name", ["", "  ", "ann\nbob", "all"])
def test_a_rater_needs_a_name(name, tmp_path):
    with pytest.raises(ValueError, match="name"):
        Sheet(made(), name, tmp_path / "x.csv")


def test_a_sheet_takes_what_it_can_ask_and_no_other_answer(tmp_path):
    for study in ([], replies("Alpha")):
        with pytest.raises(ValueError, match="two replies"):
            Sheet(study, "ann", tmp_path / "x.csv")
    sheet = Sheet(made(n=1), "ann", tmp_path / "x.csv")
    with pytest.raises(ValueError, match="got 'up'"):
        sheet.answer("up")
    for _ in CRITERIA:
        sheet.answer("tie")
    with pytest.raises(ValueError, match="every question"):
        sheet.answer("tie")


HEADER = "study,rater,dialogue,turn,criterion,left,right,choice\n"
ROW = "s,ann,d,1,fluency,Alpha,Omega,tie\n"
BAD_CSV = {
    "other columns": ("a,b\n1,2\n", "its columns must be study,"),
    "semicolons": ((HEADER + ROW).replace(",", ";"), "its columns"),
    "a cell less": (HEADER + ROW.replace("d,", ""), ":2: 7 cells"),
    "choice": (HEADER + ROW + ROW.replace("tie", "both"), ":3: field 'choice'"),
    "criterion": (HEADER + ROW.replace("fluency", "wit"), "field 'criterion'"),
    "turn": (HEADER + ROW.replace("1", "one"), "field 'turn'"),
    "one system": (HEADER + ROW.replace("Omega", "Alpha"), "both sides"),
    "quote": (HEADER + ROW.replace("ann", '"ann'), "not a CSV file"),
    "empty": ("", "empty"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_files_of_judgements_are_refused_with_their_place(case, tmp_path):
    text, expected = BAD_CSV[case]
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=r"a\.csv") as error:
        read_judgements(tmp_path / "a.csv")
    assert expected in str(error.value)
    assert expected in complaint("rate", "report", tmp_path / "a.csv")


def test_a_spreadsheet_may_have_saved_the_file(tmp_path):
    path = tmp_path / "ann.csv"
    rows = judged(made(), "ann", rater(0.7, 0), path)
    path.write_bytes("\ufeff".encode() + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_judgements(path) == (rows, 0)
    sheet = Sheet(made(), "ann", path)
    assert sheet.undo() and len(read_judgements(path)[0]) == len(rows) - 1


WRONG = {
    "no study": (["ask", "none.jsonl", "--rater", "a", "--out", "a.csv"], "none.jsonl: no such"),
    "replies, not a study": (["ask", "a.jsonl", "--rater", "a", "--out", "x"], "two replies each"),
    "no rater": (["ask", "a.jsonl", "--out", "a.csv"], "--rater"),
    "no file of answers": (["ask", "s.jsonl", "--rater", "a", "--out", "s.jsonl"], "not a file"),
    "same replies": (["pair", "a.jsonl", "a.jsonl", "--out", "x"], "two systems are needed"),
    "out is in": (["pair", "a.jsonl", "b.jsonl", "--out", "b.jsonl"], "would overwrite"),
    "too many": (["pair", "a.jsonl", "b.jsonl", "--out", "x"], "between 1 and the 20"),
    "no judgements": (["report", "none.csv"], "none.csv: no such file"),
    "report over a sheet": (["report", "a.csv", "--out", "a.csv"], "would overwrite"),
    "nothing to report": (["report"], "FILES"),
    "system without name": (
        ["reply", "--checkpoint", ".", "--test", "t", "--format", "jsonl", "--system", "", "--out",
         "x"], "name of a system",
    ),
    "no such decoding": (
        ["reply", "--checkpoint", ".", "--test", "t", "--format", "jsonl", "--system", "A", "--out",
         "x", "--decoding", "best"], "there are top-k; greedy; beam search",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_commands_are_one_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_replies(A, "a.jsonl")
    write_replies(B, "b.jsonl")
    write_replies(made(), "s.jsonl")
    arguments, expected = WRONG[case]
    assert expected.lower() in complaint("rate", *arguments).lower()


def test_help_has_an_example_and_no_command_shows_help():
    for command in ("reply", "pair", "ask", "report"):
        assert "Example" in pecrs("rate", command, "--help").stdout
    assert "The whole way" in pecrs("rate").stdout


# -- the numbers ----------------------------------------------------------------------------------


def counted(shares, criterion):
    """Judgements of three raters who preferred Alpha, Omega and neither so many times."""
    return [
        judgement(f"d{p}", 1, choice, name, criterion)
        for name, counts in zip(("ann", "bob", "eve"), shares, strict=True)
        for p, choice in enumerate(np.repeat(["left", "right", "tie"], counts).tolist())
    ]


def test_table_4_of_the_paper():
    """Counts in 100 contexts that give its rows; where deviations divide by n - 1, none does."""
    table = summary(
        counted([(26, 42, 32), (28, 55, 17), (30, 43, 27)], "fluency")
        + counted([(24, 45, 31), (25, 47, 28), (30, 46, 24)], "relevancy")
    )
    printed = {
        "fluency": [(28.00, 1.63), (46.67, 5.91), (25.33, 6.24)],
        "relevancy": [(26.33, 2.62), (46.00, 0.82), (27.67, 2.87)],
    }
    for criterion, cells in printed.items():
        row = row_of(table, criterion)
        got = [(round(row[s], 2), round(row[f"{s}_sd"], 2)) for s in ("first", "second", "tie")]
        assert got == cells and row["n"] == 300
        assert row["preference"] == pytest.approx((cells[0][0] - cells[1][0]) / 100, abs=1e-4)
    sums = itertools.product(range(101), repeat=2)
    three = [(a, b, 84 - a - b) for a, b in sums if 0 <= 84 - a - b <= 100]
    assert any(round(float(np.std(x)), 2) == 1.63 for x in three)
    assert not any(round(float(np.std(x, ddof=1)), 2) == 1.63 for x in three)


def test_the_summary_by_hand():
    rows = [judgement("d", t, c) for t, c in enumerate(["left", "left", "right", "tie"])]
    rows += [judgement("d", t, c, "bob") for t, c in enumerate(["left", "tie", "left"])]
    table = summary(rows)
    assert table.rater.tolist() == ["ann", "bob", "all"] and table.n.tolist() == [4, 3, 7]
    ann, bob, both = (row_of(table, "fluency", who) for who in ("ann", "bob", "all"))
    assert [ann[s] for s in ("first", "second", "tie")] == [50, 25, 25]
    assert ann["preference"] == 0.25 and ann["sd"] == pytest.approx((11 / 16) ** 0.5)
    assert (ann["low"], ann["high"]) == (0.25, 0.25)  # of a single dialogue
    assert ann["p_value"] == 1 and bob["p_value"] == 0.5  # 2 to 1, 2 to 0
    assert both["p_value"] == 0.5  # turns 0 and 1 for Alpha; 2 is even, 3 a tie
    assert both["first_sd"] == pytest.approx(50 / 6) and np.isnan(ann["first_sd"])
    assert ann["left"] == pytest.approx(200 / 3)
    only = summary([judgement("d", 1, "tie")])
    assert only.left.isna().all() and only.tie_sd.isna().all() and (only.p_value == 1).all()


def test_agreement_of_pairs_and_of_all():
    rows = [judgement("d", t, c) for t, c in enumerate(["left", "right", "tie", "left"])]
    rows += [judgement("d", t, c, "bob") for t, c in enumerate(["left", "right", "tie"])]
    rows += [judgement("d", 3, "right", "eve"), judgement("d", 9, "tie", "zoe")]
    table = agreement(rows)
    assert table.raters.tolist() == ["ann, bob", "ann, eve", "all"]  # others share nothing
    assert table.n.tolist() == [3, 1, 4] and table.same.tolist() == [100, 0, 75]
    assert table.value[0] == 1 and table.statistic[2] == "Krippendorff's alpha"
    labels = [[1, -1, 0, 1, NAN], [1, -1, 0, NAN, NAN], [NAN, NAN, NAN, -1, NAN]]
    assert table.value[2] == krippendorff_alpha(labels)
    assert agreement(rows[:4]).empty
    swapped = [replace(j, left="Omega", right="Alpha", rater="bob") for j in rows[:4]]
    assert agreement(rows[:4] + swapped).same[0] == 25  # sides are no systems: only the tie


def test_kappa_by_hand():
    assert cohen_kappa([1, 2, 3], [1, 2, 3]) == 1
    assert cohen_kappa([1, 1, 2, 2], [1, 2, 1, 2]) == 0
    assert cohen_kappa([1, 2], [2, 1]) == -1
    # 20 both yes, 15 both no, 5 and 10 apart: p_o = 0.7, p_e = 0.5 (0.5·0.6 + 0.5·0.4)
    a = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    b = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert cohen_kappa(a, b) == cohen_kappa(b, a) == pytest.approx(0.4)
    assert np.isnan(cohen_kappa([1, 1], [1, 1])) and cohen_kappa([1, 1], [1, 2]) == 0
    for bad in (([], []), ([1], [1, 2]), ([[1]], [[1]])):
        with pytest.raises(ValueError, match=r"\(P,\)"):
            cohen_kappa(*bad)


def test_alpha_by_hand():
    """Krippendorff (2011): his two raters of ten items, his four raters with gaps."""
    two = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]
    assert krippendorff_alpha(two) == pytest.approx(1 - 19 * 8 / (2 * 14 * 6))  # 0.095
    four = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
    assert krippendorff_alpha(four) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha([[1, 2, NAN], [1, 2, 3]]) == 1
    assert np.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
    assert np.isnan(krippendorff_alpha([[1, NAN], [NAN, 2]])) and np.isnan(
        krippendorff_alpha([[NAN]])
    )
    for bad in ([], [[]], [1, 2]):
        with pytest.raises(ValueError, match=r"\(R, P\)"):
            krippendorff_alpha(bad)


def slow_alpha(table):
    """Every ordered pair of judgements, within items and at large."""
    units = [[x for x in column if not np.isnan(x)] for column in np.transpose(table)]
    units = [unit for unit in units if len(unit) > 1]
    n = sum(map(len, units))
    observed = sum(
        sum(a != b for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units
    )
    every = itertools.permutations(itertools.chain.from_iterable(units), 2)
    expected = sum(a != b for a, b in every)
    return 1 - (observed / n) / (expected / (n * (n - 1)))


@pytest.mark.parametrize("seed", range(5))
def test_alpha_is_its_slow_form(seed):
    rng = np.random.default_rng(seed)
    table = rng.choice([-1.0, 0.0, 1.0, NAN], (4, 15))
    assert krippendorff_alpha(table) == pytest.approx(slow_alpha(table))
    assert krippendorff_alpha(table[::-1, ::-1]) == pytest.approx(krippendorff_alpha(table))


def test_kappa_and_alpha_of_random_labels_are_near_0():
    labels = np.random.default_rng(0).choice([-1, 0, 1], (3, 20_000), p=[0.6, 0.3, 0.1])
    assert abs(krippendorff_alpha(labels)) < 0.02 and abs(cohen_kappa(*labels[:2])) < 0.02


def test_sign_test_by_hand():
    assert sign_test(0, 0) == sign_test(3, 3) == sign_test(1, 0) == 1
    assert sign_test(5, 0) == sign_test(0, 5) == 2 / 32
    assert sign_test(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert 0 < sign_test(2000, 1000) < 1e-70
    with pytest.raises(ValueError, match="not negative"):
        sign_test(-1, 2)
