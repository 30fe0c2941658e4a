"""Two measurements beyond the paper that need a model; each goes into data/results/beyond.json.

    python -m experiments.beyond candidates --data FOLDER [--run NAME]   # after `pecrs reproduce 2`
    python -m experiments.beyond selection --data FOLDER [--seeds 0 1 2]

`candidates`: a trained run of the reproduction re-ranks more candidates than the language model has
positions, up to the whole catalogue, and takes a training step with as many negatives. Peak memory
is that of the process, which only Linux tells.

`selection`: the retrieval heads are trained on a frozen language model and measured on dev and test
after every epoch. This reads the test set on purpose: `beyond.selection` makes of it what choosing
the epoch on the test set is worth. Nothing is chosen from it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pecrs_lib.assessment import predictions_of, rank_dialogues
from pecrs_lib.batches import make_batch
from pecrs_lib.calibration import calibrate
from pecrs_lib.context import Window
from pecrs_lib.data import Catalogue, Dialogue
from pecrs_lib.data.local import Corpus, load_folder
from pecrs_lib.items import ItemFeatures
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import encode_windows
from pecrs_lib.ranking import retrieval_order
from pecrs_lib.reproduction.measuring import ints, points_of
from pecrs_lib.reproduction.runs import PRESETS, machine, write_run
from pecrs_lib.warmstart import named_in, outputs_at_rec, retrieval_of, warm_start

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "data" / "results" / "beyond.json"
RUNS = ROOT / "runs" / "reproduce"
WITHIN = (16, 64, 256, 1024)
NEGATIVES = (16, 150, 1024)
EPOCHS = 12
TIMED = 20  # dialogues that every number of candidates is timed on


def cost(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """CPU seconds of a piece of work, peak memory of the process meanwhile in MiB; and its result.

    The seconds of all threads are added up, and what else the machine does is not counted.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    started = time.process_time()
    result = work()
    seconds = time.process_time() - started
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return {"seconds": round(seconds, 2), "MiB": round(peak / 1024)}, result


def training_steps(
    model: PECRS, catalogue: Catalogue, features: ItemFeatures, window: Window
) -> list[dict[str, Any]]:
    """One dialogue forward and backward, with more and more negatives, up to all other items."""
    found = []
    for m in (*NEGATIVES, len(catalogue) - 1):
        config = model.config.with_(negatives=m, retrieval_negatives=m)
        batch = make_batch([window], len(catalogue), config, torch.Generator().manual_seed(0))
        spent, _ = cost(lambda: model(batch, features).joint(config).backward())  # noqa: B023
        model.zero_grad()
        found.append(
            {"negatives": m, "points": len(batch.positive), "tokens": batch.token.shape[1], **spent}
        )
    return found


def timings(
    model: PECRS, catalogue: Catalogue, few: list[Dialogue], v: Tensor
) -> list[dict[str, Any]]:
    """What ranking some dialogues costs, for every M_inference."""
    rows = []
    for m in tqdm((*WITHIN, len(catalogue)), desc="timed"):  # rising: kept memory hides nothing
        spent, found = cost(lambda m=m: rank_dialogues(model, few, catalogue, v, candidates=m))  # type: ignore[misc]
        turns = len(np.unique(np.stack([found.dialogue, found.utterance]), axis=1).T)
        rows.append({"M": m, "turns": turns, **spent})
    return rows


def candidates(corpus: Corpus, name: str) -> dict[str, Any]:
    """Recall, seconds and memory for every M_inference, and of training steps."""
    catalogue, splits = corpus
    model = PECRS.from_pretrained(RUNS / name / "best").eval()
    features = model.item_features(catalogue, cache_dir=RUNS / "cache")
    v = model.encode_catalogue(features)
    timed = timings(model, catalogue, splits["test"][:TIMED], v)  # before memory has grown
    windows = encode_windows(splits["train"], catalogue, model)
    window = next(w for w in windows if sum(len(turn.items) > 0 for turn in w.turns) == 3)
    steps = training_steps(model, catalogue, features, window)
    whole = rank_dialogues(
        model, splits["test"], catalogue, v, candidates=len(catalogue), within=WITHIN, progress=tqdm
    )
    ranks = {**whole.rank_within, len(catalogue): whole.rank}
    found = {m: predictions_of(replace(whole, rank=r), splits["test"], catalogue)
             for m, r in ranks.items()}  # fmt: skip
    return {
        "run": name,
        **machine(),
        "positions": model.backbone.max_positions,
        "items": len(catalogue),
        "points": points_of(found[len(catalogue)]),
        "rank": {str(m): ints(p.rank) for m, p in found.items()},
        "timed": timed,
        "training": steps,
    }


def retrieval_ranks(
    model: PECRS, windows: list[Window], at_rec: dict[int, Tensor], v: Tensor
) -> list[int]:
    """Rank of every recommended film by retrieval alone, in the order of the windows."""
    ranks: list[int] = []
    with torch.no_grad():
        for k in range(0, len(windows), 32):
            distance, target, recommended = retrieval_of(
                model, windows[k : k + 32], at_rec, v, torch.zeros(2)
            )
            order = retrieval_order(distance[recommended])
            ranks += ((order == target[recommended, None]).long().argmax(1) + 1).tolist()
    return ranks


def selection(corpus: Corpus, seeds: list[int]) -> dict[str, Any]:
    """Ranks on dev and test after every epoch of the heads, for every seed."""
    catalogue, splits = corpus
    runs: list[dict[str, Any]] = []
    for seed in seeds:
        model = PECRS.from_backbone(PRESETS["cpu"]["inspired"].config.with_(seed=seed)).eval()
        features = model.item_features(catalogue, cache_dir=RUNS / "cache")
        train = encode_windows(splits["train"], catalogue, model)
        calibrate(model, train, features)
        v = model.encode_catalogue(features)  # what the LM reads in item slots, as in `warm_start`
        sep = model.backbone.tokenizer.sep
        parts = {}
        for part, name in {"dev": "valid", "test": "test"}.items():
            windows = encode_windows(splits[name], catalogue, model)
            windows = [w for w in windows if named_in(w, sep)[:, 2].any()]
            parts[part] = windows, outputs_at_rec(model, windows, v, tqdm)
        ranks: dict[str, list[list[int]]] = {part: [] for part in parts}

        def measured(
            steps: Iterable[Any], model: Any = model, ranks: Any = ranks, parts: Any = parts,
            features: Any = features,
        ) -> Iterator[Any]:  # fmt: skip
            """The epochs; what the LM reads before them is nothing to measure."""
            for step in tqdm(steps, desc=f"seed {model.config.seed}"):
                yield step
                if isinstance(steps, range):
                    now = model.encode_catalogue(features)
                    for part, (windows, at_rec) in parts.items():
                        ranks[part].append(retrieval_ranks(model, windows, at_rec, now))

        warm_start(model, train, features, catalogue, epochs=EPOCHS, progress=measured)
        runs.append({"seed": seed, "rank": ranks})
    dialogue = {
        part: [w.dialogue for w in windows for _ in range(int(named_in(w, sep)[:, 2].sum()))]
        for part, (windows, _) in parts.items()
    }
    return {**machine(), "epochs": EPOCHS, "dialogue": dialogue, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("candidates", "selection"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the INSPIRED data")
    parser.add_argument("--run", default="inspired-cpu-reel-small-pecrs-0")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    corpus = load_folder("inspired", args.data)
    made = candidates(corpus, args.run) if args.what == "candidates" else None
    made = made or selection(corpus, args.seeds)
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    write_run(known | {args.what: made}, RESULT)


if __name__ == "__main__":
    main()
