"""PECRS on MiniReel at length: train, choose on the validation part, look at test once.

    python -m experiments.reel [--seed 0] [--backbone NAME] [--epochs 2] [--dev-only | --ship]
    python -m experiments.reel --shipped     # only measure the checkpoint that was shipped

A resumable run under `runs/reel/`. `--dev-only` stops before the test set and adds the run to
`data/results/minireel_dev.json`; otherwise `data/results/minireel_pecrs.json` is written (recall
beside every baseline with intervals, the history, text metrics). `--ship` copies the best
checkpoint to `data/checkpoints/minireel/`, where notebooks find it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.inspired import ROOT
from pecrs_lib.assessment import (
    Conversation,
    converse,
    item_vectors,
    predictions_of,
    rank_dialogues,
    text_metrics,
)
from pecrs_lib.baselines import fit_baselines
from pecrs_lib.config import TINY, Config
from pecrs_lib.data import Catalogue, Dialogue, load_minireel
from pecrs_lib.decoding import GREEDY
from pecrs_lib.evaluation import (
    Predictions,
    as_records,
    paired_bootstrap,
    predict,
    recall_table,
)
from pecrs_lib.model import PECRS
from pecrs_lib.reproduction.runs import machine
from pecrs_lib.training import Trainer

RESULT = ROOT / "data" / "results" / "minireel_pecrs.json"
DEV = RESULT.with_name("minireel_dev.json")
CONFIG = TINY.with_(
    batch_size=32, learning_rate=1e-3, head_learning_rate=3e-4, negatives=8,
    alpha=1.0, beta=0.5, gamma=0.5, warmup_epochs=0.1, patience=None, epochs=2,
    candidates=100, warm_start=20,
)  # fmt: skip
SHIPPED = ROOT / "data" / "checkpoints" / "minireel"


def trained(
    config: Config, catalogue: Catalogue, splits: dict[str, list[Dialogue]], out: Path
) -> dict[str, Any]:
    """Train to the end, or go on; returns what is to be remembered of the run."""
    model = PECRS.from_backbone(config)
    run = Trainer(model, catalogue, splits["train"], splits["valid"], out)
    run.resume()
    started = machine()
    for row in run.epochs():
        print({name: round(value, 2) for name, value in row.items()}, flush=True)
    return started | {
        "config": config.to_dict(),
        "warm_start": run.progress.warm_start,
        "history": run.progress.history,
    }


def trigrams(text: str) -> list[tuple[str, ...]]:
    words = re.findall(r"\[ITEM\]|[\w']+|[.,!?]", text.lower().replace("[item]", "[ITEM]"))
    return list(zip(words, words[1:], words[2:], strict=False))


def reply_quality(
    model: PECRS, conversation: Conversation, train: list[Dialogue], catalogue: Catalogue
) -> dict[str, Any]:
    """How well formed greedy replies are, beside what was really said (all in percent).

    A trigram of words that no training utterance has is a sign of broken grammar, or of something
    new; the true responses of the same turns show how often it is the latter.
    """
    tok = model.backbone.tokenizer
    said = [u for dialogue in train for u in dialogue.utterances if u.role == "recommender"]
    known = {t for ids in tok.encode_texts(said, catalogue) for t in trigrams(tok.decode(ids))}
    raw = [reply.raw for reply in conversation.replies]
    offers = [r for r in conversation.replies if r.opens_with_rec > 0.5]
    found: dict[str, Any] = {"n": len(raw), "recommending": len(offers)}
    found["naming the film ranked first"] = 100 * float(
        np.mean([r.recommended is not None and r.recommended.movie.name in r.text for r in offers])
    )
    for name, texts in (("replies", raw), ("true responses", conversation.references)):
        every = [t for text in texts for t in trigrams(text)]
        found[f"known trigrams of {name}"] = 100 * float(np.mean([t in known for t in every]))
    return found


def paired(pecrs: Predictions, rivals: Sequence[Predictions]) -> list[dict[str, Any]]:
    """Recall less that of each rival, with intervals."""
    return [
        vars(paired_bootstrap(pecrs, rival, k, targets))
        | {"system": rival.name, "targets": targets}
        for rival in rivals
        for targets in ("all", "novel")
        for k in (1, 10, 50)
    ]


def beside_shipped(folder: Path, catalogue: Catalogue, part: list[Dialogue]) -> dict[str, Any]:
    """Recall of a checkpoint and of the shipped one."""
    found = []
    for name, where in (("PECRS", folder), ("PECRS, as shipped", SHIPPED)):
        model = PECRS.from_pretrained(where)
        ranked = rank_dialogues(model, part, catalogue, item_vectors(model, catalogue))
        found.append(predictions_of(ranked, part, catalogue, name))
    table = recall_table(found)
    print(table.round(1).to_string(index=False))
    return {
        "data": "MiniReel validation, whole catalogue", "n_items": len(catalogue),
        "n_dialogues": len(part), "rows": as_records(table), "paired": paired(found[0], found[1:]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--ship", action="store_true")
    either.add_argument("--shipped", action="store_true")
    either.add_argument("--dev-only", action="store_true")
    parser.add_argument("--backbone", default=CONFIG.backbone)
    parser.add_argument("--epochs", type=int, default=CONFIG.epochs)
    args = parser.parse_args()
    catalogue, splits = load_minireel()
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    folder = SHIPPED
    if not args.shipped:
        config = CONFIG.with_(seed=args.seed, backbone=args.backbone, epochs=args.epochs)
        out = ROOT / "runs" / "reel" / f"{Path(args.backbone).name}-{args.epochs}-{args.seed}"
        found = trained(config, catalogue, splits, out)
        folder = out / "best"
    if args.dev_only:
        found |= beside_shipped(folder, catalogue, splits["valid"])
        known = json.loads(DEV.read_text(encoding="utf-8")) if DEV.exists() else {}
        known[out.name] = found
        DEV.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        return
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
    pecrs = predictions[-1]
    found |= {
        "data": "MiniReel test, whole catalogue",
        "n_items": len(catalogue),
        "n_dialogues": len(test),
        "rows": as_records(table),
        "paired": paired(pecrs, predictions[1:-1]),
        "text": text_metrics(ranked, converse(model, test[:20], catalogue, v)),
        "replies": reply_quality(
            model, converse(model, test[:40], catalogue, v, **GREEDY), splits["train"], catalogue
        ),
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
