"""Novel targets when nobody may repeat: MiniReel's films named before are left out of the ranking.

    python -m experiments.novel [--model DIR …]

A system that sometimes ranks a film of this dialogue first, because people do come back to films,
loses first places on novel targets. Here such films are taken out for every system alike, so that
only the order of the others counts. PECRS is its retrieval alone, without re-ranking. Writes
`data/results/minireel_novel.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from transformers.utils import logging

from experiments.fusion import distances
from pecrs_lib.assessment import item_vectors
from pecrs_lib.baselines import fit_baselines
from pecrs_lib.data import Dialogue, bundled, load_minireel
from pecrs_lib.evaluation import (
    Predictions,
    as_records,
    paired_bootstrap,
    recall_table,
    recommendation_points,
)
from pecrs_lib.model import PECRS
from pecrs_lib.runs import machine, write_run

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, nargs="+", help="checkpoints; default: the shipped one",
        default=[bundled("checkpoints/minireel")],
    )  # fmt: skip
    args = parser.parse_args()
    logging.disable_progress_bar()
    catalogue, splits = load_minireel()
    test = splits["test"]
    points = [p for p in recommendation_points(test) if p.novel and p.item in catalogue]
    turns = sorted({(p.dialogue, p.turn) for p in points})
    before = {(d, t): Dialogue(test[d].id, test[d].utterances[:t]) for d, t in turns}
    scores = {
        baseline.name: {turn: baseline.scores(before[turn]) for turn in turns}
        for baseline in fit_baselines(splits["train"], catalogue)
    }
    for folder in args.model:
        model = PECRS.from_pretrained(folder)
        v = item_vectors(model, catalogue, cache_dir=ROOT / "runs" / "cache")
        near = distances(model, test, catalogue, v)
        scores[f"PECRS, {'/'.join(folder.parts[-3:])}"] = {turn: -near[turn] for turn in turns}
    systems = []
    for name, of in scores.items():
        new = {}
        for turn in turns:
            named = [catalogue.row[i] for u in before[turn].utterances for i in u.items]
            new[turn] = of[turn].astype(float)
            new[turn][named] = -np.inf
        rank = []
        for p in points:
            score, j = new[p.dialogue, p.turn], catalogue.row[p.item]
            rank.append(1 + (score > score[j]).sum() + (score[:j] == score[j]).sum())
        first = [int(new[p.dialogue, p.turn].argmax()) for p in points]
        systems.append(Predictions.at(name, points, rank, first))
    table = recall_table(systems)
    table = table[table["targets"] == "all"].assign(targets="novel")  # there are no others
    baselines = systems[: -len(args.model)]
    against = [
        {"system": p.name, "against": b.name} | vars(paired_bootstrap(p, b, k))
        for p in systems[-len(args.model) :]
        for b in baselines
        for k in (1, 10, 50)
    ]
    record = machine() | {"data": "MiniReel test", "rows": as_records(table), "paired": against}
    write_run(record, ROOT / "data" / "results" / "minireel_novel.json")
    print(table.round(1).to_string(index=False))


if __name__ == "__main__":
    main()
