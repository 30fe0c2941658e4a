"""The tables of the report: verdicts, their evidence, baselines, settings, runs.

Comes after `claims`, before `report`, which puts words around them. Files in, DataFrames out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pecrs_lib.reproduction.beyond import POINTS
from pecrs_lib.reproduction.claims import Claim
from pecrs_lib.reproduction.evidence import OPEN, Record, Results, gain, half_width, paper_table
from pecrs_lib.reproduction.findings import VERDICTS, Files, Finding
from pecrs_lib.reproduction.layout import points
from pecrs_lib.reproduction.runs import NEEDS, PRESETS, needed
from pecrs_lib.reproduction.tables import CUTS, NAMES, systems

Found = Mapping[Claim, Mapping[str, Finding | None]]  # of `claims.findings`
FALSE = 0.025  # share of 95 % intervals wholly on one side of zero though nothing differs
ELSEWHERE = {
    "4": "pecrs rate",
    "7": "python -m experiments.zero_shot --data FOLDER",
    "8": "python -m experiments.decoding",
}
# The claim -> the table whose runs it needs, where that is not the one it is reported with.
NEEDED = {"method": "deviations", "8-misleads": "5", "m-trained": "2"}


def verdicts(found: Found) -> pd.DataFrame:
    """A row per claim: id, where, says, and the verdict on each data set ("" if not about it)."""
    return pd.DataFrame(
        {"id": claim.id, "where": claim.where, "the paper says": claim.says}
        | {name: f.verdict if f else "" for name, f in each.items()}
        for claim, each in found.items()
    )


def counts(found: Found) -> pd.DataFrame:
    """How many claims have which verdict, a column per data set."""
    columns: dict[str, list[str]] = {}
    for each in found.values():
        for name, f in each.items():
            columns.setdefault(name, []).extend([f.verdict] if f else [])
    table = pd.DataFrame({n: pd.Series(v).value_counts() for n, v in columns.items()})
    return table.reindex(list(VERDICTS)).fillna(0).astype(int).rename_axis("verdict")


def by_chance(found: Found) -> dict[str, float]:
    """Verdicts that rest on an interval, and how many of them to expect wrong if nothing differs.

    "at least one" is the chance of one such verdict, in percent, if they were independent; they
    share points and main runs, so wrong ones come together.
    """
    n = sum(f is not None and f.has_interval for each in found.values() for f in each.values())
    return {"n": n, "expected": FALSE * n, "at least one": 100 * (1 - (1 - FALSE) ** n)}


def one_seed(found: Found) -> list[str]:
    """Claims (with data set) whose verdict rests on a single run."""
    return [
        f"{claim.id} on {name}"
        for claim, each in found.items()
        for name, f in each.items()
        if f is not None and f.has_interval and f.seeds == 1
    ]


def evidence_rows(found: Found, table: str) -> pd.DataFrame:
    """The numbers behind the verdicts of one place of the report, a row per claim and data set."""
    rows = [
        {
            "claim": claim.id,
            "data": name,
            "unit": claim.unit,
            "the paper": number(f.paper, claim),
            "ours [95 %]": interval(vars(f), claim),
            "novel targets": interval(f.novel, claim) if f.novel else "",
            "n": f"{f.n:,}" if f.n else "",
            "seeds": f.seeds or "",
            "verdict": f.verdict,
            "files": ", ".join(f.files),
            "note": f.note,
        }
        for claim, each in found.items()
        for name, f in each.items()
        if claim.table == table and f is not None and (f.files or f.verdict == OPEN)
    ]
    return pd.DataFrame(rows)


def number(value: float, claim: Claim) -> str:
    """A number of a claim: signed where its unit is a difference."""
    if math.isnan(value):
        return ""
    if claim.unit.endswith("points)"):
        return f"{value:+.1f}"
    return f"{value:.1f}" if claim.unit.endswith("(%)") else f"{value:.2f}"


def interval(found: Mapping[str, Any], claim: Claim) -> str:
    text = number(found["ours"], claim)
    if text and not math.isnan(found["low"]):
        text += f" [{number(found['low'], claim)}, {number(found['high'], claim)}]"
    return text


def against_baselines(results: Results, cuts: Sequence[int] = CUTS) -> pd.DataFrame:
    """Recall of PECRS less that of every simple baseline, all targets and novel ones, in points."""
    if not results.main or not results.data.get("baselines"):
        return pd.DataFrame()
    *baselines, (_, own) = systems(results).items()
    rows = []
    for system, [other] in baselines:
        for targets in ("all", "novel"):
            row: dict[str, Any] = {"PECRS less": system, "targets": targets}
            for k in cuts:
                found = gain(own, [other] * len(own), k, targets)
                row["n"] = found["n"]
                row[f"R@{k}"] = points(found["ours"], found["low"], found["high"])
            rows.append(row)
    return pd.DataFrame(rows)


def printed_noise(results: Results, cuts: Sequence[int] = CUTS) -> pd.DataFrame:
    """The paper's own differences in Table 2, and what chance alone makes of as many points.

    ``noise`` is the half width of a 95 % interval for a difference of two shares, taken as
    independent; the paper prints no interval, and points of a dialogue or of two systems are
    related, so it is rough.
    """
    if not results.data:
        return pd.DataFrame()
    n = POINTS.get(results.dataset, len(results.data["points"]["item"]))
    paper = paper_table(2).set_index("model")
    rows = []
    for model in ("PECRS-small", "PECRS-medium"):
        for other in paper.index.drop(["PECRS-small", "PECRS-medium"]):
            for k in cuts:
                column = f"{NAMES[results.dataset]} R@{k}"
                a, b = (paper.get(column, {}).get(name, math.nan) for name in (model, other))
                if not math.isnan(a - b):
                    row = {"PECRS": model, "less": other, "R@": k, "n": n}
                    rows.append(row | {"difference": a - b, "noise": half_width(a, b, n)})
    table = pd.DataFrame(rows, columns=["PECRS", "less", "R@", "n", "difference", "noise"])
    return table.assign(larger=table["difference"].abs() > table["noise"])


def settings(results: Results) -> pd.DataFrame:
    """Settings of the main run that are not the paper's."""
    if not results.main:
        return pd.DataFrame()
    paper = PRESETS["paper"][results.dataset].config
    ours = results.main[0]["config"]
    rows = [
        {"setting": name, "the paper": value, "ours": ours[name]}
        for name, value in paper.to_dict().items()
        if name in ours and ours[name] != value and name != "seed"
    ]
    return pd.DataFrame(rows)


def command(claim: Claim, results: Results) -> str:
    """What makes the files that a claim is judged by."""
    table = NEEDED.get(claim.id, NEEDED.get(claim.table, claim.table))
    if table in ELSEWHERE:
        return ELSEWHERE[table]
    return f"pecrs reproduce {table} {_options(results)}"


def _options(results: Results) -> str:
    run = results.main[0] if results.main else {"preset": "cpu", "backbone": ""}
    backbone = f" --backbone {run['backbone']}" if run["backbone"] else ""
    return f"--dataset {results.dataset} --preset {run['preset']}{backbone}"


def runs_table(files: Files) -> pd.DataFrame:
    """Every run the tables need: the seeds there are, minutes a run, and the command for it."""
    rows = []
    for name, results in files.columns.items():
        preset = results.main[0]["preset"] if results.main else "cpu"
        for variant in needed(tuple(NEEDS), preset, results.dataset):
            of = results.runs.get(variant, ())
            first = next(t for t, need in NEEDS.items() if _needs(need, variant))
            rows.append(
                {
                    "data": name,
                    "run": variant,
                    "seeds": ", ".join(str(run["seed"]) for run in of) or "not run",
                    "minutes": _minutes(of),
                    "command": f"pecrs reproduce {first} {_options(results)}",
                }
            )
    return pd.DataFrame(rows)


def _needs(need: Sequence[str], variant: str) -> bool:
    return any(variant == n or (n.endswith("= ") and variant.startswith(n)) for n in need)


def _minutes(runs: Sequence[Record]) -> str:
    spent = [sum(run["seconds"].values()) / 60 for run in runs]
    return f"{sum(spent) / len(spent):.0f}" if spent else ""
