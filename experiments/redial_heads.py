"""The retrieval heads trained on real ReDial dialogues: where PECRS on INSPIRED starts from.

    python -m experiments.redial_heads --data FOLDER [--epochs 8]
    python -m experiments.redial_heads … --backbone reel-base --out runs/redial-heads-base

INSPIRED has 731 training dialogues; what words say about films can be learned on ReDial's ten
thousand first, since items are texts and heads know no catalogue. Only training dialogues are read;
their films are matched to the authors' item texts by title. The language model stays frozen. Saves
a checkpoint for `experiments.inspired --start`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm.auto import tqdm

from experiments.inspired import ROOT
from pecrs_lib.calibration import calibrate
from pecrs_lib.config import TINY
from pecrs_lib.data import read_redial
from pecrs_lib.data.matching import match_catalogue, most_detailed
from pecrs_lib.data.processed import read_movie_db
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import encode_windows
from pecrs_lib.warmstart import warm_start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the ReDial data")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--backbone", default=TINY.backbone)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "redial-heads")
    args = parser.parse_args()
    catalogue = read_movie_db(args.data / "movie_db")
    dialogues, report = match_catalogue(
        read_redial(args.data / "train.jsonl.gz"), catalogue, choose=most_detailed
    )
    print(f"{len(dialogues):,} dialogues; {100 * report.rate:.1f} % of the mentions have an item")
    model = PECRS.from_backbone(TINY.with_(backbone=args.backbone))
    features = model.item_features(catalogue, cache_dir=ROOT / "runs" / "cache")
    windows = encode_windows(dialogues, catalogue, model)
    calibrate(model, windows, features)
    losses = warm_start(
        model, windows, features, catalogue, epochs=args.epochs,
        progress=lambda parts: tqdm(parts, desc="warm start"),
    )  # fmt: skip
    print("loss of each epoch, in nats:", [round(loss, 2) for loss in losses])
    model.save_pretrained(args.out)


if __name__ == "__main__":
    main()
