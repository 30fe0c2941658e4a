"""How far PECRS gets with counts beside it: the better model of the reproduction.

    python -m experiments.fusion --dataset inspired --data FOLDER --model DIR [DIR …]

An item's text says little of how often people name it, and some thousand dialogues are too few to
learn that from. So the retrieval score is joined by two counts from the training part, those of our
baselines: score = -distance / temperature + λ log(1 + popularity) + μ log(1 + co-occurrence), plus
ν for films that the dialogue has named. The weights are chosen on the development part, for each
checkpoint alone (the mean of recall at 1, 10 and 50; the smallest of equals); nothing is trained.
Each DIR is a checkpoint, as `runs/reproduce/NAME/best`
or `data/checkpoints/inspired`; which of several is the better model is also said by the development
part. Writes the ranks of every point to `data/results/fusion_DATASET.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers.utils import logging

from pecrs_lib.assessment import item_vectors
from pecrs_lib.baselines import CoOccurrence, Popularity, fit_baselines
from pecrs_lib.data import Catalogue, Dialogue
from pecrs_lib.data.local import load_folder
from pecrs_lib.evaluation import (
    Predictions,
    as_records,
    paired_bootstrap,
    predict,
    recall_table,
    recommendation_points,
)
from pecrs_lib.measuring import ints, points_of
from pecrs_lib.metrics import recall_at_k
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.protocol import batches_by_length, encode_windows
from pecrs_lib.ranking import read_trunks
from pecrs_lib.runs import machine, write_run

ROOT = Path(__file__).resolve().parents[1]
CUTS = (1, 10, 50)
NONE = (0.0,)
COUNTS = (0.0, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0)
NAMED = (0.0, -0.5, -1.0, -2.0, 0.5, 1.0)
FORMS = {  # which values of λ, μ and ν may be chosen
    "retrieval alone": (NONE, NONE, NONE),
    "with popularity": (COUNTS, NONE, NONE),
    "with co-occurrence": (NONE, COUNTS, NONE),
    "with all three": (COUNTS, COUNTS, NAMED),
}
Floats = NDArray[np.float64]
Turn = tuple[int, int]


def distances(
    model: PECRS, dialogues: Sequence[Dialogue], catalogue: Catalogue, v: torch.Tensor
) -> dict[Turn, Floats]:
    """(N,) distances of every recommending turn, by dialogue and utterance."""
    model.eval()
    found: dict[Turn, Floats] = {}
    every = torch.arange(len(v))
    for part in tqdm(batches_by_length(encode_windows(dialogues, catalogue, model)), leave=False):
        batch = pack(part, response_tokens=model.config.response_tokens)
        if not len(batch.positive):
            continue
        trunk = read_trunks(model, batch, v)
        with torch.inference_mode():
            d = model.distance(
                batch, trunk.x, trunk.hidden, batch.query_row, batch.query_column, v, every
            )
        of = batch.point_response
        keys = zip(batch.dialogue[of].tolist(), batch.utterance[of].tolist(), strict=True)
        found |= dict(zip(keys, d.double().numpy(), strict=True))
    return found


class Part:
    """The recommending turns of some dialogues with what is known of every item there."""

    def __init__(
        self, model: PECRS, dialogues: Sequence[Dialogue], catalogue: Catalogue,
        counts: tuple[Popularity, CoOccurrence], v: torch.Tensor,
    ) -> None:  # fmt: skip
        self.points = recommendation_points(dialogues)
        self.row = [catalogue.row.get(p.item, -1) for p in self.points]
        self.near = {
            turn: -d / model.config.temperature
            for turn, d in distances(model, dialogues, catalogue, v).items()
        }
        self.places: dict[Turn, list[int]] = {turn: [] for turn in self.near}
        for k, p in enumerate(self.points):
            if (p.dialogue, p.turn) in self.near:
                self.places[p.dialogue, p.turn].append(k)
        popularity, cooccurrence = counts
        often = np.log1p(popularity.counts)
        self.counts = {}
        for d, t in self.near:
            before = Dialogue(dialogues[d].id, dialogues[d].utterances[:t])
            named = np.zeros(len(catalogue))
            said = {i for u in before.utterances for i in u.items if i in catalogue}
            named[[catalogue.row[i] for i in said]] = 1
            self.counts[d, t] = often, np.log1p(cooccurrence.together(before)), named

    def ranked(self, weights: Sequence[float], name: str) -> Predictions:
        """Every point ranked over the whole catalogue; ties in its order."""
        rank = np.full(len(self.points), np.inf)
        first = np.full(len(self.points), -1)
        for turn, places in self.places.items():
            counts = zip(weights, self.counts[turn], strict=True)
            score = self.near[turn] + sum(w * c for w, c in counts)
            first[places] = int(score.argmax())
            for k in places:
                if (j := self.row[k]) >= 0:
                    rank[k] = 1 + (score > score[j]).sum() + (score[:j] == score[j]).sum()
        return Predictions.at(name, self.points, rank, first)


def name_of(folder: Path) -> str:
    """What a checkpoint is called: by its run, or as it is shipped."""
    return folder.parent.name if folder.name == "best" else f"{folder.name}, as shipped"


def mean_recall(found: Predictions) -> float:
    return float(np.mean([recall_at_k(found.rank, k) for k in CUTS]))


def chosen(dev: Part, form: str) -> tuple[float, ...]:
    """The weights that a form is best with on the development part."""

    def goodness(weights: tuple[float, ...]) -> tuple[float, float]:
        return round(mean_recall(dev.ranked(weights, "")), 6), -sum(map(abs, weights))

    return max(product(*FORMS[form]), key=goodness)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", choices=("inspired", "redial"), default="inspired")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--model", type=Path, nargs="+", required=True, help="checkpoints")
    args = parser.parse_args()
    logging.disable_progress_bar()
    catalogue, splits = load_folder(args.dataset, args.data)
    baselines = fit_baselines(splits["train"], catalogue)
    known = [predict(b, splits["test"], catalogue) for b in baselines]
    fitted = splits["train"], catalogue
    counts = Popularity().fit(*fitted), CoOccurrence().fit(*fitted)
    runs: list[dict[str, Any]] = []
    systems: list[Predictions] = []
    for folder in args.model:
        model = PECRS.from_pretrained(folder)
        v = item_vectors(model, catalogue, cache_dir=ROOT / "runs" / "reproduce" / "cache")
        dev, test = (Part(model, splits[p], catalogue, counts, v) for p in ("valid", "test"))
        for form in FORMS:
            name, weights = f"{name_of(folder)}, {form}", chosen(dev, form)
            on_dev, found = (part.ranked(weights, name) for part in (dev, test))
            systems.append(found)
            runs.append(
                {
                    "name": name,
                    "weights": list(weights),
                    "dev": {f"R@{k}": recall_at_k(on_dev.rank, k) for k in CUTS},
                    "rank": ints(found.rank),
                    "top1": found.top1.tolist(),
                }
            )
            print(f"{name}: {weights}, dev {runs[-1]['dev']}", flush=True)
    best = max(range(len(runs)), key=lambda k: sum(runs[k]["dev"].values()))
    against = [
        {"against": b.name, "targets": targets}
        | vars(paired_bootstrap(systems[best], b, k, targets))
        for b in known
        for targets in ("all", "novel")
        for k in CUTS
    ]
    record = {
        **machine(), "dataset": args.dataset, "n": len(systems[0].rank),
        "points": points_of(systems[0]), "runs": runs, "best on dev": runs[best]["name"],
        "paired": against,
        "rows": as_records(recall_table([*known, *systems])),
    }  # fmt: skip
    write_run(record, ROOT / "data" / "results" / f"fusion_{args.dataset}.json")
    print(recall_table([*known, *systems]).round(1).to_string(index=False))
    print("best on dev:", runs[best]["name"])


if __name__ == "__main__":
    main()
