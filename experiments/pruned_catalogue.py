"""Ranks on a catalogue pruned with test labels, for main runs measured before there were any.

    python -m experiments.pruned_catalogue --dataset redial --data shared/data/redial

Reads the best checkpoint of each run in WORK and adds "pruned" to its file; see
`pecrs_lib.reproduction.pruning`. Runs made since have it already.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from pecrs_lib.data import load_corpus
from pecrs_lib.data.local import load_folder
from pecrs_lib.model import PECRS
from pecrs_lib.reproduction.pruning import rank_among_mentioned
from pecrs_lib.reproduction.runs import MAIN, write_run
from pecrs_lib.reproduction.variants import AS_OFFICIAL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data", type=Path, help="a folder instead of a download")
    parser.add_argument("--runs", type=Path, default=Path("data/results/runs"))
    parser.add_argument("--work", type=Path, default=Path("runs/reproduce"))
    given = parser.parse_args()
    corpus = load_folder(given.dataset, given.data) if given.data else load_corpus(given.dataset)
    catalogue, splits = corpus
    for path in sorted(given.runs.glob(f"{given.dataset}-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("variant") not in (MAIN, AS_OFFICIAL) or "pruned" in record:
            continue
        best = given.work / path.stem / "best"
        if not best.exists():
            print(f"{path.stem}: no checkpoint in {given.work}")
            continue
        model = PECRS.from_pretrained(best)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        pruned = rank_among_mentioned(model, catalogue, splits, cache_dir=given.work / "cache")
        write_run(record | {"pruned": pruned}, path)
        print(f"{path.stem}: {pruned['items'] if pruned else 'all'} items")


if __name__ == "__main__":
    main()
