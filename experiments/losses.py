"""What each loss does when it is taken away: models trained equally long on part of MiniReel.

    python -m experiments.losses [--seeds 0 1]

The paper's single stage from its start: no warm start, which would teach retrieval also where its
loss is taken away. Recall is that of the validation dialogues after the last epoch (no epoch is
chosen), before and after re-ranking. Resumable runs under `runs/losses/`; writes
`data/results/losses.json` after every one and skips those it holds.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import pandas as pd

from experiments.inspired import ROOT
from experiments.reel import CONFIG
from pecrs_lib.assessment import item_vectors, predictions_of, rank_dialogues, text_metrics
from pecrs_lib.config import Config
from pecrs_lib.data import Catalogue, Dialogue, load_minireel
from pecrs_lib.evaluation import as_records, recall_table
from pecrs_lib.model import PECRS
from pecrs_lib.reproduction.runs import machine
from pecrs_lib.training import Trainer

DIALOGUES = 800
BASE = CONFIG.with_(
    warm_start=0, epochs=2, batch_size=16, head_learning_rate=3e-3, warmup_epochs=0.3
)
VARIANTS: dict[str, dict[str, float]] = {
    "all three losses": {},
    "without retrieval (α = 0)": {"alpha": 0.0},
    "without re-ranking (β = 0)": {"beta": 0.0},
    "without response (γ = 0)": {"gamma": 0.0},
}
RESULT = ROOT / "data" / "results" / "losses.json"


def measured(
    name: str, config: Config, catalogue: Catalogue, splits: dict[str, list[Dialogue]]
) -> dict[str, Any]:
    """Train, then recall before and after re-ranking and perplexity of the validation part."""
    valid = splits["valid"]
    model = PECRS.from_backbone(config)
    out = ROOT / "runs" / "losses" / f"{name.split(' (')[0].replace(' ', '-')}-{config.seed}"
    run = Trainer(model, catalogue, splits["train"][:DIALOGUES], valid[:5], out)
    run.resume()
    run.fit()
    v = item_vectors(model, catalogue)
    found: dict[str, Any] = {"seed": config.seed, "config": config.to_dict()}
    tables = {}
    for stage, candidates in {"retrieval": 1, "re-ranked": config.candidates}.items():
        ranked = rank_dialogues(model, valid, catalogue, v, candidates=candidates)
        tables[stage] = recall_table([predictions_of(ranked, valid, catalogue, name)])
        found["perplexity"] = text_metrics(ranked)["perplexity"]
    table = pd.concat(tables, names=["stage"]).reset_index(level="stage")
    return found | {"recall": as_records(table)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    catalogue, splits = load_minireel()
    record: dict[str, Any] = {"data": "MiniReel valid", "dialogues": DIALOGUES, "runs": []}
    if RESULT.exists():
        record = json.loads(RESULT.read_text(encoding="utf-8"))
    done = {(run["variant"], run["seed"]) for run in record["runs"]}
    for seed in args.seeds:
        for name, changes in VARIANTS.items():
            if (name, seed) in done:
                continue
            config = BASE.with_(**changes, seed=seed)
            run = {"variant": name} | measured(name, config, catalogue, splits)
            record = machine() | record | {"runs": [*record["runs"], run]}
            RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
