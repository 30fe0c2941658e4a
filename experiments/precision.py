"""What fewer bits do: the shipped model's losses and recall with its LM in float32 and in halves.

    python -m experiments.precision

The same trained weights, MiniReel's validation dialogues and, for the losses, the same batches;
item texts are encoded anew in every precision. Adapters and heads stay in float32, as in training.
Differences to float32 are paired by dialogue. Writes `data/results/precision.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers.utils import logging

from pecrs_lib.assessment import predictions_of, rank_dialogues
from pecrs_lib.batches import make_batch
from pecrs_lib.data import bundled, load_minireel
from pecrs_lib.evaluation import Predictions, as_records, paired_bootstrap, recall_table
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import encode_windows
from pecrs_lib.reproduction.runs import machine, write_run

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LOSSES = ("recall", "rerank", "gen")
CUTS = (1, 10, 50)


def in_dtype(dtype: torch.dtype) -> PECRS:
    """The shipped model with its frozen weights in `dtype`, as `Config.dtype` would load them."""
    model = PECRS.from_pretrained(bundled("checkpoints/minireel"))
    for p in model.backbone.parameters():
        if not p.requires_grad:
            p.data = p.data.to(dtype)
    return model.eval()


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    logging.disable_progress_bar()
    catalogue, splits = load_minireel()
    valid = splits["valid"]
    losses: dict[str, dict[str, float]] = {}
    systems: list[Predictions] = []
    for dtype in tqdm(DTYPES):
        model, name = in_dtype(dtype), str(dtype).removeprefix("torch.")
        features = model.item_features(catalogue)
        windows = encode_windows(valid, catalogue, model)
        batches = [windows[k : k + 8] for k in range(0, len(windows), 8)]
        total = torch.zeros(3)
        for k, part in enumerate(batches):
            generator = torch.Generator().manual_seed(k)
            batch = make_batch(part, len(catalogue), model.config, generator)
            with torch.no_grad():
                found = model(batch, features)
            total += torch.stack([getattr(found, loss).float() for loss in LOSSES])
        losses[name] = dict(zip(LOSSES, (total / len(batches)).tolist(), strict=True))
        ranked = rank_dialogues(model, valid, catalogue, model.encode_catalogue(features))
        systems.append(predictions_of(ranked, valid, catalogue, name))
    exact, *others = systems
    differences = [
        vars(paired_bootstrap(one, exact, k)) | {"system": one.name} for one in others for k in CUTS
    ]
    table = recall_table(systems, CUTS)
    record = machine() | {
        "data": "MiniReel validation", "dialogues": len(valid), "losses": losses,
        "rows": as_records(table), "differences": differences,
    }  # fmt: skip
    write_run(record, RESULTS / "precision.json")
    print(table.round(1).to_string(index=False), losses, differences, sep="\n")


if __name__ == "__main__":
    main()
