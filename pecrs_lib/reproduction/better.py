"""The better model of the reproduction: counts beside the retrieval score, held against a target.

Comes after `findings`, before `report`. Reads what `experiments.fusion` writes; the model and its
weights were chosen there on the development part. The targets are the project's, not the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pecrs_lib.reproduction.evidence import Record
from pecrs_lib.reproduction.findings import Files
from pecrs_lib.reproduction.tables import CUTS, NAMES

# data set -> the baseline to be above at every k, and how many times its recall
TARGETS = {"inspired": ("Mentioned, then popular", 1.0), "redial": ("Co-occurrence", 1.2)}


ALONE, WITH, COUNTS = "retrieval alone", "with counts", "counts alone"  # rows of the file
LABELS = {COUNTS: "The same counts without PECRS", ALONE: "PECRS, retrieval alone",
          WITH: "PECRS with counts"}  # fmt: skip


def better(files: Files) -> pd.DataFrame:
    """What the chosen model reaches, alone and with counts, beside its target.

    Returns:
        a row per data set, system, targets ("all", "novel") and k: ``ours`` with ``low`` and
        ``high`` in percent, ``n``, and, for all targets, ``target``. Empty without files.
    """
    rows: list[dict[str, Any]] = []
    for dataset, record in _records(files).items():
        baseline, times = TARGETS[dataset]
        printed = {(row["system"], row["targets"]): row for row in record["rows"]}
        for system, label in ({baseline: baseline} | LABELS).items():
            for targets in ("all", "novel"):
                found = printed[system, targets]
                for k in CUTS:
                    name = f"R@{k}"
                    aim = times * printed[baseline, "all"][name]["value"]
                    rows.append(
                        {
                            "data": NAMES[dataset],
                            "row": label,
                            "targets": targets,
                            "metric": name,
                            "ours": found[name]["value"],
                            "low": found[name]["low"],
                            "high": found[name]["high"],
                            "n": found["n"],
                            "target": aim if targets == "all" else np.nan,
                        }
                    )
    return pd.DataFrame(rows)


def _records(files: Files) -> dict[str, Record]:
    named = {dataset: f"fusion_{dataset}" for dataset in TARGETS}
    return {d: files.others[name] for d, name in named.items() if name in files.others}


def better_text(files: Files) -> list[str]:
    """For each data set, in words: what was chosen, what it reaches, what it lacks and why."""
    texts = []
    table = better(files)
    for dataset, record in _records(files).items():
        baseline, times = TARGETS[dataset]
        weights = next(run["weights"] for run in record["runs"] if run["name"] == WITH)
        counted = ", ".join(f"{name} {w:g}" for name, w in weights.items() if w)
        mine = table[(table["data"] == NAMES[dataset]) & (table["row"] == LABELS[WITH])]
        mine = mine[mine["targets"] == "all"]
        gap = (mine["target"] - mine["ours"]).tolist()
        missed = [
            f"missed at R@{k} by {points:.1f}"
            if points >= 0
            else f"passed at R@{k} by {-points:.1f}"
            for k, points in zip(CUTS, gap, strict=True)
        ]
        aim = "above" if times == 1 else f"{times:g} times"
        texts.append(
            f"**{NAMES[dataset]}**: chosen on the development part: `{record['model']}`, weights "
            f"{counted}. Its target, {aim} *{baseline}* at every k, is {', '.join(missed)} "
            f"points. Paired differences to that baseline: {_paired(record, baseline)}; to the "
            f"same counts without PECRS, with weights of their own: {_paired(record, COUNTS)} "
            f"(n = {record['n']:,}, one training)."
        )
        short = [
            k for k, row in zip(CUTS, mine.itertuples(), strict=True) if row.ours <= row.target
        ]
        texts += [_why(record, baseline, short)] if short else []
    return texts


def _paired(record: Record, against: str) -> str:
    return ", ".join(
        f"R@{p['k']} {p['difference']:+.1f} [{p['low']:+.1f}, {p['high']:+.1f}]"
        for p in record["paired"]
        if (p["system"], p["against"], p["targets"]) == (WITH, against, "all")
    )


def _why(record: Record, baseline: str, short: Sequence[int]) -> str:
    """Where the missing points are: among targets named before or new ones, and what any weights
    could do.
    """
    printed = {(row["system"], row["targets"]): row for row in record["rows"]}

    def shares(system: str, k: int) -> tuple[float, float]:
        """Recall on targets named before, and on novel ones."""
        every, novel = printed[system, "all"], printed[system, "novel"]
        hits = [row["n"] * row[f"R@{k}"]["value"] for row in (every, novel)]
        return (hits[0] - hits[1]) / max(every["n"] - novel["n"], 1), novel[f"R@{k}"]["value"]

    novel = printed[WITH, "novel"]["n"]
    parts = []
    for k in short:
        ours, theirs = shares(WITH, k), shares(baseline, k)
        alone = printed[f"for R@{k}", "all"][f"R@{k}"]["value"]
        parts.append(
            f"at R@{k} {ours[0]:.1f} % of the {record['n'] - novel:,} targets named before (the "
            f"baseline {theirs[0]:.1f} %) and {ours[1]:.1f} % of the {novel:,} novel ones "
            f"({theirs[1]:.1f} %); with weights chosen for this k alone {alone:.1f} % of all"
        )
    return f"Where it falls short: {'; '.join(parts)}."


def better_table(files: Files) -> pd.DataFrame:
    """The numbers of `better` as text, a column per k; empty without files."""
    table = better(files)
    if table.empty:
        return table
    said = [f"{r.ours:.1f} [{r.low:.1f}, {r.high:.1f}]" for r in table.itertuples()]
    keys = ["data", "row", "targets", "n"]
    return pd.DataFrame(
        dict(zip(keys, key, strict=True)) | dict(zip(of["metric"], of["said"], strict=True))
        for key, of in table.assign(said=said).groupby(keys, sort=False)
    )
