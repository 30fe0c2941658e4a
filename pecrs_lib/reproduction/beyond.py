"""What the files of runs tell beyond the paper's tables; each number with its interval.

Comes after `tables`, whose columns it keeps; `beyond_figures` draws what is made here.
Nothing is trained or read but files: ranks, what was ranked first, and how sure the model was. The
last function reads the file of `experiments.beyond`.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pecrs_lib.data import DataError
from pecrs_lib.metrics import unique_items
from pecrs_lib.reproduction.evidence import (
    Record,
    Results,
    cell,
    count,
    half_width,
    paper_table,
    recall_rows,
)
from pecrs_lib.reproduction.tables import CUTS, NAMES, systems
from pecrs_lib.zero_shot.recommended import wilson

POINTS = {"inspired": 279}  # test points of the official code, which drops one of our 280
BUCKETS = {"inspired": (0, 1, 3, 10)}  # mentions in training, the least of each bucket
_BUCKETS = (0, 1, 10, 100)  # of larger data


def recalls(results: Results) -> pd.DataFrame:
    """Recall@k of the paper's rows, of our baselines and of PECRS; ours on novel targets, too.

    The paper gives no intervals: its rows get those that a share has on as many independent points
    (Wilson), which is too narrow, for the points of a dialogue are not independent. Where their
    number is not known, it is taken to be ours.
    """
    rows: list[Any] = []
    for name, printed in _printed(results).items():
        for k in CUTS:
            n = _points(results)
            low, high = wilson(round(printed[k] / 100 * n), n)
            rows.append(
                {"row": name, "metric": f"R@{k}", "targets": "all", "paper": printed[k],
                 "ours": np.nan, "low": low, "high": high, "n": n, "seeds": ()}
            )  # fmt: skip
    for name, of in systems(results).items():
        for targets in ("all", "novel"):
            rows += recall_rows(name, of, targets, {}, CUTS)
    return pd.DataFrame(rows)


def _points(results: Results) -> int:
    return POINTS.get(results.dataset, len(results.data["points"]["item"]))


def _printed(results: Results) -> dict[str, dict[int, float]]:
    """The paper's Table 2 on this data set: row -> k -> percent; the model's own name apart."""
    name = NAMES[results.dataset]
    table = paper_table(2)
    columns = {k: f"{name} R@{k}" for k in CUTS}
    if columns[1] not in table:
        return {}
    known = table.dropna(subset=list(columns.values())).to_dict("records")
    return {f"{r['model']} (paper)": {k: r[c] for k, c in columns.items()} for r in known}


# -- how much of a table is noise -----------------------------------------------------------------


def correlation(results: Results, k: int) -> float:
    """Of the hits of the two of our systems that agree most, PECRS with one seed.

    How far two systems hit the same points decides how sure their difference is.
    """
    hits = [(of[0].rank <= k) for of in systems(results).values() if of]
    pairs = [(a, b) for a, b in combinations(hits, 2) if a.std() and b.std()]
    return max((float(np.corrcoef(a, b)[0, 1]) for a, b in pairs), default=0.0)


def paper_differences(results: Results) -> pd.DataFrame:
    """Every pair of rows of the paper's Table 2: is the difference larger than its interval?

    Twice: ``taken`` as independent, and as alike as those two of our systems whose hits agree most
    (``correlation``). Neither knows that the points of a dialogue go together.
    """
    rows: list[Any] = []
    n = _points(results)
    for k in CUTS:
        rho = correlation(results, k)
        for (a, p), (b, q) in combinations(_printed(results).items(), 2):
            if p[k] < q[k]:
                a, p, b, q = b, q, a, p
            difference = p[k] - q[k]
            row = f"{a} - {b}".replace(" (paper)", "")
            for taken, alike in (("independent", 0.0), ("as alike as ours", rho)):
                half = half_width(p[k], q[k], n, alike)
                rows.append(
                    {"row": row, "metric": f"R@{k}", "taken": taken, "ours": difference,
                     "low": difference - half, "high": difference + half, "n": n,
                     "larger than noise": difference > half, "correlation": alike}
                )  # fmt: skip
    return pd.DataFrame(rows)


# -- several items per utterance ------------------------------------------------------------------


def sets(results: Results) -> pd.DataFrame:
    """The films that an utterance names as one set: any of them found, the share found, all found.

    ``targets`` says which utterances: every one, or those that name several films; the metric
    "points" is the paper's recall, a point per mention. All in percent.
    """
    points = results.data["points"]
    of, where = turns_of(points)
    films = np.unique(points["item"], return_inverse=True)[1]
    once = np.unique(np.column_stack([of, films]), axis=0, return_index=True)[1]  # of each film
    size = np.bincount(of[once])
    dialogue = np.array(points["dialogue"])
    rows: list[Any] = []
    for name, ranked in systems(results).items():
        for k in CUTS:
            hits = [p.rank <= k for p in ranked]
            found = [np.bincount(of[once], hit[once], len(size)) for hit in hits]
            for targets, keep in (("every", size > 0), ("several", size > 1)):
                more: dict[str, Any] = {"k": k, "targets": targets}
                inside = keep[of]
                columns: dict[str, list[Any]] = {
                    "any found": [x[keep] > 0 for x in found],
                    "share found": [x[keep] / size[keep] for x in found],
                    "all found": [x[keep] == size[keep] for x in found],
                }
                rows.append(
                    cell(name, "points", dialogue[inside], [h[inside] for h in hits], **more)
                )
                rows += [cell(name, m, where[keep], c, **more) for m, c in columns.items()]
    return pd.DataFrame(rows)


def turns_of(points: Record) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The turn of every point (P,), counted from 0, and the dialogue of every turn (T,)."""
    keys = np.column_stack([points["dialogue"], points["turn"]])
    turns, of = np.unique(keys, axis=0, return_inverse=True)
    return of.reshape(-1), turns[:, 0]


# -- popularity -----------------------------------------------------------------------------------


def popularity(results: Results) -> pd.DataFrame:
    """By how often recommenders name a film in training: recall, and what is ranked first.

    Metrics: R@k of the targets in a bucket (n: such points), "recommended first (%)" and, for the
    row "the recommenders", "named (%)" (n: all points), "catalogue (%)" (n: all films).

    Raises:
        DataError: the file of the data is from before it held "popularity".
    """
    if "popularity" not in results.data:
        raise DataError(f"{results.dataset}-data.json has no popularity; remove it and run again")
    mentions = np.array(results.data["popularity"])
    row_of = {item: j for j, item in enumerate(results.data["items"])}
    points = results.data["points"]
    item = np.array([row_of.get(i, -1) for i in points["item"]])
    dialogue = np.array(points["dialogue"])
    least = BUCKETS.get(results.dataset, _BUCKETS)
    bucket = np.searchsorted(least, mentions, side="right") - 1  # (N,)
    of_target = np.where(item >= 0, bucket[item], 0)  # a film outside is in no training dialogue
    rows: list[Any] = []
    for b, (low, high) in enumerate(zip(least, [*least[1:], None], strict=True)):
        label = f"{low}+" if high is None else f"{low}" if high == low + 1 else f"{low}-{high - 1}"
        inside = of_target == b
        more: dict[str, Any] = {"mentions": label}
        share = 100 * float((bucket == b).mean())
        rows.append(count("the catalogue", "catalogue (%)", [share], len(bucket), **more))
        rows.append(cell("the recommenders", "named (%)", dialogue, [inside], **more))
        for name, of in systems(results).items():
            first = [np.where(p.top1 >= 0, bucket[p.top1], -1) == b for p in of]
            rows.append(cell(name, "recommended first (%)", dialogue, first, **more))
            for k in CUTS:
                hits = [(p.rank <= k)[inside] for p in of]
                rows.append(cell(name, f"R@{k}", dialogue[inside], hits, **more))
    return pd.DataFrame(rows)


def distinct(results: Results) -> pd.DataFrame:
    """How many different films are ranked first ("Unique"), beside those that were named."""
    named = len(set(results.data["points"]["item"]))
    n = len(results.data["points"]["item"])
    rows = [count("the recommenders", "Unique", [named], n)]
    for name, of in systems(results).items():
        rows.append(count(name, "Unique", [float(unique_items(p.top1)) for p in of], n))
    return pd.DataFrame(rows)


# -- validation on test ---------------------------------------------------------------------------


def epochs(record: Record) -> pd.DataFrame:
    """Recall after every epoch on dev and on test, mean over the seeds.

    Args:
        record: "selection" of the file of `experiments.beyond`.
    """
    rows: list[Any] = []
    for part, dialogue in record["dialogue"].items():
        for k in CUTS:
            for epoch in range(record["epochs"]):
                hits = [np.array(run["rank"][part][epoch]) <= k for run in record["runs"]]
                rows.append(cell(part, f"R@{k}", dialogue, hits, epoch=epoch + 1))
    return pd.DataFrame(rows)


def selection(record: Record, splits: int = 500) -> pd.DataFrame:
    """What choosing the epoch on the test set is worth, for each k, in points of recall on test.

    Rows "chosen on dev", "chosen on test" and "gain", the second minus the first with the interval
    of a paired difference, the choices kept. "optimism" needs no dev set: an epoch is chosen on
    half of the test dialogues, drawn at random, and its recall there is compared with that on the
    other half, `splits` times; it has no interval, for halves of the same dialogues overlap.

    Args:
        record: "selection" of the file of `experiments.beyond`.
    """
    dialogue = np.array(record["dialogue"]["test"])
    rows: list[Any] = []
    for k in CUTS:
        hits = {
            part: [np.array(run["rank"][part]) <= k for run in record["runs"]]
            for part in ("dev", "test")
        }  # each (E, P)
        best = {part: [each.mean(1).argmax() for each in of] for part, of in hits.items()}
        on = {
            part: [test[e] for test, e in zip(hits["test"], of, strict=True)]
            for part, of in best.items()
        }
        for part, chosen in on.items():
            rows.append(cell(f"chosen on {part}", f"R@{k}", dialogue, chosen))
        pairs = zip(on["test"], on["dev"], strict=True)
        gains = [a.astype(float) - b for a, b in pairs]
        between = None if best["dev"] == best["test"] else (-1, 1)
        rows.append(cell("gain", f"R@{k}", dialogue, gains, between=between))
        optimism = [_optimism(of, dialogue, splits) for of in hits["test"]]
        rows.append(count("optimism", f"R@{k}", optimism, len(dialogue)))
    return pd.DataFrame(rows).astype({"ours": float, "low": float, "high": float})


def _optimism(hits: NDArray[np.bool_], dialogue: NDArray[np.int64], splits: int) -> float:
    """Percent by which the best of some epochs (E, P) looks better where it was chosen."""
    rng = np.random.default_rng(0)
    names = np.unique(dialogue)
    found = []
    for _ in range(splits):
        half = np.isin(dialogue, rng.permutation(names)[: len(names) // 2])
        here, there = hits[:, half].mean(1), hits[:, ~half].mean(1)
        best = here.argmax()
        found.append((here[best] - here.mean()) - (there[best] - there.mean()))
    return 100 * float(np.mean(found))
