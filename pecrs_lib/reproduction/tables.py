"""The paper's tables and figures beside ours, from the files of `runs` and `data/paper` alone.

Comes after `evidence`; nothing is trained or read here but files. Every table is a DataFrame with a
row per number, in the columns of `evidence`; ``attrs`` has its "title" and the data the paper
measured on ("paper"), which are not always those of the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pecrs_lib.evaluation import Predictions
from pecrs_lib.reproduction.evidence import (
    Record,
    Results,
    cell,
    count,
    gain,
    paper_table,
    perplexity_row,
    predictions,
    rank_array,
    ranks_of,
    recall_rows,
    reply_rows,
    verdict,
)
from pecrs_lib.reproduction.runs import ABLATIONS, AS_IN_PAPER, M_TRAIN, MAIN

CUTS = (1, 10, 50)
NAMES = {"inspired": "INSPIRED", "redial": "ReDial", "minireel": "MiniReel"}
ELSEWHERE = {
    "4": "human evaluation: `pecrs rate` collects judgements, `pecrs rate report` makes the table",
    "7": "language models without training: data/results/zero_shot.json",
    "8": "decoding strategies: data/results/decoding.json",
}
PRIOR = ((0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 10_000))  # utterances before, Figure 4


def frame(rows: Sequence[Record], title: str, paper: str = "") -> pd.DataFrame:
    """Rows as a table with its title and the data the paper measured on."""
    table = pd.DataFrame(rows)
    table.attrs |= {"title": title, "paper": paper}
    return table


def _printed(table: pd.DataFrame, row: str) -> dict[str, Any]:
    """The numbers of one row of a paper's table; none where it lacks the row."""
    found = table[table.iloc[:, 0] == row].to_dict("records")
    return {str(k): v for k, v in found[0].items()} if found else {}


def systems(results: Results) -> dict[str, list[Predictions]]:
    """Ranks on the test points: of the baselines, and of PECRS one per seed."""
    points = results.data["points"]
    found = {
        name: [predictions(points, of["rank"], of["top1"], name)]
        for name, of in results.data["baselines"].items()
    }
    return found | {MAIN: [ranks_of(run) for run in results.main]}


def table_1(results: Results) -> pd.DataFrame:
    """Statistics of the data."""
    fields = {
        "unique items": "items", "dialogues": "dialogues", "utterances": "utterances",
        "recommender utterances": "points", "without recommendation": "points_without",
        "with recommendation": "points_with",
    }  # fmt: skip
    name = NAMES[results.dataset]
    paper = _printed(paper_table(1), name)
    counted = results.data["statistics"]
    rows = [
        count(name, metric, [counted[field]], counted["dialogues"], paper=paper.get(metric, np.nan))
        for metric, field in fields.items()
    ]
    return frame(rows, "Table 1: statistics (n: dialogues)", name)


def table_2(results: Results) -> pd.DataFrame:
    """Recommendation: the paper's rows, our baselines, and PECRS, all targets and novel ones."""
    name, paper = NAMES[results.dataset], paper_table(2)
    columns = [c for c in paper if str(c).startswith(f"{name} ")]
    rows = []
    for printed in paper.dropna(subset=columns, how="all").to_dict("records"):
        if printed["model"] != results.model_of_paper:
            known = {c.removeprefix(f"{name} "): printed[c] for c in columns}
            rows += recall_rows(printed["model"], [], "all", known, CUTS)
    own = _printed(paper, results.model_of_paper)
    for system, of in systems(results).items():
        is_own = system == MAIN
        known = {c.removeprefix(f"{name} "): own[c] for c in columns} if is_own else {}
        row = results.model_of_paper if is_own else system
        rows += recall_rows(row, of, "all", known, CUTS)
        rows += recall_rows(row, of, "novel", {}, CUTS)
    return frame(rows, "Table 2: recommendation", name if columns else "")


def table_3(results: Results) -> pd.DataFrame:
    """Conversation: generated replies and perplexity of the true ones."""
    paper = paper_table(3)
    rows: list[Any] = []
    for printed in paper.to_dict("records"):
        runs = results.main if printed["model"] == results.model_of_paper else ()
        rows += reply_rows(printed["model"], runs, printed)
        rows.append(perplexity_row(printed["model"], runs, printed["perplexity"]))
    return frame(rows, "Table 3: conversation", "ReDial")


def table_5(results: Results) -> pd.DataFrame:
    """Ablation, with the verdict on each difference in R@50."""
    paper = paper_table(5)
    full = _printed(paper, "PECRS-small")
    rows: list[Any] = []
    for variant in (MAIN, *ABLATIONS):
        printed = full if variant == MAIN else _printed(paper, variant)
        runs = results.runs.get(variant, ())
        seconds = [r["seconds_per_batch"] for r in runs if r["seconds_per_batch"] is not None]
        metric = "seconds per batch"
        rows.append(count(variant, metric, seconds, len(runs), paper=printed[metric]))
        recall, unique = recall_rows(variant, [ranks_of(r) for r in runs], "all", printed, (50,))
        if variant != MAIN:
            recall |= _judged(results, variant, printed["R@50"] - full["R@50"])
        replies = reply_rows(variant, runs, printed)
        rows += [recall, unique, *(r for r in replies if r["metric"] in ("ROUGE-1", "Dist@2"))]
    return frame(rows, "Table 5: ablation", "ReDial")


def _judged(results: Results, variant: str, claimed: float) -> dict[str, Any]:
    """What a variant loses in R@50 against its reference, and the verdict on it."""
    of, main = results.paired(variant)
    if not of:
        return {}
    found = gain([ranks_of(r) for r in of], [ranks_of(r) for r in main], 50)
    return _difference(claimed, found)


def _difference(claimed: float, found: Record, *, sized: bool = True) -> dict[str, Any]:
    return {
        "paper difference": claimed,
        "difference": found["ours"],
        "difference low": found["low"],
        "difference high": found["high"],
        "verdict": verdict(claimed, found, sized=sized),
    }


def table_6(results: Results) -> pd.DataFrame:
    """Item fields left out at inference, with the verdict on each difference in R@50."""
    paper = paper_table(6)
    runs = [run for run in results.main if run["rank_without"]]
    whole = [ranks_of(run) for run in runs]
    full = float(_printed(paper, "none")["R@50"])
    rows: list[Any] = []
    for printed in paper.to_dict("records"):
        field = printed["removed"]
        of = [ranks_of(run) if field == "none" else _without(run, field) for run in runs]
        dialogue = of[0].dialogue if of else ()
        more: dict[str, Any] = {}
        if of and field != "none":
            more = _difference(printed["R@50"] - full, gain(of, whole, 50))
        hits = [p.rank <= 50 for p in of]
        rows.append(cell(field, "R@50", dialogue, hits, paper=printed["R@50"], **more))
    return frame(rows, "Table 6: item fields left out at inference", "INSPIRED")


def _without(run: Record, field: str) -> Predictions:
    points = run["points"]
    return predictions(points, run["rank_without"][field], points["top1"], f"without {field}")


def genres(results: Results) -> pd.DataFrame:
    """Tables 9 and 10: share of the items and of the test recommendations, and how often the film
    ranked first is of the genre of the true one. The genre of a film is the first it lists; shares
    are of the films whose genre is known.
    """
    number = 9 if results.dataset == "redial" else 10
    paper = paper_table(number) if results.dataset in ("inspired", "redial") else pd.DataFrame()
    genre = np.array([str(g).lower() for g in results.data["genre"]])
    row_of = {item: j for j, item in enumerate(results.data["items"])}
    points = results.data["points"]
    true = np.array([genre[row_of[i]] if i in row_of else "" for i in points["item"]])
    named = {str(g).lower(): str(g) for g in paper.get("genre", ())}
    every = [*named, *sorted(set(genre) - set(named) - {""})]
    known_items, listed = genre[genre != ""], true != ""
    place = np.array(points["dialogue"])
    rows: list[Any] = []
    for key in every:
        printed = _printed(paper, named[key]) if key in named else {}
        label = named.get(key, key.capitalize())
        share = 100 * float((known_items == key).mean())
        metrics = ("items (%)", "recommendations in test (%)", "correctly predicted (%)")
        known = [printed.get(m, np.nan) for m in metrics]
        rows.append(count(label, metrics[0], [share], len(known_items), paper=known[0]))
        mine = true == key
        rows.append(cell(label, metrics[1], place[listed], [mine[listed]], paper=known[1]))
        right = [_first_genre(run, genre)[mine] == key for run in results.main]
        rows.append(cell(label, metrics[2], place[mine], right, paper=known[2]))
    return frame(rows, f"Table {number}: genres", NAMES[results.dataset] if named else "")


def _first_genre(run: Record, genre: Any) -> Any:
    top1 = np.array(run["points"]["top1"])
    return np.where(top1 >= 0, genre[top1], "")


def figure_3(results: Results) -> pd.DataFrame:
    """R@50 for every M_train and M_inference; the paper prints no numbers, only that more is
    better.
    """
    rows: list[Any] = []
    for variant, runs in results.runs.items():
        if not (variant == MAIN or variant.startswith(M_TRAIN)):
            continue
        config = runs[0]["config"]
        ranks = [r["rank_within"] | {str(config["candidates"]): r["points"]["rank"]} for r in runs]
        dialogue = runs[0]["points"]["dialogue"]
        for m in ranks[0]:
            hits = [rank_array(of[m]) <= 50 for of in ranks]
            found = cell(f"{M_TRAIN}{config['negatives']}", "R@50", dialogue, hits)
            rows.append(found | {"M_train": config["negatives"], "M_inference": int(m)})
    rows.sort(key=lambda row: (row["M_train"], row["M_inference"]))
    return frame(rows, "Figure 3: R@50 by M_train and M_inference")


def figure_4(results: Results) -> pd.DataFrame:
    """R@50 by the number of utterances before the recommendation, beside our baselines."""
    points = results.data["points"]
    rows: list[Any] = []
    for system, of in systems(results).items():
        for low, high in PRIOR:
            label = f"{low}" if low == high else f"{low}-{high}" if high < 10_000 else f"{low}+"
            inside = (np.array(points["turn"]) >= low) & (np.array(points["turn"]) <= high)
            dialogue = np.array(points["dialogue"])[inside]
            hits = [(p.rank <= 50)[inside] for p in of]
            rows.append(cell(system, "R@50", dialogue, hits, prior=label))
    return frame(rows, "Figure 4: R@50 by utterances before")


def deviations(results: Results) -> pd.DataFrame:
    """What our deviations are worth: each undone alone, with the difference to the main run."""
    rows: list[Any] = []
    for variant in (MAIN, *AS_IN_PAPER):
        of = [ranks_of(run) for run in results.runs.get(variant, ())]
        rows += recall_rows(variant, of, "all", {}, CUTS)
    return frame(rows, "Deviations: each of ours undone alone")


TABLES: dict[str, Callable[[Results], pd.DataFrame]] = {
    "1": table_1,
    "2": table_2,
    "3": table_3,
    "5": table_5,
    "6": table_6,
    "9": genres,
    "10": genres,
    "figure-3": figure_3,
    "figure-4": figure_4,
    "deviations": deviations,
}
