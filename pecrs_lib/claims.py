"""What the paper claims, and whether it holds in our runs.

Comes after `reproduction`. A claim is a difference between two ways of training or inference that
the runs can make, too; what the paper says of systems that are not here is not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from pecrs_lib.evaluation import Predictions
from pecrs_lib.evidence import Record, Results, gain, predictions, ranks_of, verdict
from pecrs_lib.reproduction import table_5, table_6
from pecrs_lib.runs import M_TRAIN, MAIN

COLUMNS = ("table", "claim", "paper difference", "difference", "low", "high", "n", "verdict")


def claims(results: Results) -> pd.DataFrame:
    """A row per claim that the runs can judge, all of them of R@50, in points.

    ``paper difference`` is NaN where the paper draws its numbers without printing them; then only
    the direction is judged, see `evidence.verdict`.
    """
    rows = [
        *_printed("5", "{} changes R@50", table_5(results)),
        *_printed("6", "without {} at inference R@50 falls", table_6(results)),
        *_more_negatives(results),
        *_more_candidates(results),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _printed(number: str, claim: str, table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table that carry a verdict."""
    judged = table[table["verdict"].notna()] if "verdict" in table else table.iloc[:0]
    return [
        {
            "table": number,
            "claim": claim.format(row["row"]),
            "low": row["difference low"],
            "high": row["difference high"],
            **{k: row[k] for k in ("paper difference", "difference", "n", "verdict")},
        }
        for row in judged.to_dict("records")
    ]


def _larger(claim: str, more: Sequence[Predictions], less: Sequence[Predictions]) -> dict[str, Any]:
    """Figure 3 says of both numbers that the larger the better."""
    found = gain(more, less, 50)
    return {
        "table": "figure-3",
        "claim": claim,
        "paper difference": float("nan"),
        "difference": found["ours"],
        **{k: found[k] for k in ("low", "high", "n")},
        "verdict": verdict(1.0, found, sized=False),
    }


def _more_negatives(results: Results) -> list[dict[str, Any]]:
    """The largest M_train against the smallest, of the seeds that both have."""
    of = {
        runs[0]["config"]["negatives"]: {run["seed"]: run for run in runs}
        for variant, runs in results.runs.items()
        if variant == MAIN or variant.startswith(M_TRAIN)
    }
    if len(of) < 2:
        return []
    least, most = min(of), max(of)
    seeds = sorted(set(of[least]) & set(of[most]))
    if not seeds:
        return []
    less, more = ([ranks_of(of[m][seed]) for seed in seeds] for m in (least, most))
    return [_larger(f"M_train = {most} recalls more than {least}", more, less)]


def _more_candidates(results: Results) -> list[dict[str, Any]]:
    """Every candidate of the main run re-ranked, against as few as were tried."""
    if not results.main:
        return []
    least = min(results.main[0]["rank_within"], key=int)
    most = results.main[0]["config"]["candidates"]
    less = [_within(run, least) for run in results.main]
    claim = f"M_inference = {most} recalls more than {least}"
    return [_larger(claim, [ranks_of(run) for run in results.main], less)]


def _within(run: Record, m: str) -> Predictions:
    points = run["points"]
    return predictions(points, run["rank_within"][m], points["top1"], f"M_inference = {m}")
