"""PECRS on MiniReel at length: train, choose on the validation part, look at test once.

    python -m experiments.reel [--seed 0] [--ship]
    python -m experiments.reel --shipped     # only measure the checkpoint that was shipped

A resumable run under `runs/reel/`; writes `data/results/minireel_pecrs.json` (recall beside every
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
    epochs=6, batch_size=32, learning_rate=3e-3, head_learning_rate=3e-3, negatives=8,
    alpha=1.0, beta=0.5, gamma=0.3, warmup_epochs=0.1, patience=None,
)  # fmt: skip
SHIPPED = ROOT / "data" / "checkpoints" / "minireel"
VALID = 100  # dialogues that choose the epoch


def out_of(seed: int) -> Path:
    return ROOT / "runs" / "reel" / str(seed)


def trained(
    config: Config, catalogue: Catalogue, splits: dict[str, list[Dialogue]], ship: bool
) -> dict[str, Any]:
    """Train to the end, or go on; returns what is to be remembered of the run."""
    started, out = time.time(), out_of(config.seed)
    run = Trainer(
        PECRS.from_backbone(config), catalogue, splits["train"], splits["valid"][:VALID], out
    )
    run.resume()
    for row in run.epochs():
        print({name: round(value, 2) for name, value in row.items()}, flush=True)
    if ship:
        shutil.rmtree(SHIPPED, ignore_errors=True)
        shutil.copytree(out / "best", SHIPPED)
    history = run.history().to_dict(orient="records")
    return machine() | {
        "config": config.to_dict(), "seconds": time.time() - started, "history": history
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ship", action="store_true")
    parser.add_argument("--shipped", action="store_true")
    args = parser.parse_args()
    catalogue, splits = load_minireel()
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    if not args.shipped:
        found = trained(CONFIG.with_(seed=args.seed), catalogue, splits, args.ship)
    folder = SHIPPED if args.shipped else out_of(args.seed) / "best"
    model, test = PECRS.from_pretrained(folder), splits["test"]
    v = item_vectors(model, catalogue)
    ranked = rank_dialogues(model, test, catalogue, v)
    predictions = [predict(b, test, catalogue) for b in fit_baselines(splits["train"], catalogue)]
    predictions.append(predictions_of(ranked, test, catalogue))
    table = recall_table(predictions)
    print(table.round(1).to_string(index=False))
    found |= {
        "recall": as_records(table),
        "against co-occurrence": {
            targets: vars(paired_bootstrap(predictions[-1], predictions[3], 10, targets))
            for targets in ("all", "novel")
        },
        "text": text_metrics(ranked, converse(model, test[:40], catalogue, v)),
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
