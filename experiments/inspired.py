"""PECRS on real INSPIRED: train, choose on dev, look at test once, write data/results/.

    python -m experiments.inspired --data FOLDER [--seeds 0 1] [--set name=value …]
    python -m experiments.inspired … --dev-only --name NAME     # a setting tried on dev

`--start` goes on from a checkpoint, such as the heads of `experiments.redial_heads`: with
`warm_start` above 0 the heads are trained on INSPIRED first; `--titles-only` drops all
item texts but titles; `--random` takes a backbone of the same shape with random weights. Settings
are chosen on the dev set with `--dev-only`, each run leaving its dev table in
`data/results/inspired_dev.json`; the test set is read in the final run only. Every seed is a
resumable run under `runs/inspired/`. `--ship` copies the first seed's best checkpoint, its adapters
in half precision, to `data/checkpoints/inspired/` and measures the copy.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from pecrs_lib.assessment import (
    converse,
    item_vectors,
    predictions_of,
    rank_dialogues,
    text_metrics,
)
from pecrs_lib.baselines import fit_baselines
from pecrs_lib.config import TINY, Config
from pecrs_lib.context import Window
from pecrs_lib.data import Catalogue, Dialogue, Movie
from pecrs_lib.data.local import inspired_folder
from pecrs_lib.data.minireel import bundled_backbone
from pecrs_lib.data.storage import write_sums
from pecrs_lib.evaluation import as_records, paired_bootstrap, predict, recall_table
from pecrs_lib.items import ItemFeatures
from pecrs_lib.metrics import recall_at_k
from pecrs_lib.model import PECRS
from pecrs_lib.reproduction.runs import machine
from pecrs_lib.training import Trainer
from pecrs_lib.warmstart import warm_start

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results"
SHIPPED = ROOT / "data" / "checkpoints" / "inspired"
M_TEST = 700  # the paper's M_inference; `candidates` of the configuration is for validation


def train(
    config: Config,
    catalogue: Catalogue,
    splits: dict[str, list[Dialogue]],
    out: Path,
    start: Path | None = None,
) -> tuple[PECRS, Trainer]:
    """Train to the end, or go on; returns the best checkpoint on dev and the run."""
    model = PECRS.from_pretrained(start) if start else PECRS.from_backbone(config)
    model.config = config
    trainer = Trainer(
        model, catalogue, splits["train"], splits["valid"], out, cache_dir=ROOT / "runs" / "cache"
    )
    if not trainer.resume() and start and config.warm_start:
        trainer.progress.warm_start = adapt_heads(model, trainer.train_windows, trainer.features,
                                                  catalogue)  # fmt: skip
    for row in trainer.epochs():
        print({name: round(value, 3) for name, value in row.items()}, flush=True)
    return PECRS.from_pretrained(out / "best"), trainer


def adapt_heads(
    model: PECRS, windows: list[Window], features: ItemFeatures, catalogue: Catalogue
) -> list[float]:
    """The warm start for heads that were trained on another catalogue: at a lower rate."""
    model.items.fit(features)
    epochs = model.config.warm_start
    return warm_start(
        model, windows, features, catalogue, epochs=epochs, batch_size=64, learning_rate=4e-3
    )


def recall_by_window(
    model: PECRS, catalogue: Catalogue, dialogues: list[Dialogue], windows: tuple[int, ...]
) -> dict[str, dict[str, float]]:
    """What cutting long dialogues costs: recall (percent) with shorter and longer trunks."""
    v = item_vectors(model, catalogue, cache_dir=ROOT / "runs" / "cache")
    trained = model.config
    found = {}
    for window in windows:
        model.config = trained.with_(window=window)
        rank = predictions_of(
            rank_dialogues(model, dialogues, catalogue, v), dialogues, catalogue
        ).rank
        found[str(window)] = {f"R@{k}": recall_at_k(rank, k) for k in (1, 10, 50)}
    model.config = trained
    return found


def random_backbone(name: str, folder: Path) -> Path:
    """A backbone of the same shape and tokenizer without pre-training, saved in `folder`."""
    source = bundled_backbone(name)
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config.from_pretrained(source)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def ship(folder: Path) -> Path:
    """A copy of a checkpoint where users find it; half precision keeps it below 10 MB."""
    shutil.rmtree(SHIPPED, ignore_errors=True)
    shutil.copytree(folder, SHIPPED)
    adapter = SHIPPED / "adapter" / "adapter_model.safetensors"
    save_file({name: w.half() for name, w in load_file(adapter).items()}, adapter)
    write_sums(SHIPPED)
    return SHIPPED


def parse(value: str) -> Any:
    try:
        return json.loads(value.replace("None", "null").replace("True", "true"))
    except json.JSONDecodeError:
        return value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the INSPIRED data")
    parser.add_argument("--backbone", default=TINY.backbone)
    parser.add_argument("--start", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--titles-only", action="store_true")
    parser.add_argument("--random", action="store_true", help="a backbone without pre-training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--set", nargs="*", default=[], help="name=value of a Config field")
    parser.add_argument("--name", default="final")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--dev-only", action="store_true")
    either.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    changes = {k: parse(v) for k, v in (pair.split("=", 1) for pair in args.set)}
    catalogue, splits = inspired_folder(args.data)
    if args.titles_only:
        catalogue = Catalogue(tuple(Movie(m.id, m.title, m.year) for m in catalogue))
    if args.random:
        args.backbone = str(random_backbone(args.backbone, ROOT / "runs" / "random"))
    base = TINY.with_(backbone=args.backbone, **changes)
    RESULTS.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in args.seeds:
        started = time.time()
        out = ROOT / "runs" / "inspired" / f"{args.name}-{seed}"
        model, trainer = train(base.with_(seed=seed), catalogue, splits, out, args.start)
        if args.ship and not runs:
            model = PECRS.from_pretrained(ship(out / "best"))
        runs.append((seed, model, trainer, time.time() - started))
    config = {k: v for k, v in base.to_dict().items() if k not in ("backbone", "seed")}

    if args.dev_only:
        asked = {
            "backbone": args.backbone, "start": args.start and str(args.start),
            "titles only": args.titles_only, "random weights": args.random,
        }  # fmt: skip
        path = RESULTS / "inspired_dev.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for seed, _, trainer, seconds in runs:
            known[f"{args.name}-{seed}"] = {
                "changed": changes | {k: v for k, v in asked.items() if v},
                "warm_start": trainer.progress.warm_start,
                "history": trainer.progress.history,
                "seconds": seconds,
                **machine(),
            }
        path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        return

    test = splits["test"]
    predictions = [predict(b, test, catalogue) for b in fit_baselines(splits["train"], catalogue)]
    text: list[dict[str, Any]] = []
    for number, (seed, model, trainer, _) in enumerate(runs):
        v = item_vectors(model, catalogue, cache_dir=ROOT / "runs" / "cache")
        ranked = rank_dialogues(model, test, catalogue, v, candidates=M_TEST)
        predictions.append(predictions_of(ranked, test, catalogue, f"PECRS, seed {seed}"))
        told = converse(model, test, catalogue, v, seed=seed) if number == 0 else None
        text.append(
            {
                "seed": seed,
                **text_metrics(ranked, told),
                "best_epoch": trainer.progress.best_epoch,
                "dev": trainer.progress.history,
            }
        )
        if told is not None:
            examples = [
                {"reply": r.text, "true": true, "opens_with_rec": r.opens_with_rec}
                for r, true in list(zip(told.replies, told.references, strict=True))[::40]
            ]
    strongest = next(p for p in predictions if "entioned" in p.name)
    against = [
        vars(paired_bootstrap(p, strongest, k, targets)) | {"system": p.name, "targets": targets}
        for p in predictions
        if p.name.startswith("PECRS")
        for targets in ("all", "novel")
        for k in (1, 10, 50)
    ]
    record = {
        **machine(),
        "data": "INSPIRED test, whole catalogue",
        "n_items": len(catalogue),
        "n_dialogues": len(test),
        "config": config,
        "candidates_at_test": M_TEST,
        "parameters": runs[0][1].parameter_table(),
        "backbone": args.backbone,
        "start": str(args.start) if args.start else None,
        "rows": as_records(recall_table(predictions)),
        "paired_with_" + strongest.name: against,
        "dev_recall_by_window": recall_by_window(
            runs[0][1], catalogue, splits["valid"], (384, base.window)
        ),
        "text": text,
        "examples": examples,
    }
    path = RESULTS / "inspired.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(recall_table(predictions).round(1).to_string())


if __name__ == "__main__":
    main()
