"""Numbers from the files of runs, how sure they are, and whether a claim of the paper holds.

Comes after `runs`, before `tables`, which puts them there. A number is a dict: ``row``
and ``metric`` say which, ``paper`` is the printed one, ``ours`` the mean over the seeds, ``low``
and ``high`` its 95 % interval (bootstrap over dialogues of that mean), ``n`` the points it is taken
over, ``seeds`` the number of each seed. Unique and Dist@n count distinct things, which resampling
thins out: they have no interval. Where all points are equal resampling has no spread, and the
interval is what n equal points cannot exclude (`metrics.rule_of_three`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pecrs_lib.data import DataError, bundled
from pecrs_lib.evaluation import Predictions, Targets
from pecrs_lib.metrics import bootstrap_means, rule_of_three, unique_items
from pecrs_lib.reproduction.runs import MAIN, REFERENCE

Record = Mapping[str, Any]
Floats = NDArray[np.float64]
HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told with this much data"
Z = 1.96  # quantile of the normal distribution: 95 %, two-sided


@dataclass(frozen=True)
class Results:
    """The files of one data set, preset and backbone.

    Attributes:
        data: the file of the data set: counts, genres, baselines.
        runs: variant -> its runs, by seed.
    """

    dataset: str
    data: Record
    runs: Mapping[str, Sequence[Record]]

    @classmethod
    def of(cls, files: Mapping[str, Record], dataset: str, preset: str, backbone: str) -> Results:
        """Choose among the files of `runs.read_runs`.

        Raises:
            DataError: the file of the data is missing, or runs were measured on other data.
        """
        if f"{dataset}-data" not in files:
            raise DataError(f"no {dataset}-data.json among the runs; `pecrs reproduce` writes it")
        runs: dict[str, list[Record]] = {}
        wanted = {"dataset": dataset, "preset": preset, "backbone": backbone}
        data = files[f"{dataset}-data"]
        for name, record in files.items():
            if all(record.get(k) == v for k, v in wanted.items()):
                if record["points"]["item"] != data["points"]["item"]:
                    raise DataError(
                        f"{name} was measured on other data than {dataset}-data; "
                        "keep runs on different data in different folders"
                    )
                runs.setdefault(record["variant"], []).append(record)
        by_seed = {name: sorted(of, key=lambda r: r["seed"]) for name, of in runs.items()}
        return cls(dataset, data, by_seed)

    @property
    def main(self) -> Sequence[Record]:
        return self.runs.get(MAIN, ())

    @property
    def model_of_paper(self) -> str:
        """The model of the paper that ours stands beside."""
        medium = any("medium" in run["backbone"] for of in self.runs.values() for run in of)
        return "PECRS-medium" if medium else "PECRS-small"

    def paired(self, variant: str) -> tuple[Sequence[Record], Sequence[Record]]:
        """Runs of a variant and those it is compared with, of the seeds that both have."""
        warm = any(run["config"]["warm_start"] for run in self.main)
        reference = REFERENCE.get(variant, MAIN) if warm else MAIN
        of, main = self.runs.get(variant, ()), self.runs.get(reference, ())
        both = {r["seed"] for r in of} & {r["seed"] for r in main}
        return [r for r in of if r["seed"] in both], [r for r in main if r["seed"] in both]


def paper_table(number: int | str) -> pd.DataFrame:
    """A table as printed in the paper, from `data/paper/`."""
    return pd.read_csv(bundled("paper") / f"table_{number}.csv")


def rank_array(ranks: Sequence[int | None]) -> Floats:
    """Ranks of a file, inf for a target outside the catalogue."""
    return np.array([np.inf if r is None else r for r in ranks], dtype=float)


def predictions(points: Record, rank: Sequence[int | None], top1: Any, name: str) -> Predictions:
    """What a file says of one system, as everything in `evaluation` takes it."""
    return Predictions(
        name,
        np.array(points["dialogue"], dtype=np.int64),
        np.array(points["turn"], dtype=np.int64),
        np.array(points["item"], dtype=np.str_),
        np.array(points["novel"], dtype=bool),
        rank_array(rank),
        np.array(top1, dtype=np.int64),
    )


def ranks_of(run: Record, name: str = "PECRS") -> Predictions:
    """The ranks of a run after re-ranking."""
    return predictions(run["points"], run["points"]["rank"], run["points"]["top1"], name)


# -- a number and how sure it is ------------------------------------------------------------------


def cell(
    row: str,
    metric: str,
    dialogue: Any = (),
    columns: Sequence[Any] = (),
    statistic: Callable[[Floats], Floats] | None = None,
    *,
    between: tuple[float, float] | None = (0, 1),
    paper: float = np.nan,
    samples: int = 2000,
    **more: Any,
) -> dict[str, Any]:
    """One row of a table.

    Args:
        dialogue: (P,) of every point, the unit of the bootstrap.
        columns: for each seed (P, K), or (P,), what is averaged over points.
        statistic: means (…, K) -> (…,) the number; None: percent.
        between: what percent is taken of lies between these; for the rule of three, where all
            points are equal. None: points that are equal here are equal everywhere.
        more: further entries.
    """
    known = {"row": row, "metric": metric, "paper": paper}
    if not len(columns) or not len(dialogue):
        return known | {"ours": np.nan, "low": np.nan, "high": np.nan, "n": 0, "seeds": ()} | more
    per_seed = [np.asarray(c, dtype=float).reshape(len(dialogue), -1) for c in columns]
    mean = np.mean(per_seed, axis=0)  # (P, K)
    drawn = bootstrap_means(np.asarray(dialogue), mean, samples, seed=0)  # (samples, K)
    of = statistic or (lambda means: 100 * means[..., 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = np.nanquantile(of(drawn), (0.025, 0.975))
        each = tuple(float(of(c.mean(0))) for c in per_seed)
        ours = float(of(mean.mean(0)))
    if statistic is None and between and np.ptp([c[:, 0] for c in per_seed]) == 0:
        low, high = rule_of_three(ours, len(dialogue), 100 * between[0], 100 * between[1])
    found = {"ours": ours, "low": float(low), "high": float(high), "n": len(dialogue)}
    return known | found | {"seeds": each} | more


def count(row: str, metric: str, values: Sequence[float], n: int, **more: Any) -> dict[str, Any]:
    """A row of numbers without an interval, one per seed."""
    ours = float(np.mean(values)) if values else np.nan
    known = {"row": row, "metric": metric, "paper": np.nan, "ours": ours}
    return known | {"low": np.nan, "high": np.nan, "n": n, "seeds": tuple(values)} | more


def recall_rows(
    row: str, systems: Sequence[Predictions], targets: Targets, paper: Record, k: Sequence[int]
) -> list[dict[str, Any]]:
    """Recall@k and Unique of one system, trained with one or several seeds.

    Args:
        paper: metric -> the paper's number, where it has one.
    """
    chosen = [p.of(targets) for p in systems]
    dialogue = chosen[0].dialogue if chosen else np.empty(0, np.int64)
    rows = [
        cell(row, f"R@{cut}", dialogue, [p.rank <= cut for p in chosen], targets=targets,
             paper=paper.get(f"R@{cut}", np.nan))
        for cut in k
    ]  # fmt: skip
    distinct = [float(unique_items(p.top1)) for p in chosen]
    more = {"targets": targets, "paper": paper.get("Unique", np.nan)}
    return [*rows, count(row, "Unique", distinct, len(dialogue), **more)]


def perplexity_row(row: str, runs: Sequence[Record], paper: float = np.nan) -> dict[str, Any]:
    """exp(sum of NLL / sum of tokens) of the true responses; n counts responses."""
    dialogue = runs[0]["responses"]["dialogue"] if runs else ()
    both = [np.column_stack([r["responses"]["nll"], r["responses"]["tokens"]]) for r in runs]

    def statistic(means: Floats) -> Floats:
        return np.exp(means[..., 0] / means[..., 1])

    return cell(row, "perplexity", dialogue, both, statistic, paper=paper)


def reply_rows(row: str, runs: Sequence[Record], paper: Record) -> list[dict[str, Any]]:
    """ROUGE, F-1 and Dist of generated replies; n counts replies."""
    told = [r["replies"] for r in runs if r["replies"]]
    dialogue = told[0]["dialogue"] if told else ()

    def f1(means: Floats) -> Floats:  # of true positives, said and due
        return 200 * means[..., 0] / (means[..., 1] + means[..., 2])

    def asked(t: Record) -> Floats:
        says, due = np.array(t["says"]), np.array(t["due"])
        return np.column_stack([says & due, says, due])

    rows = [
        cell(row, f"ROUGE-{k}", dialogue, [t[f"rouge{k}"] for t in told],
             lambda means: means[..., 0], paper=paper.get(f"ROUGE-{k}", np.nan))
        for k in (1, 2)
    ]  # fmt: skip
    rows.append(
        cell(row, "F-1", dialogue, [asked(t) for t in told], f1, paper=paper.get("F-1", np.nan))
    )
    dist = [
        count(row, f"Dist@{n}", [t["metrics"][f"Dist@{n} per sentence"] for t in told],
              len(dialogue), paper=paper.get(f"Dist@{n}", np.nan))
        for n in (2, 3, 4)
    ]  # fmt: skip
    return rows + dist


def gain(
    a: Sequence[Predictions], b: Sequence[Predictions], k: int, targets: Targets = "all"
) -> dict[str, Any]:
    """Recall@k of `a` minus that of `b` in points, seeds paired, with the interval of a `cell`.

    Where ranks differ but none crosses k, that is ±3/n; where all ranks are the same, zero.

    Raises:
        ValueError: not the same points, or not as many seeds.
    """
    pairs = [(x.of(targets), y.of(targets)) for x, y in zip(a, b, strict=True)]
    for x, y in pairs:
        if not x.same_points(y):
            raise ValueError(f"{x.name!r} and {y.name!r} were not measured on the same points")
    hits = [(x.rank <= k).astype(float) - (y.rank <= k) for x, y in pairs]
    moved = any(not np.array_equal(x.rank, y.rank) for x, y in pairs)
    name = f"{a[0].name} - {b[0].name}"
    between = (-1, 1) if moved else None
    return cell(name, f"R@{k}", pairs[0][0].dialogue, hits, between=between)


def half_width(p: float, q: float, n: int, rho: float = 0.0) -> float:
    """Half the 95 % interval of p - q, shares of the same n points, in their unit (percent).

    Var = (p(1 - p) + q(1 - q) - 2ρ √(p(1 - p) q(1 - q))) / n, ρ the correlation of the hits; never
    below the variance of systems of which one hits wherever the other does.
    """
    a, b = p / 100, q / 100
    spread = a * (1 - a), b * (1 - b)
    variance = sum(spread) - 2 * rho * np.sqrt(spread[0] * spread[1])
    least = abs(a - b) - (a - b) ** 2
    return 100 * Z * float(np.sqrt(max(variance, least) / n))


def verdict(paper: float, ours: Record, *, sized: bool = True) -> str:
    """Does a difference that the paper reports hold here?

    It holds if our whole 95 % interval lies on the paper's side of zero, however large. It does
    not if the whole interval lies on the other side, or below half the size that the paper
    reports: then the data would have shown it. Otherwise it cannot be told. The interval is over
    dialogues; with one seed it says nothing about how another seed would come out.

    Args:
        paper: the paper's difference; its sign is what it claims.
        ours: from `gain`.
        sized: False where the paper gives a direction but no number.

    Raises:
        ValueError: no difference, which claims nothing.
    """
    if not np.isfinite(paper) or paper == 0:
        raise ValueError(f"a difference of {paper} claims nothing that could hold")
    low, high = sorted(np.sign(paper) * np.array([ours["low"], ours["high"]]))
    if low > 0:
        return HOLDS
    return FAILS if high < (abs(paper) / 2 if sized else 0) else OPEN
