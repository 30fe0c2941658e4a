"""Tables and figures of POD's chapter, from its result file and the published numbers.

The end of `pod`; with a small widget: K and template, and what they cost and give.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pecrs_lib.data import bundled
from pecrs_lib.figures import MARKERS, axes_of
from pecrs_lib.metrics import bootstrap_means
from pecrs_lib.next_item import gains, with_interval
from pecrs_lib.widgets import Panel, slider

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


def leak_figure(record: Record) -> Figure:
    """NDCG@10 of the untrained rule beside POD's published one; bars: 95 % over users."""
    printed = published().query("task == 'sequential' and metric == 'NDCG@10'")
    value = printed.set_index("dataset")["value"]
    ways = ("largest + 1, leaky ids", "largest + 1, random ids")
    figure, ax = axes_of()
    place = np.arange(len(record["leak"]))
    for k, (way, colour, hatch) in enumerate(zip(ways, ("0.45", "0.9"), ("", "//"), strict=True)):
        found = [of["rules"][way]["NDCG@10"] for of in record["leak"].values()]
        height = np.array([cell["value"] for cell in found])
        spread = np.array([[c["value"] - c["low"], c["high"] - c["value"]] for c in found]).T
        ax.bar(place + 0.27 * k, height, 0.25, yerr=spread.clip(0), capsize=3, color=colour,
               edgecolor="black", hatch=hatch, label=f"rule: {way}")  # fmt: skip
    pod = [value[name] for name in record["leak"]]
    ax.bar(place + 0.54, pod, 0.25, color="white", edgecolor="black", hatch="..",
           label="POD, published")  # fmt: skip
    ax.set_xticks(place + 0.27, list(record["leak"]))
    ax.set_ylabel("NDCG@10, sequential")
    ax.margins(y=0.35)
    ax.legend(fontsize=8, loc="upper left")
    return figure


def systems_table(baselines: Sequence[Record], runs: Sequence[Record]) -> pd.DataFrame:
    """Every system's HR and NDCG on the test items, seen items kept and removed.

    Args:
        baselines: ``system``, ``kept`` and ``removed``, a row per seed.
        runs: of POD, with the same for every form.
    """
    rows: dict[str, list[Record]] = {}
    for row in baselines:
        rows.setdefault(row["system"], []).append(row)
    for run in runs:
        for form in FORMS:
            name = f"POD, K = {run['config']['prompts']}, {form}"
            rows.setdefault(name, []).append(run[form])
    table = {
        (name, how): {"seeds": len(of), **{m: shown(c) for m, c in cells(column(of, how)).items()}}
        for name, of in rows.items()
        for how in ("kept", "removed")
    }
    return pd.DataFrame(table).T.rename_axis(["system", "seen items"])


def column(rows: Sequence[Record], name: str) -> list[Any]:
    return [row[name] for row in rows]


def minireel_table(record: Record) -> pd.DataFrame:
    """`systems_table` of MiniReel."""
    return systems_table(record["baselines"]["rows"], grid_runs(record))


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


def grid_figure(table: pd.DataFrame, K: int | None = None, form: str = "") -> Figure:
    """Tokens against the metric for every K and form; a line at the chosen one."""
    metric = table.columns[list(table.columns).index("low") - 1]
    known = table.dropna()
    figure, ax = axes_of()
    for name, colour, fill in zip(FORMS, ("0.1", "0.5"), ("0.1", "white"), strict=True):
        for marker, (_, row) in zip(MARKERS, known[known.form == name].iterrows(), strict=False):
            spread = [[row[metric] - row.low], [row.high - row[metric]]]
            ax.errorbar(row.tokens, row[metric], yerr=spread, fmt=marker, color=colour, mfc=fill,
                        capsize=3, ms=8, label=f"K = {row.K}, {name}")  # fmt: skip
    for _, row in table[(table.K == K) & (table.form == form)].iterrows():
        ax.axvline(row.tokens, color="black", linestyle=":")
    ax.set(xlabel="tokens of a sequential prompt, K included", ylabel=f"{metric}, seen removed")
    ax.set(xlim=(0, 1.15 * table.tokens.max()), ylim=(0, 1.6 * known.high.max()))
    ax.legend(fontsize=8, ncols=2)
    return figure


def grid_widget(record: Record) -> Panel:
    """Choose K and whether the template stays; see tokens, CPU time and quality."""
    table = grid(record)

    def draw(K: int, form: str) -> tuple[Figure, str]:
        row = table[(table.K == K) & (table.form == form)]
        return grid_figure(table, K, form), row.round(4).to_html(index=False)

    K = sorted(table.K.unique().tolist())
    return Panel(
        draw, "tokens against NDCG, a line at the chosen setting",
        K=slider("K", K, K[-1]), form=ipw.Dropdown(options=FORMS, description="prompt"),
    )  # fmt: skip


def paired(record: Record, metric: str = "NDCG@10") -> pd.DataFrame:
    """Ids only minus template on the same checkpoints, seen items removed: difference, interval."""
    groups = {
        ("MiniReel", run["config"]["prompts"]): [
            r for r in grid_runs(record) if r["config"]["prompts"] == run["config"]["prompts"]
        ]
        for run in grid_runs(record)
    } | {("MovieLens-100K", 3): record["movielens"]["runs"]}
    rows = []
    for (name, K), runs in groups.items():
        bare, full = (
            gains(ranks_of([run[form]["removed"] for run in runs]))[metric]
            for form in ("ids only", "template")
        )
        cell = with_interval(bare - full)
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
