"""What limits retrieval on INSPIRED: one thing changed at a time, on the development set.

    python -m experiments.limits --data FOLDER [--only NAME …]

The language model stays frozen and is read once; the heads of retrieval are trained on that by the
library's warm start, half a minute a run, so that a dozen questions can be asked where full runs
would take days. The answers are about retrieval with a frozen LM: what adapters change is asked by
`experiments.inspired --dev-only`. Writes `data/results/inspired_limits.json` after every variant.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from experiments.inspired import RESULTS, ROOT, adapt_heads, random_backbone
from pecrs_lib.assessment import predictions_of
from pecrs_lib.baselines import fit_baselines
from pecrs_lib.calibration import calibrate
from pecrs_lib.config import TINY, Config
from pecrs_lib.data import Catalogue, Dialogue, Movie
from pecrs_lib.data.local import inspired_folder
from pecrs_lib.evaluation import Predictions, as_records, predict, recall_table
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import encode_windows, rank_windows
from pecrs_lib.reproduction.runs import machine
from pecrs_lib.warmstart import warm_start

BASE: dict[str, Any] = {"warm_start": 6, "retrieval_negatives": None}
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "16 negatives": {"retrieval_negatives": 16},
    "150 negatives": {"retrieval_negatives": 150},
    "temperature 0.05": {"temperature": 0.05},
    "temperature 0.2": {"temperature": 0.2},
    "2 epochs": {"warm_start": 2},
    "12 epochs": {"warm_start": 12},
    "no pooling of the context": {"query_pooling": False},
    "a smaller backbone": {"backbone": "runs/reel-tiny"},  # `experiments.backbone --size tiny`
    "a larger backbone": {"backbone": "reel-base"},
    "random weights": {"backbone": "random reel-small"},
    "larger, random weights": {"backbone": "random reel-base"},
    "titles only": {"texts": "titles"},
    "start from MiniReel": {"start": "data/checkpoints/minireel"},
    "start from ReDial": {"start": "runs/redial-heads"},  # `experiments.redial_heads`
    "larger, start from ReDial": {"backbone": "reel-base", "start": "runs/redial-heads-base"},
}


def ranked(
    config: Config,
    catalogue: Catalogue,
    splits: dict[str, list[Dialogue]],
    start: str | None,
    name: str,
) -> Predictions:
    """Ranks of the dev targets by retrieval alone, after the warm start alone."""
    model = PECRS.from_pretrained(ROOT / start) if start else PECRS.from_backbone(config)
    model.config = config
    features = model.item_features(catalogue, cache_dir=ROOT / "runs" / "cache")
    train = encode_windows(splits["train"], catalogue, model)
    if start:
        adapt_heads(model, train, features, catalogue)
    else:
        calibrate(model, train, features)
        warm_start(model, train, features, catalogue, epochs=config.warm_start)
    dev = encode_windows(splits["valid"], catalogue, model)
    found = rank_windows(model, dev, model.encode_catalogue(features), candidates=1)
    return predictions_of(found, splits["valid"], catalogue, name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the INSPIRED data")
    parser.add_argument("--only", nargs="*", help="names of variants; the others are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    whole, splits = inspired_folder(args.data)
    path = RESULTS / "inspired_limits.json"
    known = json.loads(path.read_text(encoding="utf-8"))["variants"] if path.exists() else {}
    baselines = [predict(b, splits["valid"], whole) for b in fit_baselines(splits["train"], whole)]
    for name in tqdm(args.only or VARIANTS):
        asked = BASE | VARIANTS[name]
        catalogue = whole
        if asked.pop("texts", None) == "titles":
            catalogue = Catalogue(tuple(Movie(m.id, m.title, m.year) for m in whole))
        start = asked.pop("start", None)
        random, _, shape = asked.get("backbone", "").partition(" ")
        if random == "random":
            asked["backbone"] = str(random_backbone(shape, ROOT / "runs" / f"random-{shape}"))
        runs = [
            ranked(TINY.with_(**asked, seed=seed), catalogue, splits, start, f"seed {seed}")
            for seed in args.seeds
        ]
        table = recall_table(runs)
        known[name] = {
            "changed": VARIANTS[name], "seeds": args.seeds, "rows": as_records(table), **machine(),
        }  # fmt: skip
        means = table.groupby("targets")[["R@1", "R@10", "R@50"]].mean().round(1)
        print(name, means.to_dict("index"), flush=True)
        record = {
            "data": "INSPIRED dev", "base": BASE, "variants": known,
            "baselines": as_records(recall_table(baselines)),
        }  # fmt: skip
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
