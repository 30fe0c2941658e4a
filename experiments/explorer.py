"""What the negative-sampling explorer answers from: frozen outputs, a grid of runs, and costs.

    python -m experiments.explorer outputs   # data/explorer/outputs.safetensors
    python -m experiments.explorer grid      # data/results/explorer_grid.json
    python -m experiments.explorer cost      # data/results/explorer_cost.json, on a quiet machine

`outputs` reads MiniReel's training and validation dialogues with the shipped checkpoint. `grid`
trains the retrieval heads on them for every combination of the knobs, two seeds each. `cost`
times steps of the whole model, each setting in a process of its own for its peak memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from experiments.inspired import ROOT
from pecrs_lib.batches import batches_by_length, epoch_batches, make_batch
from pecrs_lib.config import TINY
from pecrs_lib.data import Dialogue, bundled, load_minireel
from pecrs_lib.evaluation import recommendation_points
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.protocol import encode_windows
from pecrs_lib.ranking import read_trunks, score_candidates
from pecrs_lib.reproduction.runs import machine
from pecrs_lib.widgets.explorer import K, Outputs, Setting, ranks, recall, train_heads

OUTPUTS = ROOT / "data" / "explorer" / "outputs.safetensors"
GRID = ROOT / "data" / "results" / "explorer_grid.json"
COST = ROOT / "data" / "results" / "explorer_cost.json"
DIALOGUES = 1000  # of training: what a minute of live training can use
M_TRAIN = (1, 4, 16, 64, 256, None)
M_INFERENCE = (1, 10, 25, 50, 100, 200, 400, 600)
TEMPERATURES = (0.03, 0.1, 0.3)
SEEDS = 2


@torch.inference_mode()
def read(model: PECRS, dialogues: list[Dialogue], v: torch.Tensor, gains: bool) -> dict[str, Any]:
    """Query outputs, targets, turns and dialogues of the points; and what re-ranking adds."""
    catalogue, _ = load_minireel()
    parts: list[list[torch.Tensor]] = []
    for part in tqdm(batches_by_length(encode_windows(dialogues, catalogue, model))):
        batch = pack(part)
        if not len(batch.positive):
            continue
        trunk = read_trunks(model, batch, v)
        row, column = batch.query_row, batch.query_column
        d = model.queries(trunk.hidden[row, column], trunk.x, row, column)
        gain = torch.empty(len(d), 0)
        if gains:  # with all distances 0 the score of a candidate is g(q_j) alone
            everything = torch.arange(len(v)).expand(len(d), -1)
            gain = score_candidates(model, trunk, row, column, everything, 0.0 * everything, v)
        who = batch.dialogue[batch.point_response]
        turn = who * 1000 + batch.utterance[batch.point_response]
        parts.append([d, batch.positive, turn, who, gain])
    return dict(
        zip(
            ("d", "target", "turn", "dialogue", "gain"),
            map(torch.cat, zip(*parts, strict=True)),
            strict=True,
        )
    )


def outputs() -> None:
    catalogue, splits = load_minireel()
    model = PECRS.from_pretrained(bundled("checkpoints/minireel")).eval()
    features = model.item_features(catalogue)
    v = model.encode_catalogue(features)
    item = model.items.standardise(model.items.pooled(features))
    train = read(model, splits["train"][:DIALOGUES], v, gains=False)
    valid = read(model, splits["valid"], v, gains=True)
    novel = {
        (p.dialogue * 1000 + p.turn, catalogue.row[p.item]): p.novel
        for p in recommendation_points(splits["valid"])
    }
    keys = zip(valid["turn"].tolist(), valid["target"].tolist(), strict=True)
    OUTPUTS.parent.mkdir(parents=True, exist_ok=True)
    Outputs(
        item=item, query=train["d"], target=train["target"], turn=train["turn"],
        valid_query=valid["d"], valid_target=valid["target"], valid_dialogue=valid["dialogue"],
        valid_novel=torch.tensor([novel[key] for key in keys]), valid_gain=valid["gain"],
    ).save(OUTPUTS)  # fmt: skip


def grid() -> None:
    torch.set_num_threads(1)
    found, data = [], Outputs.load(OUTPUTS)
    knobs = list(itertools.product(M_TRAIN, TEMPERATURES, (True, False), (False, True)))
    for m, temperature, shared, popular in tqdm(knobs):
        setting = Setting(m, shared, popular, temperature)
        started = time.perf_counter()
        runs = [train_heads(data, setting, seed=seed) for seed in range(SEEDS)]
        seconds = (time.perf_counter() - started) / SEEDS
        row: dict[str, Any] = {
            "setting": {"negatives": m, "temperature": temperature, "share_over_batch": shared,
                        "popular": popular},
            "seconds": round(seconds, 2), "recall": {},
        }  # fmt: skip
        for candidates in M_INFERENCE:
            by_seed = [recall(ranks(run, data, candidates), data) for run in runs]
            row["recall"][str(candidates)] = {
                f"R@{k}": {
                    part: round(float(np.mean([r[f"R@{k}"][part] for r in by_seed])), 2)
                    for part in ("value", "low", "high")
                }
                for k in K
            }
        found.append(row)
    record = machine() | {
        "seeds": SEEDS, "train_points": len(data.query), "valid_points": len(data.valid_query),
        "candidates": M_INFERENCE, "runs": found,
    }  # fmt: skip
    GRID.write_text(json.dumps(record) + "\n", encoding="utf-8")


def step_seconds(m: int, shared: bool, tasks: bool) -> dict[str, float]:
    """Seconds of a training step of eight dialogues, and peak memory of this process."""
    torch.set_num_threads(1)
    catalogue, splits = load_minireel()
    config = TINY.with_(
        negatives=m, retrieval_negatives=m, share_over_batch=shared, share_over_tasks=tasks
    )
    model = PECRS.from_backbone(config).train()
    features = model.item_features(catalogue)
    windows = encode_windows(splits["train"][:160], catalogue, model)
    batches = [
        make_batch(part, len(catalogue), config, torch.Generator().manual_seed(k))
        for k, part in enumerate(epoch_batches(windows, 8, 0, 0)[:5])
    ]
    times = []
    for _ in range(4):  # the first warms up
        for batch in batches:
            started = time.perf_counter()
            model(batch, features).joint(config).backward()
            times.append(time.perf_counter() - started)
    least = np.array(times).reshape(4, -1)[1:].min(0)  # what else runs only ever adds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": float(least.mean()), "peak_gib": peak}


def cost() -> None:
    rows = []
    for m, shared, tasks in tqdm(
        list(itertools.product((1, 4, 16, 64), (True, False), (True, False)))
    ):
        asked = json.dumps([m, shared, tasks])
        call = [sys.executable, "-m", "experiments.explorer", "step", asked]
        told = subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        rows.append(
            {"negatives": m, "share_over_batch": shared, "share_over_tasks": tasks}
            | json.loads(told.splitlines()[-1])
        )
    record = machine() | {"dialogues": 8, "threads": 1, "rows": rows}
    COST.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", choices=("outputs", "grid", "cost", "step"))
    parser.add_argument("asked", nargs="?", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part == "step":
        print(json.dumps(step_seconds(*json.loads(args.asked))))
        return
    {"outputs": outputs, "grid": grid, "cost": cost}[args.part]()


if __name__ == "__main__":
    main()
