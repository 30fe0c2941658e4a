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
    return f"{short(cell['value'])} [{short(cell['low'])}, {short(cell['high'])}]"


def short(share: float) -> str:
    """Four decimals, without the zero before them."""
    return f"{share:.4f}".replace("0.", ".", 1)


def ranks_of(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """(seeds, U) ranks of a result file, where 0 is not in the list, as `next_item` has them."""
    ranks = np.asarray(rows, dtype=float)
    return np.where(ranks > 0, ranks, np.inf)


def cells(rows: Sequence[Sequence[int]], cuts: Sequence[int] = (1, 5, 10)) -> dict[str, Any]:
    """HR@k and NDCG@k of runs that differ in their seed, with intervals over users."""
    return {name: with_interval(x) for name, x in gains(ranks_of(rows), cuts).items()}


def by_chance(n: int, k: int = 10) -> dict[str, float]:
    """What a random order of `n` items scores: HR@k and NDCG@k."""
    return {f"HR@{k}": k / n, f"NDCG@{k}": float((1 / np.log2(np.arange(2, k + 2))).sum()) / n}


def leak_table(record: Record) -> pd.DataFrame:
    """NDCG@10 and HR@10 of the rules, and POD's published ones below, for every Amazon set."""
    printed = published().query("task == 'sequential'").set_index(["dataset", "metric"])["value"]
    table = {}
    for name, of in record["leak"].items():
        for metric in ("NDCG@10", "HR@10"):
            column = {way: shown(rule[metric]) for way, rule in of["rules"].items()}
            luck = by_chance(of["items"])[metric]
            table[name, metric] = column | {
                "chance": short(luck),
                "POD, published": short(printed[name, metric]),
            }
    return pd.DataFrame(table)


def systems_table(baselines: Sequence[Record], runs: Sequence[Record]) -> pd.DataFrame:
    """Every system's HR and NDCG on the test items, seen items kept and removed.

    "different": how many items the first ten of all users name, a mean over seeds. The last column
    is a paired difference, with its interval.

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
    return pd.DataFrame(
        {
            (name, how): {
                "seeds": len(of),
                "different": round(float(np.mean([row[how]["different"] for row in of]))),
                **shown_cells(places(of, how)),
                "NDCG@10 − popularity": ""
                if name == "popularity"
                else difference(of, rows["popularity"], how),
            }
            for name, of in rows.items()
            for how in ("kept", "removed")
        }
    ).T.rename_axis(["system", "seen items"])


def shown_cells(rows: Sequence[Sequence[int]], cuts: Sequence[int] = (1, 5, 10)) -> dict[str, str]:
    """`cells` as text."""
    return {metric: shown(cell) for metric, cell in cells(rows, cuts).items()}


def places(rows: Sequence[Record], how: str = "removed") -> list[list[int]]:
    """Ranks of the test items, a row per seed."""
    return [row[how]["rank"] for row in rows]


def column(rows: Sequence[Record], name: str) -> list[Any]:
    return [row[name] for row in rows]


def by_variant(runs: Sequence[Record]) -> dict[str, list[Record]]:
    """Runs by what they are, those that differ in their seed alone together."""
    found: dict[str, list[Record]] = {}
    for run in runs:
        found.setdefault(run["variant"], []).append(run)
    return found


def minireel_table(record: Record) -> pd.DataFrame:
    """`systems_table` of MiniReel: baselines, random ids and clusters."""
    named = by_variant(record["runs"])
    return systems_table(record["baselines"]["rows"], named["K = 3"] + named["clusters"])


def movielens_table(record: Record) -> pd.DataFrame:
    """`systems_table` of MovieLens-100K."""
    of = record["movielens"]
    named = by_variant(of["runs"])
    return systems_table(of["baselines"], named["K = 3"] + named["clusters"])


DATA = {"MiniReel": lambda record: record["runs"],
        "MovieLens-100K": lambda record: record["movielens"]["runs"]}  # fmt: skip


def difference(one: Sequence[Record], other: Sequence[Record], how: str = "removed") -> str:
    """NDCG@10 of rows of `one` minus rows of `other` for the same users, with its interval."""
    ahead, behind = (gains(ranks_of(places(rows, how)))["NDCG@10"] for rows in (one, other))
    return shown(with_interval(ahead.mean(0) - behind.mean(0), bounds=(-1, 1)))


def variants_table(record: Record) -> pd.DataFrame:
    """Every variant on both data sets, ids only: tokens, loss, NDCG@10, and what differs.

    The template's loss of tokens and quality on the same checkpoints, and the difference to the
    same ids without vectors; seen items removed.
    """
    table = {}
    for data, runs_of in DATA.items():
        named = by_variant(runs_of(record))
        for name, runs in named.items():
            form = {form: column(runs, form) for form in FORMS}
            tokens = {form: np.mean(column(rows, "tokens")) for form, rows in form.items()}
            without = named["clusters, K = 0" if name.startswith("clusters") else "K = 0"]
            table[data, name] = {
                "seeds": len(runs),
                "fewer tokens (%)": round(100 * (1 - tokens["ids only"] / tokens["template"]), 1),
                "NDCG@10, ids only": shown(cells(places(form["ids only"]))["NDCG@10"]),
                "ids only − template": difference(form["ids only"], form["template"]),
                "− K = 0, ids only": "" if runs is without else difference(
                    form["ids only"], column(without, "ids only")
                ),
            }  # fmt: skip
    return pd.DataFrame(table).T.rename_axis(["data", "variant"])


def losses_table(record: Record) -> pd.DataFrame:
    """−log p of the test items' tokens with their task's vectors, zeros, and another task's."""
    return pd.DataFrame(
        {
            (data, run["variant"], run["seed"]): run["nll"]
            for data, runs_of in DATA.items()
            for run in runs_of(record)
            if run["config"]["prompts"]
        }
    ).T.rename_axis(["data", "variant", "seed"])


def tuning_table(record: Record) -> pd.DataFrame:
    """The model without vectors, frozen: ids only, with vectors tuned for it, with the template."""
    table = {}
    for data, runs_of in DATA.items():
        runs = by_variant(runs_of(record))["K = 0"]
        bare, tuned, full = (column(runs, x) for x in ("ids only", "prompt tuning", "template"))
        nll = {"ids only": [run["nll"]["own"] for run in runs], "tuned": column(tuned, "nll")}
        for name, rows in {"ids only": bare, "tuned": tuned, "template": full}.items():
            table[data, name] = {
                "seeds": len(rows),
                "−log p": f"{np.mean(nll[name]):.3f}" if name in nll else "",
                **shown_cells(places(rows), (10,)),
                "NDCG@10 − ids only": "" if rows is bare else difference(rows, bare),
            }
    return pd.DataFrame(table).T.rename_axis(["data", "K = 0, frozen"])


def lengths_table(record: Record) -> pd.DataFrame:
    """Tokens and CPU time of forward and backward by task, template against ids only."""
    rows = pd.DataFrame(record["lengths"]["rows"])
    rows["ms"] = [1000 * cell["value"] for cell in rows["step"]]
    table = rows.pivot(index=["task", "K"], columns="form", values=["tokens", "ms"])
    for name in ("tokens", "ms"):
        share = 100 * (1 - table[name, "ids only"] / table[name, "template"])
        table[f"fewer {name} (%)", ""] = share
    return table.round(1)


def padding_table(record: Record) -> pd.DataFrame:
    """Batches of one task against mixed ones, 60 samples a batch: padding and CPU time."""
    rows = pd.DataFrame(record["lengths"]["padding"]).set_index(["batches", "seed"])
    return rows.unstack("batches").round(2)


def top_n_table(record: Record) -> pd.DataFrame:
    """The right one among ten candidates: HR@1 is a tenth and HR@5 a half by chance."""
    rows = {
        "popularity": [record["baselines"]["top-n"]],
        **{
            f"POD, {name}": column(runs, "top-n")
            for name, runs in by_variant(record["runs"]).items()
        },
    }
    return pd.DataFrame({name: shown_cells(of, (1, 5)) for name, of in rows.items()}).T


def sentences_table(record: Record) -> pd.DataFrame:
    """Quality of explanations in percent, intervals over sentences; how many sentences differ."""
    rows = {(name, ""): of for name, of in record["sentences"].items()} | {
        (f"POD, K = 3, {form}", run["seed"]): run[form]["sentences"]
        for form in FORMS
        for run in by_variant(record["runs"])["K = 3"]
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


def grid(record: Record, data: str = "MiniReel") -> pd.DataFrame:
    """For every K and form: tokens, CPU time, and NDCG@10 with seen items removed.

    "ms a step": forward and backward of a sequential batch, which was measured on MiniReel.
    """
    steps = {
        (row["K"], row["form"]): row["step"]["value"]
        for row in record["lengths"]["rows"]
        if row["task"] == "sequential"
    }
    rows = []
    named = by_variant(DATA[data](record))
    for K in sorted({K for K, _ in steps}):
        for form in FORMS:
            of = column(named[f"K = {K}"], form)
            cell = cells(places(of))["NDCG@10"]
            rows.append({
                "K": K, "form": form, "seeds": len(of), "tokens": np.mean(column(of, "tokens")),
                "ms a step": 1000 * steps[K, form],
                "ms a prediction": 1000 * float(np.mean(column(of, "seconds"))),
                "NDCG@10": cell["value"], "low": cell["low"], "high": cell["high"],
            })  # fmt: skip
    table = pd.DataFrame(rows)
    return table if data == "MiniReel" else table.drop(columns="ms a step")
