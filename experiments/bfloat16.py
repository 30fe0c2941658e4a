"""What a backbone in bfloat16 does to the three losses: the same weights, the same batches.

python -m experiments.bfloat16 --data FOLDER --backbone FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from experiments.inspired import RESULTS
from pecrs_lib.batches import make_batch
from pecrs_lib.config import TINY
from pecrs_lib.data import Catalogue
from pecrs_lib.data.local import inspired_folder
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import encode_windows
from pecrs_lib.runs import machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the INSPIRED data")
    parser.add_argument("--backbone", required=True)
    args = parser.parse_args()
    catalogue, splits = inspired_folder(args.data)
    catalogue = Catalogue(catalogue.movies[:400])
    losses: dict[str, dict[str, float]] = {}
    for dtype in ("float32", "bfloat16"):
        model = PECRS.from_backbone(TINY.with_(backbone=args.backbone, dtype=dtype)).eval()
        features = model.item_features(catalogue)
        windows = encode_windows(splits["train"][:40], catalogue, model)
        total = torch.zeros(3)
        batches = [windows[k : k + 4] for k in range(0, len(windows), 4)]
        for k, part in enumerate(batches):
            generator = torch.Generator().manual_seed(k)
            batch = make_batch(part, len(catalogue), model.config, generator)
            with torch.no_grad():
                found = model(batch, features)
            total += torch.stack([found.recall, found.rerank, found.gen])
        mean = (total / len(batches)).tolist()
        losses[dtype] = dict(zip(("recall", "rerank", "gen"), mean, strict=True))
    record = {**machine(), "dialogues": 40, "untrained_heads": True, "losses": losses}
    path = RESULTS / "bfloat16_losses.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(losses, indent=1))


if __name__ == "__main__":
    main()
