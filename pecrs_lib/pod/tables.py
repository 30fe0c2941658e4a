"""Tables of POD's chapter, from its result file and the published numbers.

After `next_item`, before `pictures`. The record is that of `read_record`, written by
`experiments.pod`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pecrs_lib.data import bundled
from pecrs_lib.metrics import bootstrap_means
from pecrs_lib.next_item import gains, with_interval

Record = Mapping[str, Any]
FORMS = ("template", "ids only")


def read_record() -> dict[str, Any]:
    """The chapter's result file, written by `experiments.pod`."""
    return json.loads((bundled("results") / "pod.json").read_text(encoding="utf-8"))


def published() -> pd.DataFrame:
    """What POD's logs report: dataset, task, metric, value."""
    return pd.read_csv(bundled("paper") / "pod.csv")


def shown(cell: Record) -> str:
    """``.0450 [.0424, .0478]``."""
    return f"{cell['value']:.4f} [{cell['low']:.4f}, {cell['high']:.4f}]"


def ranks_of(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """(seeds, U) ranks of a result file, where 0 is not in the list, as `next_item` has them."""
    ranks = np.asarray(rows, dtype=float)
    return np.where(ranks > 0, ranks, np.inf)


def cells(rows: Sequence[Sequence[int]], cuts: Sequence[int] = (1, 5, 10)) -> dict[str, Any]:
    """HR@k and NDCG@k of runs that differ in their seed, with intervals over users."""
    return {name: with_interval(x) for name, x in gains(ranks_of(rows), cuts).items()}


def leak_table(record: Record) -> pd.DataFrame:
    """NDCG@10 and HR@10 of the rules, and POD's published ones below, for every Amazon set."""
    printed = published().query("task == 'sequential'").set_index(["dataset", "metric"])["value"]
    table = {}
    for name, of in record["leak"].items():
        for metric in ("NDCG@10", "HR@10"):
            column = {way: shown(rule[metric]) for way, rule in of["rules"].items()}
            table[name, metric] = column | {"POD, published": f"{printed[name, metric]:.4f}"}
    return pd.DataFrame(table)


def systems_table(baselines: Sequence[Record], runs: Sequence[Record]) -> pd.DataFrame:
    """Every system's HR and NDCG on the test items, seen items kept and removed.

    Args:
        baselines: ``system``, ``kept`` and ``removed``, a row per seed.
        runs: of POD, with ``variant`` and the same for every form.
    """
    rows: dict[str, list[Record]] = {}
    for row in baselines:
        rows.setdefault(row["system"], []).append(row)
    for run in runs:
        for form in FORMS:
            name = f"POD, {run['variant']}, {form}"
            rows.setdefault(name, []).append(run[form])
    table = {
        (name, how): {"seeds": len(of), **shown_cells(column(of, how))}
        for name, of in rows.items()
        for how in ("kept", "removed")
    }
    return pd.DataFrame(table).T.rename_axis(["system", "seen items"])


def shown_cells(rows: Sequence[Sequence[int]], cuts: Sequence[int] = (1, 5, 10)) -> dict[str, str]:
    """`cells` as text."""
    return {metric: shown(cell) for metric, cell in cells(rows, cuts).items()}


def column(rows: Sequence[Record], name: str) -> list[Any]:
    return [row[name] for row in rows]


def by_variant(record: Record) -> dict[str, list[Record]]:
    """Runs by what they are, those that differ in their seed alone together."""
    found: dict[str, list[Record]] = {}
    for run in record["runs"]:
        found.setdefault(run["variant"], []).append(run)
    return found


def minireel_table(record: Record) -> pd.DataFrame:
    """`systems_table` of MiniReel: baselines and the main variant."""
    return systems_table(record["baselines"]["rows"], by_variant(record)["K = 3"])


def variants_table(record: Record) -> pd.DataFrame:
    """Every variant, seen items removed: ids that are clusters, no bare prompts in training, K."""
    return pd.DataFrame(
        {
            (name, form): {
                "seeds": len(runs),
                "tokens": round(float(np.mean([run[form]["tokens"] for run in runs])), 1),
                **shown_cells(column(column(runs, form), "removed"), (10,)),
            }
            for name, runs in by_variant(record).items()
            for form in FORMS
        }
    ).T.rename_axis(["variant", "prompt"])


def top_n_table(record: Record) -> pd.DataFrame:
    """The right one among ten candidates: HR@1 is a tenth and HR@5 a half by chance."""
    rows = {
        "popularity": [record["baselines"]["top-n"]],
        **{f"POD, {name}": column(runs, "top-n") for name, runs in by_variant(record).items()},
    }
    return pd.DataFrame({name: shown_cells(of, (1, 5)) for name, of in rows.items()}).T


def sentences_table(record: Record) -> pd.DataFrame:
    """Quality of explanations in percent, intervals over sentences; how many sentences differ."""
    rows = {(name, ""): of for name, of in record["sentences"].items()} | {
        (f"POD, K = 3, {form}", run["seed"]): run[form]["sentences"]
        for form in FORMS
        for run in by_variant(record)["K = 3"]
    }
    return pd.DataFrame(
        {
            key: {
                name: f"{c['value']:.1f} [{c['low']:.1f}, {c['high']:.1f}]"
                for name, c in of.items()
                if name not in ("distinct", "n")
            }
            | {"distinct": of["distinct"]}
            for key, of in rows.items()
        }
    ).T.rename_axis(["system", "seed"])


def movielens_table(record: Record) -> pd.DataFrame:
    """`systems_table` of MovieLens-100K."""
    of = record["movielens"]
    named = [{"system": name, **ranks} for name, ranks in of["baselines"].items()]
    return systems_table(named, of["runs"])


def grid(record: Record, metric: str = "NDCG@10") -> pd.DataFrame:
    """For every K and form: tokens, CPU time of a step and a prediction, and the metric.

    Time of a prediction and metric are NaN for a K that was not trained.
    """
    steps = pd.DataFrame(record["lengths"]["rows"]).query("task == 'sequential'")
    rows = []
    for K, form, step in steps[["K", "form", "step"]].itertuples(index=False):
        one = grid_runs(record)[0]
        row = {"K": K, "form": form, "seeds": 0, "ms a step": 1000 * step,
               "tokens": one[form]["tokens"] - one["config"]["prompts"] + K}  # fmt: skip
        runs = [run[form] for run in grid_runs(record) if run["config"]["prompts"] == K]
        if runs:
            cell = cells(column(runs, "removed"))[metric]
            seconds = float(np.mean(column(runs, "seconds")))
            row |= {"seeds": len(runs), "ms a prediction": 1000 * seconds, metric: cell["value"]}
            row |= {"low": cell["low"], "high": cell["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def grid_runs(record: Record) -> list[Record]:
    """The runs that differ in K alone."""
    return [run for run in record["runs"] if run["variant"].startswith("K = ")]


def paired(record: Record, metric: str = "NDCG@10") -> pd.DataFrame:
    """Ids only minus template on the same checkpoints, seen items removed: difference, interval."""
    groups = {
        ("MiniReel", run["config"]["prompts"]): [
            r for r in grid_runs(record) if r["config"]["prompts"] == run["config"]["prompts"]
        ]
        for run in grid_runs(record)
    } | {("MovieLens-100K", 3): by_variant(record["movielens"])["K = 3"]}
    rows = []
    for (name, K), runs in groups.items():
        bare, full = (
            gains(ranks_of([run[form]["removed"] for run in runs]))[metric]
            for form in ("ids only", "template")
        )
        cell = with_interval(bare - full, bounds=(-1, 1))
        tokens = {form: np.mean([run[form]["tokens"] for run in runs]) for form in FORMS}
        fewer = 100 * (1 - tokens["ids only"] / tokens["template"])
        row = {"data": name, "K": K, "seeds": len(runs), "fewer tokens (%)": round(fewer, 1)}
        rows.append(row | {f"{metric}, ids only − template": shown(cell)})
    return pd.DataFrame(rows).set_index(["data", "K"])


def context_table(record: Record, cuts: Sequence[int] = (1, 10, 50)) -> pd.DataFrame:
    """PECRS with long and short contexts: tokens, CPU time, recall (%) with intervals."""
    found: dict[tuple[str, str], list[Record]] = {}
    for row in record["context"]["rows"]:
        found.setdefault((row["context"], row["prefix"]), []).append(row)
    dialogue = np.array(record["context"]["dialogue"])
    table = {}
    for key, rows in found.items():
        rank = np.array([row["rank"] for row in rows])
        hit = 100 * (rank[:, :, None] <= np.array(cuts)).mean(0)  # (P, cuts), seeds averaged
        low, high = np.quantile(bootstrap_means(dialogue, hit, 2000, 0), [0.025, 0.975], axis=0)
        table[key] = {
            "seeds": len(rows),
            "tokens": round(float(np.mean([row["tokens"] for row in rows])), 1),
            "ms a dialogue": round(float(np.mean([row["milliseconds"] for row in rows]))),
        } | {
            f"R@{k}": f"{hit[:, i].mean():.1f} [{low[i]:.1f}, {high[i]:.1f}]"
            for i, k in enumerate(cuts)
        }
    return pd.DataFrame(table).T.rename_axis(["context", "in front"])


def context_difference(record: Record, cuts: Sequence[int] = (1, 10, 50)) -> pd.DataFrame:
    """Recall (points) of the short context minus the long one, as shipped, on the same turns."""
    rank = {
        row["context"]: np.array(row["rank"])
        for row in record["context"]["rows"]
        if row["prefix"] == "none"
    }
    dialogue = np.array(record["context"]["dialogue"])
    table = {}
    for k in cuts:
        gain = 100 * ((rank["short"] <= k).astype(float) - (rank["long"] <= k))
        low, high = np.quantile(bootstrap_means(dialogue, gain[:, None], 2000, 0), [0.025, 0.975])
        table[f"R@{k}"] = f"{gain.mean():+.1f} [{low:+.1f}, {high:+.1f}]"
    return pd.DataFrame(table, ["short − long"])
