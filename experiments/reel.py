"""PECRS on MiniReel at length: train, choose on the validation part, look at test once.

    python -m experiments.reel [--seed 0] [--ship]

A resumable run under `runs/reel/`; writes `data/results/minireel_pecrs.json` (recall beside every
baseline with intervals, the history, text metrics). `--ship` copies the best checkpoint to
`data/checkpoints/minireel/`, where notebooks find it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time

from experiments.inspired import ROOT, machine
from pecrs_lib.assessment import (
    converse,
    item_vectors,
    predictions_of,
    rank_dialogues,
    text_metrics,
)
from pecrs_lib.baselines import fit_baselines
from pecrs_lib.config import TINY
from pecrs_lib.data import load_minireel
from pecrs_lib.evaluation import as_records, paired_bootstrap, predict, recall_table
from pecrs_lib.model import PECRS
from pecrs_lib.training import Trainer

RESULT = ROOT / "data" / "results" / "minireel_pecrs.json"
CONFIG = TINY.with_(
    epochs=6, batch_size=32, learning_rate=3e-3, head_learning_rate=3e-3, negatives=8,
    alpha=1.0, beta=0.5, gamma=0.3, warmup_epochs=0.1, patience=None,
)  # fmt: skip
VALID = 100  # dialogues that choose the epoch


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    catalogue, splits = load_minireel()
    config = CONFIG.with_(seed=args.seed)
    out = ROOT / "runs" / "reel" / str(args.seed)
    started = time.time()
    run = Trainer(
        PECRS.from_backbone(config), catalogue, splits["train"], splits["valid"][:VALID], out
    )
    run.resume()
    for row in run.epochs():
        print({name: round(value, 2) for name, value in row.items()}, flush=True)
    model, test = PECRS.from_pretrained(out / "best"), splits["test"]
    v = item_vectors(model, catalogue)
    ranked = rank_dialogues(model, test, catalogue, v)
    predictions = [predict(b, test, catalogue) for b in fit_baselines(splits["train"], catalogue)]
    predictions.append(predictions_of(ranked, test, catalogue))
    table = recall_table(predictions)
    print(table.round(1).to_string(index=False))
    found = machine() | {
        "config": config.to_dict(), "seconds": time.time() - started,
        "recall": as_records(table),
        "against the strongest baseline": {
            targets: vars(paired_bootstrap(predictions[-1], predictions[3], 10, targets))
            for targets in ("all", "novel")
        },
        "history": run.history().to_dict(orient="records"),
        "text": text_metrics(ranked, converse(model, test[:40], catalogue, v)),
    }  # fmt: skip
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.ship:
        shipped = ROOT / "data" / "checkpoints" / "minireel"
        shutil.rmtree(shipped, ignore_errors=True)
        shutil.copytree(out / "best", shipped)


if __name__ == "__main__":
    main()
