"""How far PECRS gets with counts beside it: the better model of the reproduction.

    python -m experiments.fusion --dataset inspired --data FOLDER --model DIR [DIR …]

An item's text says little of how often people name it, and some thousand dialogues are too few to
learn that from. So the retrieval score -distance / temperature is joined by what counting knows:
the logarithms of a film's popularity and of its co-occurrence with the films named so far, as
counts and as cosines, both from the training part; whether it was named, and how recently. The
weights are found by coordinate ascent on the development part, for each checkpoint alone, where
the geometric mean of recall at 1, 10 and 50 is largest; nothing is trained. Which checkpoint is the
better model is also said by the development part. The same counts without PECRS, and weights
chosen for one k alone, show what is due to what.

Each DIR is a checkpoint, as `runs/reproduce/NAME/best` or `data/checkpoints/inspired`. Writes the
ranks of every point to `data/results/fusion_DATASET.json`.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers.utils import logging

from pecrs_lib.assessment import item_vectors
from pecrs_lib.baselines import CoOccurrence, Popularity, fit_baselines
from pecrs_lib.batches import batches_by_length
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
from pecrs_lib.metrics import recall_at_k
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.protocol import encode_windows
from pecrs_lib.ranking import read_trunks
from pecrs_lib.reproduction.measuring import ints, points_of
from pecrs_lib.reproduction.runs import machine, write_run

ROOT = Path(__file__).resolve().parents[1]
CUTS = (1, 10, 50)
COUNTS = ("popularity", "co-occurrence", "cosine", "named", "recent")
FORMS: dict[str, Sequence[str]] = {  # which counts may join the retrieval score
    "retrieval alone": (),
    "with popularity": COUNTS[:1],
    "with co-occurrence": COUNTS[1:3],
    "with counts": COUNTS,
}
STEPS = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
RARE = 5  # added to every film's popularity, so that a single pair proves little
RECENT = 2.0  # utterances after which a mention counts e times less
Weights = dict[str, float]
ALONE: Weights = {"retrieval": 1.0}
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


def cosines(counted: CoOccurrence) -> CoOccurrence:
    """The same with c(i, j) / √((n_i + RARE)(n_j + RARE)), n_i the popularity of film i."""
    size = counted.popularity + RARE
    named = np.repeat(np.arange(len(size)), np.diff(counted.first))
    made = copy.copy(counted)
    made.counts = counted.counts / np.sqrt(size[named] * size[counted.others])
    return made


def mentions(before: Dialogue, catalogue: Catalogue) -> Floats:
    """(2, N) whether each film was named, and e^(-utterances since / RECENT)."""
    found = np.zeros((2, len(catalogue)))
    for since, utterance in enumerate(reversed(before.utterances)):
        rows = [catalogue.row[i] for i in utterance.items if i in catalogue]
        found[0, rows] = 1
        found[1, rows] = np.maximum(found[1, rows], np.exp(-since / RECENT))
    return found


class Part:
    """The recommending turns of some dialogues with what is known of every item there."""

    def __init__(
        self, model: PECRS, dialogues: Sequence[Dialogue], catalogue: Catalogue,
        counts: tuple[Popularity, CoOccurrence], v: torch.Tensor,
    ) -> None:  # fmt: skip
        self.points = recommendation_points(dialogues)
        self.row = [catalogue.row.get(p.item, -1) for p in self.points]
        self.known: dict[Turn, NDArray[np.float32]] = {}  # (1 + counts, N): retrieval comes first
        self.places: dict[Turn, list[int]] = {}
        often, together = np.log1p(counts[0].counts), counts[1]
        alike = cosines(together)
        for (d, t), far in distances(model, dialogues, catalogue, v).items():
            before = Dialogue(dialogues[d].id, dialogues[d].utterances[:t])
            pairs = together.together(before), 20 * alike.together(before)
            near = -far / model.config.temperature
            self.known[d, t] = np.stack(
                [near, often, *np.log1p(pairs), *mentions(before, catalogue)]
            ).astype(np.float32)
            self.places[d, t] = []
        for k, p in enumerate(self.points):
            if (p.dialogue, p.turn) in self.places:
                self.places[p.dialogue, p.turn].append(k)

    def ranked(self, weights: Weights, name: str = "") -> Predictions:
        """Every point ranked over the whole catalogue; ties in its order."""
        w = np.array([weights.get(c, 0) for c in ("retrieval", *COUNTS)], np.float32)
        rank = np.full(len(self.points), np.inf)
        first = np.full(len(self.points), -1)
        for turn, places in self.places.items():
            score = w @ self.known[turn]
            first[places] = int(score.argmax())
            for k in places:
                if (j := self.row[k]) >= 0:
                    rank[k] = 1 + (score > score[j]).sum() + (score[:j] == score[j]).sum()
        return Predictions.at(name, self.points, rank, first)


def name_of(folder: Path) -> str:
    """What a checkpoint is called: by its run, or as it is shipped."""
    return folder.parent.name if folder.name == "best" else f"{folder.name}, as shipped"


def recalls(found: Predictions) -> dict[str, float]:
    return {f"R@{k}": recall_at_k(found.rank, k) for k in CUTS}


def goodness(found: Predictions, cuts: Sequence[int] = CUTS) -> float:
    """The geometric mean of recall at some k, as a logarithm."""
    return round(float(np.mean([np.log(max(recall_at_k(found.rank, k), 0.01)) for k in cuts])), 6)


def chosen(dev: Part, counts: Sequence[str], start: Weights, cuts: Sequence[int] = CUTS) -> Weights:
    """The weights that are best on the development part: coordinate ascent from `start`."""
    best, weights, moved = goodness(dev.ranked(start), cuts), start, True
    while moved:
        moved = False
        for count in counts:
            tried = [weights | {count: weights.get(count, 0) + step} for step in STEPS]
            good = [goodness(dev.ranked(other), cuts) for other in tried]
            if max(good) > best:
                best, weights, moved = max(good), tried[int(np.argmax(good))], True
    return weights


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

    def part(model: PECRS, name: str) -> Part:
        v = item_vectors(model, catalogue, cache_dir=ROOT / "runs" / "reproduce" / "cache")
        return Part(model, splits[name], catalogue, counts, v)

    tried: list[dict[str, Any]] = []
    best, of, dev = -np.inf, args.model[0], None
    for folder in args.model:
        this = part(PECRS.from_pretrained(folder), "valid")
        for form, free in FORMS.items():
            found = this.ranked(weights := chosen(this, free, ALONE))
            tried.append(
                {"model": name_of(folder), "form": form, "weights": weights, "dev": recalls(found)}
            )
            print(tried[-1], flush=True)
            if goodness(found) > best:
                best, of, dev = goodness(found), folder, this
    assert dev is not None
    weights_of = {t["form"]: t["weights"] for t in tried if t["model"] == name_of(of)}
    weights_of["counts alone"] = chosen(dev, COUNTS, {"co-occurrence": 1.0})
    for k in CUTS:
        weights_of[f"for R@{k}"] = chosen(dev, COUNTS, weights_of["with counts"], (k,))
    test = part(PECRS.from_pretrained(of), "test")
    systems = {form: test.ranked(weights, form) for form, weights in weights_of.items()}
    against = [
        {"system": form, "against": b.name, "targets": targets}
        | vars(paired_bootstrap(systems[form], b, k, targets))
        for form in ("with counts", "counts alone")
        for b in (*known, *[systems["counts alone"]] * (form == "with counts"))
        for targets in ("all", "novel")
        for k in CUTS
    ]
    table = recall_table([*known, *systems.values()])
    record = {
        **machine(), "dataset": args.dataset, "n": len(test.points),
        "points": points_of(systems["with counts"]), "tried": tried, "model": name_of(of),
        "runs": [
            {"name": form, "weights": weights, "dev": recalls(dev.ranked(weights)),
             "rank": ints(systems[form].rank), "top1": systems[form].top1.tolist()}
            for form, weights in weights_of.items()
        ],
        "paired": against, "rows": as_records(table),
    }  # fmt: skip
    write_run(record, ROOT / "data" / "results" / f"fusion_{args.dataset}.json")
    print(table.round(1).to_string(index=False))
    print("best on dev:", name_of(of))


if __name__ == "__main__":
    main()
