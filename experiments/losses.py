"""What each loss does when it is taken away: four models trained equally long on MiniReel.

    python -m experiments.losses [--epochs 3] [--seed 0]

Writes `data/results/losses.json`: recall on the validation dialogues after the last epoch (no epoch
is chosen), and perplexity of the true responses. Resumable runs under `runs/losses/`.
"""

from __future__ import annotations

import argparse
import json

from experiments.inspired import ROOT, machine
from experiments.reel import CONFIG
from pecrs_lib.assessment import item_vectors, predictions_of, rank_dialogues, text_metrics
from pecrs_lib.data import load_minireel
from pecrs_lib.evaluation import as_records, recall_table
from pecrs_lib.model import PECRS
from pecrs_lib.training import Trainer

RESULT = ROOT / "data" / "results" / "losses.json"
VARIANTS = {
    "all losses": {},
    "without retrieval (α = 0)": {"alpha": 0.0},
    "without re-ranking (β = 0)": {"beta": 0.0},
    "without response (γ = 0)": {"gamma": 0.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    catalogue, splits = load_minireel()
    predictions, perplexity = [], {}
    for number, (name, changes) in enumerate(VARIANTS.items()):
        config = CONFIG.with_(epochs=args.epochs, seed=args.seed, candidates=100, **changes)
        out = ROOT / "runs" / "losses" / f"{number}-{args.seed}"
        model = PECRS.from_backbone(config)
        run = Trainer(model, catalogue, splits["train"], splits["valid"][:20], out)
        run.resume()
        run.fit()
        v = item_vectors(model, catalogue)
        # an untrained re-ranker would only shuffle what retrieval found
        candidates = 1 if config.beta == 0 else config.candidates
        ranked = rank_dialogues(model, splits["valid"], catalogue, v, candidates=candidates)
        predictions.append(predictions_of(ranked, splits["valid"], catalogue, name))
        perplexity[name] = text_metrics(ranked)["perplexity"]
    record = machine() | {
        "config": CONFIG.with_(epochs=args.epochs, seed=args.seed, candidates=100).to_dict(),
        "variants": VARIANTS,
        "recall": as_records(recall_table(predictions)),
        "perplexity": perplexity,
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
