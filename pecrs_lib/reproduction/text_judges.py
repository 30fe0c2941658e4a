"""Judges of the paper's claims on what is said: replies, language models, decoding strategies.

Comes after `judges`, before `claims`. Functions here make a judge, or are one; it returns None
where the files it needs are not there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pecrs_lib.reproduction.evidence import (
    FAILS,
    HOLDS,
    OPEN,
    Record,
    Results,
    cell,
    paper_table,
    verdict,
)
from pecrs_lib.reproduction.findings import Files, Finding, Judge, finding, same_seeds
from pecrs_lib.reproduction.judges import printed
from pecrs_lib.reproduction.runs import MAIN

WEAK = 0.5  # a correlation within ± this is called weak
OURS = "PECRS, seed 0"  # of zero_shot.json
NOISE = "Dist@n has no interval and depends on the number of replies."


def when_to_recommend(files: Files, results: Results) -> Finding | None:
    """Table 3: F-1 of replies with an item, less that of a rule that always recommends.

    A decision worse than that of the rule is worth nothing, however high its F-1.
    """
    runs = [run for run in results.main if run["replies"]]
    if not runs:
        return None
    columns = []
    for told in (run["replies"] for run in runs):
        says, due = np.array(told["says"]), np.array(told["due"])
        columns.append(np.column_stack([says & due, says, due]))

    def ahead(means: Any) -> Any:
        both, says, due = (means[..., k] for k in range(3))
        return 200 * (both / (says + due) - due / (1 + due))

    found = cell("", "", runs[0]["replies"]["dialogue"], columns, ahead)
    own = np.mean([run["replies"]["metrics"]["F-1"] for run in runs])
    note = f"F-1 {own:.1f} here, {printed(3, results.model_of_paper, 'F-1'):.1f} in the paper."
    return finding(verdict(1.0, found, sized=False), np.nan, found, files.names(runs), note=note)


def rouge_falls(
    files: Files, results: Results, variant: str, *, sized: bool = True
) -> Finding | None:
    """Table 5: ROUGE-1 of a variant less that of the main run, on the same turns."""
    of, main = (
        [r for r in runs if r["replies"]]
        for runs in same_seeds(results.runs.get(variant, ()), results.runs.get(MAIN, ()))
    )
    if not of or len(of) != len(main):
        return None
    columns = [
        np.array(a["replies"]["rouge1"]) - np.array(b["replies"]["rouge1"])
        for a, b in zip(of, main, strict=True)
    ]
    found = cell("", "", of[0]["replies"]["dialogue"], columns, lambda means: means[..., 0])
    full = printed(5, "PECRS-small", "ROUGE-1")
    claimed = printed(5, variant, "ROUGE-1") - full
    own = float(np.mean([np.mean(run["replies"]["rouge1"]) for run in main]))
    note = f"Judged by the share that is lost: the paper has {full:.1f} to lose, ours {own:.1f}."
    judged = verdict(claimed * own / full, found, sized=sized)
    return finding(judged, claimed, found, files.names([*of, *main]), note=note if sized else "")


def rouge(variant: str) -> Judge:
    return lambda files, results: rouge_falls(files, results, variant)


def dist_misleads(files: Files, results: Results) -> Finding | None:
    """Section 5.1: without the response loss, is Dist@2 higher although ROUGE-1 is lower?"""
    variant = "w/o Generation loss"
    found = rouge_falls(files, results, variant, sized=False)
    if found is None:
        return None
    of, main = same_seeds(results.runs[variant], results.main)
    key = "Dist@2 per sentence"
    dist = [[r["replies"]["metrics"][key] for r in runs] for runs in (of, main)]
    higher = all(a > b for a, b in zip(*dist, strict=True))
    judged = found.verdict if higher or found.verdict == FAILS else OPEN
    means = [f"{np.mean(values):.2f}" for values in dist]
    note = f"Dist@2 {means[0]} without the loss, {means[1]} with it. {NOISE}"
    return Finding(**{**vars(found), "verdict": judged, "note": note})


def zero_shot(system: str, paper_row: str, k: int) -> Judge:
    """Table 7: recall@k of a language model without training, less PECRS's on the same points."""

    def judge(files: Files, results: Results) -> Finding | None:
        if "zero_shot" not in files.others:
            return None
        by = {
            row["targets"]: _interval(row)
            for row in files.others["zero_shot"]["paired"]
            if (row["system"], row["against"], row["k"]) == (system, OURS, k)
        }
        if "all" not in by:
            return None
        claimed = printed(7, paper_row, f"R@{k}") - printed(7, "PECRS-small", f"R@{k}")
        judged = verdict(claimed, by["all"])
        note = f"'{system}' stands for the paper's {paper_row}, our small checkpoint for PECRS."
        names = ("zero_shot.json",)
        return finding(judged, claimed, by["all"], names, novel=by.get("novel"), note=note)

    return judge


def _interval(row: Record) -> dict[str, Any]:
    return {"ours": row["difference"], "low": row["low"], "high": row["high"], "n": row["n"],
            "seeds": (row["difference"],)}  # fmt: skip


def _strategies(files: Files) -> list[Record]:
    rows = files.others.get("decoding", {}).get("rows", ())
    return [row for row in rows if row["model"] == "trained"]


def dist_moves_more(files: Files, results: Results) -> Finding | None:
    """Table 8: largest over smallest Dist@2 of all strategies, over the same of ROUGE-1.

    The interval takes every ROUGE-1 at the bound that favours, or hurts, the claim most.
    """
    rows = _strategies(files)
    if not rows:
        return None
    rouge1 = pd.DataFrame([row["ROUGE-1"] for row in rows])
    dist = [row["Dist@2 per sentence"] for row in rows]
    spread = np.log(max(dist) / min(dist))
    widest = np.log(rouge1["high"].max() / rouge1["low"].min())
    narrowest = max(0.0, np.log(rouge1["low"].max() / rouge1["high"].min()))
    value = spread - np.log(rouge1["value"].max() / rouge1["value"].min())
    bounds = {"ours": value, "low": spread - widest, "high": spread - narrowest}
    judged = verdict(1.0, bounds, sized=False)
    ours = {name: float(np.exp(x)) for name, x in bounds.items()}
    table = paper_table(8)
    paper = (table["Dist@2"].max() / table["Dist@2"].min()) / (
        table["ROUGE-1"].max() / table["ROUGE-1"].min()
    )
    found = ours | {"n": files.others["decoding"]["replies"], "seeds": (0,)}
    return finding(judged, float(paper), found, ("decoding.json",), note=NOISE)


def weakly_related(files: Files, results: Results) -> Finding | None:
    """Section 5.1: is the rank correlation of ROUGE-1 and Dist@2 over strategies weak?

    Fisher's interval; strategies of one family are no independent points, so it is too narrow.
    """
    rows = _strategies(files)
    if not rows:
        return None
    r = _rank_correlation(
        [row["ROUGE-1"]["value"] for row in rows], [row["Dist@2 per sentence"] for row in rows]
    )
    half = 1.96 / np.sqrt(len(rows) - 3)
    low, high = np.tanh(np.arctanh(np.clip(r, -0.999, 0.999)) + np.array([-half, half]))
    inside, outside = max(-low, high) < WEAK, low > WEAK or high < -WEAK
    table = paper_table(8)
    paper = _rank_correlation(table["ROUGE-1"], table["Dist@2"])
    note = f"In the paper's own Table 8 it is {paper:.2f}." if abs(paper) > WEAK else ""
    return Finding(
        HOLDS if inside else FAILS if outside else OPEN, paper, r, float(low), float(high),
        len(rows), 1, ("decoding.json",), note=note,
    )  # fmt: skip


def _rank_correlation(a: Any, b: Any) -> float:
    return float(pd.Series(list(a)).rank().corr(pd.Series(list(b)).rank()))
