"""PECRS on MiniReel at length: train, choose on the validation part, look at test once.

    python -m experiments.reel [--seed 0] [--ship]
    python -m experiments.reel --shipped     # only measure the checkpoint that was shipped

Resumable runs under `runs/reel/`, the second going on from the best checkpoint of the first with a
learning rate that starts anew; writes `data/results/minireel_pecrs.json` (recall beside every
baseline with intervals, the history, text metrics). `--ship` copies the best checkpoint to
`data/checkpoints/minireel/`, where notebooks find it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from experiments.inspired import ROOT, machine
from pecrs_lib.assessment import (
    converse,
    item_vectors,
    predictions_of,
    rank_dialogues,
    text_metrics,
)
from pecrs_lib.baselines import fit_baselines
from pecrs_lib.config import TINY, Config
from pecrs_lib.data import Catalogue, Dialogue, load_minireel
from pecrs_lib.evaluation import as_records, paired_bootstrap, predict, recall_table
from pecrs_lib.model import PECRS
from pecrs_lib.training import Trainer

RESULT = ROOT / "data" / "results" / "minireel_pecrs.json"
CONFIG = TINY.with_(
    batch_size=32, learning_rate=3e-3, head_learning_rate=3e-3, negatives=8,
    alpha=1.0, beta=0.5, gamma=0.3, warmup_epochs=0.1, patience=None,
)  # fmt: skip
SHIPPED = ROOT / "data" / "checkpoints" / "minireel"
EPOCHS = (6, 4, 14)  # of the runs, each with a learning rate that starts anew
VALID = 100  # dialogues that choose the epoch


def folder_of(seed: int, number: int) -> Path:
    return ROOT / "runs" / "reel" / f"{seed}-{number}"


def trained(
    config: Config, catalogue: Catalogue, splits: dict[str, list[Dialogue]]
) -> dict[str, Any]:
    """Train to the end, or go on; returns what is to be remembered of the run."""
    started, histories = time.time(), []
    for number, epochs in enumerate(EPOCHS):
        out = folder_of(config.seed, number)
        model = (
            PECRS.from_pretrained(folder_of(config.seed, number - 1) / "best")
            if number
            else PECRS.from_backbone(config)
        )
        model.config = config.with_(epochs=epochs)
        run = Trainer(model, catalogue, splits["train"], splits["valid"][:VALID], out)
        run.resume()
        for row in run.epochs():
            print({name: round(value, 2) for name, value in row.items()}, flush=True)
        histories.append(run.history().to_dict(orient="records"))
    return machine() | {
        "config": config.to_dict(), "seconds": time.time() - started, "histories": histories
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--ship", action="store_true")
    either.add_argument("--shipped", action="store_true")
    args = parser.parse_args()
    catalogue, splits = load_minireel()
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    folder = SHIPPED
    if not args.shipped:
        found = trained(CONFIG.with_(seed=args.seed), catalogue, splits)
        folder = folder_of(args.seed, len(EPOCHS) - 1) / "best"
    if args.ship:
        shutil.rmtree(SHIPPED, ignore_errors=True)
        shutil.copytree(folder, SHIPPED)
    model, test = PECRS.from_pretrained(folder), splits["test"]
    v = item_vectors(model, catalogue)
    ranked = rank_dialogues(model, test, catalogue, v)
    predictions = [predict(b, test, catalogue) for b in fit_baselines(splits["train"], catalogue)]
    predictions.append(predictions_of(ranked, test, catalogue))
    table = recall_table(predictions)
    print(table.round(1).to_string(index=False))
    rival = next(p for p in predictions if p.name == "Co-occurrence")
    found |= {
        "recall": as_records(table),
        "against co-occurrence": {
            targets: vars(paired_bootstrap(predictions[-1], rival, 10, targets))
            for targets in ("all", "novel")
        },
        "text": text_metrics(ranked, converse(model, test[:20], catalogue, v)),
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
