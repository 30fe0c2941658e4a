"""What our own variants are worth: tables of `variants` beside the main run, from files alone.

Comes after `tables`, with tables of the same columns. Beside recall stands
the difference in R@50 to the main runs of the same seeds, with its interval over dialogues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from pecrs_lib.evaluation import Predictions, Targets
from pecrs_lib.reproduction.evidence import (
    Record,
    Results,
    count,
    gain,
    predictions,
    ranks_of,
    recall_rows,
)
from pecrs_lib.reproduction.layout import NO_RUN, points
from pecrs_lib.reproduction.runs import MAIN
from pecrs_lib.reproduction.tables import CUTS, frame
from pecrs_lib.reproduction.variants import AS_OFFICIAL, BEYOND, LEARNING_CURVE, OFFICIAL

DIFFERENCE = "difference in R@50"  # to the main run, in points
PRUNED = "catalogue pruned with test labels"
PRUNED_TOO = f"{AS_OFFICIAL}, pruned"
TARGETS: tuple[Targets, ...] = ("all", "novel")


def beyond(results: Results) -> pd.DataFrame:
    """The whole catalogue as negatives; items read by the adapted LM."""
    return against_main(results, BEYOND, "Beyond the paper: training")


def against_main(results: Results, names: Iterable[str], title: str = "") -> pd.DataFrame:
    """Any variants beside the main run."""
    return frame(_variants(results, names), title)


def worth(table: pd.DataFrame) -> pd.DataFrame:
    """What each variant gains or loses in R@50, and in a word whether its interval leaves zero.

    Args:
        table: of this module.
    """
    made: dict[str, dict[str, str]] = {}
    for name, rows in table[table["targets"] != ""].groupby("row", sort=False):
        found = {r["targets"]: r for r in rows[rows["metric"] == DIFFERENCE].to_dict("records")}
        if name == MAIN:
            continue
        line = dict.fromkeys([f"{t} targets" for t in TARGETS], "–")
        line |= {f"{t} targets": points(r["ours"], r["low"], r["high"]) for t, r in found.items()}
        line["n"] = " / ".join(str(r["n"]) for r in found.values())
        line["seeds"] = str(len(found["all"]["seeds"])) if found else "0"
        there = rows["ours"].notna().any()
        alone = "no main run of its seed" if there else NO_RUN
        line["R@50 is"] = _word(found["all"]) if found else alone
        made[str(name)] = line
    return pd.DataFrame(made).T


def _word(found: Record) -> str:
    if found["low"] == found["high"]:
        return "the same"
    if found["low"] > 0:
        return "higher"
    return "lower" if found["high"] < 0 else "not told apart"


def learning_curve(results: Results) -> pd.DataFrame:
    """Shares of the training dialogues; ``share`` is in percent, the main run 100."""
    rows = _variants(results, LEARNING_CURVE)
    share = {name: 100 * changes["share"] for name, changes in LEARNING_CURVE.items()}
    for row in rows:
        row["share"] = share.get(row["row"], 100.0)
    rows.sort(key=lambda row: row["share"])
    return frame(rows, "Learning curve: share of the training dialogues")


def official(results: Results) -> pd.DataFrame:
    """What the official code does differently, each alone and all at once.

    Two differences are of measuring and need no training. The catalogue without the items that no
    dialogue mentions is in the files of runs; where every item is mentioned, nothing changes. Dist
    stands here with both denominators: the code divides distinct n-grams by sentences.
    """
    rows = _variants(results, OFFICIAL)
    for name, variant in {PRUNED: MAIN, PRUNED_TOO: AS_OFFICIAL}.items():
        runs = [run for run in results.runs.get(variant, ()) if _pruned(results, run)]
        rows += _against_main(results, name, runs, [_pruned_ranks(results, r, name) for r in runs])
    for name in (MAIN, *OFFICIAL):
        rows += _dist_rows(name, results.runs.get(name, ()))
    return frame(rows, "What the official code does differently")


def _variants(results: Results, names: Iterable[str]) -> list[dict[str, Any]]:
    """Recall of the main run and of variants, and the differences of these to it."""
    rows = _recall(MAIN, [ranks_of(run) for run in results.main])
    for name in names:
        runs = results.runs.get(name, ())
        rows += _against_main(results, name, runs, [ranks_of(run, name) for run in runs])
    return rows


def _recall(name: str, systems: Sequence[Predictions]) -> list[dict[str, Any]]:
    return [row for of in TARGETS for row in recall_rows(name, systems, of, {}, CUTS)]


def _against_main(
    results: Results, name: str, runs: Sequence[Record], systems: Sequence[Predictions]
) -> list[dict[str, Any]]:
    """Recall of a system of each run, and its difference to the main runs of the same seeds."""
    rows, main = _recall(name, systems), {run["seed"]: run for run in results.main}
    pairs = [
        (system, ranks_of(main[run["seed"]]))
        for run, system in zip(runs, systems, strict=True)
        if run["seed"] in main
    ]
    if pairs:
        of, reference = zip(*pairs, strict=True)
        found = [gain(of, reference, 50, targets) | {"targets": targets} for targets in TARGETS]
        rows += [row | {"row": name, "metric": DIFFERENCE} for row in found]
    return rows


def _pruned(results: Results, run: Record) -> Record | None:
    """What a run says of the pruned catalogue; its own ranks where nothing is pruned; None for a
    file that does not say.
    """
    if results.data["statistics"]["items"] == len(results.data["items"]):  # every one is mentioned
        found: Record = run["points"]
        return found
    return run.get("pruned")


def _pruned_ranks(results: Results, run: Record, name: str) -> Predictions:
    found = _pruned(results, run)
    assert found is not None
    return predictions(run["points"], found["rank"], found["top1"], name)


def _dist_rows(name: str, runs: Sequence[Record]) -> list[dict[str, Any]]:
    """Dist@n of the replies, per sentence and per n-gram."""
    told = [run["replies"] for run in runs if run["replies"]]
    n = told[0]["n"] if told else 0
    metrics = [f"Dist@{k} per {per}" for per in ("sentence", "ngram") for k in (2, 3, 4)]
    return [
        count(f"{name}: replies", metric, [t["metrics"][metric] for t in told], n, targets="")
        for metric in metrics
    ]


VARIANT_TABLES: dict[str, Callable[[Results], pd.DataFrame]] = {
    "beyond": beyond,
    "learning-curve": learning_curve,
    "official": official,
}
