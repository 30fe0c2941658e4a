"""How strongly should films named before count? `Config.repetition_scale` on validation dialogues.

    python -m experiments.repetition [--model DIR …]

Training finds how likely people are to come back to a film of the dialogue. With it, recall over
all targets is best at large k; but where such a film takes the first place, no novel target can.
Here trained models rank MiniReel's validation part with that knowledge counted 0 to 3 times, and
with films named before left out, as in a chat. Writes `data/results/minireel_repetition.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm.auto import tqdm
from transformers.utils import logging

from pecrs_lib.assessment import item_vectors, predictions_of, rank_dialogues
from pecrs_lib.baselines import fit_baselines
from pecrs_lib.data import bundled, load_minireel
from pecrs_lib.evaluation import as_records, predict, recall_table
from pecrs_lib.model import PECRS
from pecrs_lib.reproduction.runs import machine, write_run

ROOT = Path(__file__).resolve().parents[1]
OUT = 1000.0  # so far away that whatever was named comes last
SCALES = (0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 3.0, OUT)
CANDIDATES = 25  # re-ranked, as in the demo


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, nargs="+", help="checkpoints; default: the shipped one",
        default=[bundled("checkpoints/minireel")],
    )  # fmt: skip
    args = parser.parse_args()
    logging.disable_progress_bar()
    catalogue, splits = load_minireel()
    valid = splits["valid"]
    systems = [predict(b, valid, catalogue) for b in fit_baselines(splits["train"], catalogue)]
    for folder in args.model:
        model = PECRS.from_pretrained(folder)
        v = item_vectors(model, catalogue, cache_dir=ROOT / "runs" / "cache")
        for scale in tqdm(SCALES, desc=str(folder)):
            model.queries.repetition_scale = scale
            ranked = rank_dialogues(model, valid, catalogue, v, candidates=CANDIDATES)
            name = f"{'/'.join(folder.parts[-3:])}, {'left out' if scale == OUT else scale}"
            systems.append(predictions_of(ranked, valid, catalogue, name))
    table = recall_table(systems)
    record = machine() | {"data": "MiniReel validation", "rows": as_records(table)}
    write_run(record, ROOT / "data" / "results" / "minireel_repetition.json")
    print(table.round(1).to_string(index=False))


if __name__ == "__main__":
    main()
