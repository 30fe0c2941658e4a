"""What an ablation shows: where a difference between runs comes from, and how sure it is.

Comes after `tables`, whose tables say how large the differences are; beside `claims`. All
tables are in the columns of `evidence`, have a row for every ablation, also without a run, and are
made of files alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from pecrs_lib.reproduction.evidence import (
    Floats,
    Record,
    Results,
    Z,
    cell,
    gain,
    paper_table,
    rank_array,
    ranks_of,
)
from pecrs_lib.reproduction.runs import ABLATIONS, AS_IN_PAPER, MAIN

ROWS = (MAIN, *ABLATIONS, *AS_IN_PAPER)
Z_POWER = 0.84  # quantile of the normal distribution: 80 %
PAIRED, SEPARATE = "the same points", "as if on other points"


def differences(results: Results, k: int = 50) -> pd.DataFrame:
    """Recall@k of a variant minus that of what it is compared with, in points.

    Two rows each: ``way`` is `PAIRED`, the interval of `evidence.gain`, or `SEPARATE`, the one that
    two independent test sets of this size would give.
    """
    rows: list[Any] = []
    for variant in ROWS[1:]:
        of, main = ([ranks_of(r) for r in runs] for runs in results.paired(variant))
        if not of:
            empty = cell(variant, f"R@{k}")
            rows += [empty | {"way": way} for way in (PAIRED, SEPARATE)]
            continue
        found = gain(of, main, k) | {"row": variant}
        each = [cell("", "", of[0].dialogue, [p.rank <= k for p in side]) for side in (of, main)]
        half = float(np.hypot(*((c["high"] - c["low"]) / 2 for c in each)))
        rows.append(found | {"way": PAIRED})
        bounds = {"low": found["ours"] - half, "high": found["ours"] + half}
        rows.append(found | bounds | {"way": SEPARATE})
    return pd.DataFrame(rows)


def stages(results: Results, k: int = 50) -> pd.DataFrame:
    """Recall@k by ``stage``: as retrieved, and after re-ranking."""
    names = {"retrieved": "retrieval_rank", "re-ranked": "rank"}
    return _recall(results, k, "stage", lambda points: {s: points[n] for s, n in names.items()})


def kinds(results: Results, k: int = 50) -> pd.DataFrame:
    """Recall@k by ``kind`` of the true film: named before in the dialogue; else popular, among the
    k most recommended of the training part; else another. ``label`` says n, too.
    """
    points = results.data["points"]
    novel = np.array(points["novel"], dtype=bool)
    popular = rank_array(results.data["baselines"]["Popularity"]["rank"]) <= k
    masks = {"named before": ~novel, "popular": novel & popular, "other": novel & ~popular}
    tables = [
        _recall(results, k, "kind", lambda p, name=name: {name: p["rank"]}, mask)
        for name, mask in masks.items()
    ]
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    labels = {name: f"R@{k} (%), {name}, n = {n}" for name, n in counts.items()}
    table = pd.concat(tables, ignore_index=True)
    return table.assign(label=table["kind"].map(labels))


def _recall(
    results: Results, k: int, column: str, ranks: Any, mask: Floats | None = None
) -> pd.DataFrame:
    """A row per variant and entry of `ranks`, which takes the points of a run."""
    dialogue = np.array(results.data["points"]["dialogue"])
    inside = np.ones(len(dialogue), dtype=bool) if mask is None else mask
    rows: list[Any] = []
    for variant in ROWS:
        runs = results.runs.get(variant, ())
        found = [ranks(run["points"]) for run in runs]
        for name in ranks(dict.fromkeys(("rank", "retrieval_rank"), ())):
            hits = [(rank_array(of[name]) <= k)[inside] for of in found]
            rows.append(cell(variant, f"R@{k}", dialogue[inside], hits, **{column: name}))
    return pd.DataFrame(rows)


def shuffled_recall(run: Record, k: int = 50) -> float:
    """Recall@k (%) if re-ranking put the M candidates of a run into a random order: expected."""
    m = run["config"]["candidates"]
    within = rank_array(run["points"]["retrieval_rank"]) <= m
    return float(100 * within.mean() * min(k / m, 1.0))


def warm_starts(results: Results) -> pd.DataFrame:
    """The warm start of every variant's first seed: its epochs, its first and last loss in nats per
    point, and whether all losses are the main run's to the last digit. Then what is taken away was
    not trained there. Empty where there is no run.
    """
    rows: dict[str, dict[str, Any]] = {}
    for variant in ROWS:
        rows[variant] = dict.fromkeys(("epochs", "first loss", "last loss", "as the main run"), "")
        for run in results.runs.get(variant, ())[:1]:
            losses = list(run["warm_start"])
            rows[variant]["epochs"] = len(losses)
            if losses:
                same = [list(r["warm_start"]) for r in results.main if r["seed"] == run["seed"]]
                told = {"first loss": losses[0], "last loss": losses[-1]}
                rows[variant] |= told | {"as the main run": "yes" if losses in same else "no"}
    return pd.DataFrame(rows).T


def seeds_of(results: Results) -> pd.DataFrame:
    """Which seeds of every variant there are."""
    every = [*ROWS, *(v for v in results.runs if v not in ROWS)]
    seeds = {v: ", ".join(str(r["seed"]) for r in results.runs.get(v, ())) for v in every}
    return pd.DataFrame({"seeds": {v: of or "no run yet" for v, of in seeds.items()}})


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """Seconds per batch as a share of the full model's, ``by`` the paper and by us.

    Args:
        table: of `tables.table_5`.

    Returns:
        ``low`` and ``high`` are the shares of the slowest and the quickest seed of the full model:
        how far the clock can be trusted, and no 95 % interval.
    """
    rows = table[table["metric"] == "seconds per batch"].to_dict("records")
    full = next(row for row in rows if row["row"] == MAIN)
    slow, quick = (f(full["seeds"]) if full["seeds"] else np.nan for f in (max, min))
    made: list[Any] = []
    for row in rows:
        known = {"row": row["row"], "metric": "seconds per batch / those of the full model"}
        paper = {"ours": row["paper"] / full["paper"], "low": np.nan, "high": np.nan}
        ours = {
            k: row["ours"] / by for k, by in zip(paper, (full["ours"], slow, quick), strict=True)
        }
        made += [known | {"by": "the paper"} | paper, known | {"by": "ours"} | ours]
    return pd.DataFrame(made)


# -- how much data a difference needs -------------------------------------------------------------


def retrained(results: Results, k: int = 50) -> pd.DataFrame:
    """Recall@k of one seed of the main run minus another's: nothing was taken away.

    A row per pair of seeds; none with fewer than two.
    """
    pairs = combinations(results.main, 2)
    rows = [
        gain([ranks_of(b)], [ranks_of(a)], k) | {"row": f"seed {b['seed']} - seed {a['seed']}"}
        for a, b in pairs
    ]
    return pd.DataFrame(rows, columns=["row", "metric", "ours", "low", "high", "n"])


def points_needed(difference: float, low: float, high: float, n: int) -> float:
    """Test points with which a difference is told from zero four times in five.

    A difference of ``Z + Z_POWER`` standard errors has an interval beyond zero with
    probability 80 %, and the standard error falls with the root of the number of points (normal
    approximation; Cohen 1988, "Statistical Power Analysis", ch. 2). Per point the variance is that
    of retraining, and δ - δ², the least that hits which change by δ on average can have.

    Args:
        difference: in points; its sign does not matter.
        low, high: 95 % interval of a difference between two seeds, measured on `n` points.

    Raises:
        ValueError: a difference of zero, which no data tell from zero.
    """
    if difference == 0:
        raise ValueError("no number of points tells a difference of 0 from zero")
    delta = abs(difference) / 100
    error = (high - low) / 100 / (2 * Z)
    variance = n * error**2 + delta - delta**2
    return ((Z + Z_POWER) / delta) ** 2 * variance


def points_of_paper(results: Results, k: int = 50) -> pd.DataFrame:
    """How many test points the differences of the paper's Table 5 need.

    Taken over the pairs of `retrained`: ``ours`` is the mean, ``low`` and ``high`` the pairs that
    differ least and most, which is no 95 % interval. NaN with fewer than two seeds.
    """
    printed = paper_table(5).set_index("model")[f"R@{k}"]
    pairs = retrained(results, k).to_dict("records")
    rows = []
    for variant in ABLATIONS:
        claimed = float(printed[variant] - printed["PECRS-small"])
        needed = [points_needed(claimed, p["low"], p["high"], p["n"]) for p in pairs] or [np.nan]
        rows.append({
            "row": variant, "paper difference": claimed, "ours": float(np.mean(needed)),
            "low": min(needed), "high": max(needed),
        })  # fmt: skip
    return pd.DataFrame(rows)


def smallest_told(values: Sequence[float], seeds: Sequence[int]) -> pd.DataFrame:
    """The smallest difference that S seeds each tell from retraining, on one fixed test set.

    Standard error of a difference of two means over S seeds: s·√(2/S), with s the standard
    deviation over seeds. From two or three values s is a rough guess: ``low`` and ``high`` follow
    its 95 % interval (chi-square, drawn).

    Args:
        values: a metric of every seed of one variant.
        seeds: S.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"a spread over seeds needs two of them, got {len(values)}")
    free = len(values) - 1
    drawn = np.random.default_rng(0).chisquare(free, 200_000)
    low, high = np.sqrt(free / np.quantile(drawn, (0.975, 0.025)))
    told = [(Z + Z_POWER) * float(np.std(values, ddof=1)) * float(np.sqrt(2 / s)) for s in seeds]
    rows = {"told": told, "low": [low * x for x in told], "high": [high * x for x in told]}
    return pd.DataFrame(rows, index=pd.Index(seeds, name="seeds"))
