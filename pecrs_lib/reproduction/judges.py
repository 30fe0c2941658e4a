"""Judges of the paper's claims on recommending: each says from files whether one holds.

Comes after `findings`; `group_judges` and `text_judges` have those on groups of points and on what
is said, `claims` the claims themselves.
Functions here make a judge; it returns None where the runs it needs are not there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pecrs_lib.data import bundled
from pecrs_lib.reproduction.evidence import (
    FAILS,
    HOLDS,
    Record,
    Results,
    cell,
    paper_table,
    ranks_of,
    verdict,
)
from pecrs_lib.reproduction.findings import (
    UNTESTED,
    Files,
    Finding,
    Judge,
    finding,
    ranked,
    recall_difference,
    same_seeds,
    weakest,
)
from pecrs_lib.reproduction.runs import M_TRAIN, MAIN
from pecrs_lib.reproduction.tables import CUTS, NAMES, table_1


def printed(table: int | str, row: str, column: str) -> float:
    """A number of the paper; NaN where it has none."""
    found = paper_table(table)
    found = found.set_index(found.columns[0])
    return float(found[column].get(row, np.nan)) if column in found else np.nan


def printed_text(name: str, data: str = "") -> float:
    """A number that the paper's text prints, from `data/paper/text.csv`; NaN where it has none."""
    rows = pd.read_csv(bundled("paper") / "text.csv", keep_default_na=False)
    found = rows[(rows["id"] == name) & (rows["data"] == data)]["value"]
    return float(found.iloc[0]) if len(found) else np.nan


def statistics(files: Files, results: Results) -> Finding | None:
    """Table 1: are the counts the same? Counts of a whole have no interval."""
    if not results.data:
        return None
    table = table_1(results)
    same = table["paper"] == table["ours"]
    other = table[~same]
    parts = [f"{r['row']} {r['paper']:,.0f}, here {r['ours']:,.0f}" for r in
             other.assign(row=other["metric"]).to_dict("records")]  # fmt: skip
    names = files.names([results.data])
    note = f"Other counts: {'; '.join(parts)}." if parts else "All counts are equal."
    return Finding(
        HOLDS if same.all() else FAILS, n=int(table["n"].iloc[0]), files=names, note=note
    )


def _as_in_paper(run: Record) -> bool:
    """Whether a run has the paper's settings and one of its backbones."""
    return bool(run["preset"] == "paper" and str(run["backbone"]).startswith("gpt2"))


def rival(name: str, model: str, cuts: Sequence[int] = CUTS) -> Judge:
    """Table 2: more recall than a system that is not here, by its printed numbers.

    Judged only where our runs have the paper's model and settings; else a difference could be that
    of the backbone.
    """

    def judge(files: Files, results: Results) -> Finding | None:
        if not results.main:
            return None
        own = [ranks_of(run) for run in results.main]
        found: dict[str, Finding | None] = {}
        for k in cuts:
            column = f"{NAMES[results.dataset]} R@{k}"
            other = printed(2, name, column)
            claimed = printed(2, model, column) - other
            measured = cell("", "", own[0].dialogue, [p.rank <= k for p in own])
            shifted = measured | {key: measured[key] - other for key in ("ours", "low", "high")}
            judged = verdict(claimed, shifted) if claimed > 0 else FAILS
            comparable = _as_in_paper(results.main[0]) and results.model_of_paper == model
            note = "" if claimed > 0 else "The paper's own numbers say the opposite."
            if not comparable:
                note += f" Our runs are not {model} in the paper's settings."
            found[f"R@{k}"] = finding(
                judged if comparable else UNTESTED, claimed, shifted, files.names(results.main),
                note=note.strip(),
            )  # fmt: skip
        return weakest(found)

    return judge


def larger_backbone(files: Files, results: Results) -> Finding | None:
    """Table 2: GPT-2 medium above GPT-2 small at every cut, where there are runs of both."""
    both: dict[bool, list[Record]] = {True: [], False: []}
    for run in files.runs.values():
        here = run.get("dataset") == results.dataset and run.get("variant") == MAIN
        if here and str(run["backbone"]).startswith("gpt2"):
            both["medium" in run["backbone"]].append(run)
    medium, small = same_seeds(both[True], both[False])
    if not medium:
        return None
    found: dict[str, Finding | None] = {}
    for k in CUTS:
        column = f"{NAMES[results.dataset]} R@{k}"
        claimed = printed(2, "PECRS-medium", column) - printed(2, "PECRS-small", column)
        found[f"R@{k}"] = recall_difference(files, claimed, medium, small, k=k)
    return weakest(found)


def ablation(variant: str) -> Judge:
    """Table 5: what a variant changes in R@50, against the run it is compared with."""

    def judge(files: Files, results: Results) -> Finding | None:
        claimed = printed(5, variant, "R@50") - printed(5, "PECRS-small", "R@50")
        return recall_difference(files, claimed, *results.paired(variant))

    return judge


def single_stage(files: Files, results: Results) -> Finding | None:
    """Section 3.6: is one stage enough? The run without warm start against the one with it."""
    alone, main = same_seeds(results.runs.get("single stage alone", ()), results.main)
    note = "Small backbone, one or two epochs; the paper trains GPT-2 for ten or twenty."
    return recall_difference(files, 1.0, alone, main, sized=False, note=note)


def field(name: str) -> Judge:
    """Table 6: what is lost in R@50 when a field is left out at inference."""

    def judge(files: Files, results: Results) -> Finding | None:
        runs = [run for run in results.main if run["rank_without"]]
        claimed = printed(6, name, "R@50") - printed(6, "none", "R@50")
        return recall_difference(
            files, claimed, runs, runs, ranks=lambda run: ranked(run, run["rank_without"][name])
        )

    return judge


def plot_most(files: Files, results: Results) -> Finding | None:
    """Table 6: is more lost without the plot than without any other field?"""
    runs = [run for run in results.main if run["rank_without"]]
    found: dict[str, Finding | None] = {}
    for name in paper_table(6)["removed"]:
        if name in ("none", "plot"):
            continue
        found[f"plot against {name}"] = recall_difference(
            files, printed(6, "plot", "R@50") - printed(6, name, "R@50"), runs, runs,
            ranks=lambda run: ranked(run, run["rank_without"]["plot"]),
            ranks_against=lambda run, name=name: ranked(run, run["rank_without"][name]),  # type: ignore[misc]
        )  # fmt: skip
    return weakest(found)


def more_negatives(files: Files, results: Results) -> Finding | None:
    """Figure 3: the largest M_train against the smallest, of the seeds that both have."""
    of: dict[int, Sequence[Record]] = {
        runs[0]["config"]["negatives"]: runs
        for variant, runs in results.runs.items()
        if variant == MAIN or variant.startswith(M_TRAIN)
    }
    if len(of) < 2:
        return None
    most, least = same_seeds(of[max(of)], of[min(of)])
    note = f"M_train = {max(of)} against {min(of)}."
    return recall_difference(files, 1.0, most, least, sized=False, note=note)


def more_candidates(files: Files, results: Results) -> Finding | None:
    """Figure 3: every candidate of the main run re-ranked, against as few as were tried."""
    if not results.main or not results.main[0]["rank_within"]:
        return None
    least = min(results.main[0]["rank_within"], key=int)
    note = f"M_inference = {results.main[0]['config']['candidates']} against {least}."
    return recall_difference(
        files, 1.0, results.main, results.main, sized=False, note=note,
        ranks_against=lambda run: ranked(run, run["rank_within"][least]),
    )  # fmt: skip


def trained_share(files: Files, results: Results) -> Finding | None:
    """Section 3.5: which share of the parameters is trained? Counted, so without interval."""
    if not results.main:
        return None
    counted = results.main[0]["parameters"]
    share = 100 * (1 - counted["frozen"] / sum(counted.values()))
    claimed = printed_text("trained")
    near = HOLDS if claimed / 2 < share < 2 * claimed else FAILS
    of_paper = _as_in_paper(results.main[0])
    note = "" if of_paper else "A smaller backbone has less to freeze: not to be compared."
    return Finding(
        near if of_paper else UNTESTED, claimed, float(share), n=sum(counted.values()),
        seeds=len(results.main), files=files.names(results.main[:1]), note=note,
    )  # fmt: skip
