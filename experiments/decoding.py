"""Table 8 with our model: what each decoding strategy says, and what the metrics make of it.

    python -m experiments.decoding [--dialogues 60] [--seeds 0 1]

Replies to every recommender turn of MiniReel's first test dialogues, with the shipped checkpoint
and with the one of `experiments.losses` that never saw the response loss. Writes
`data/results/decoding.json`: metrics with intervals over dialogues, seconds a reply, examples.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from experiments.inspired import ROOT, machine
from pecrs_lib.assessment import Conversation, converse, item_vectors
from pecrs_lib.data import Catalogue, Dialogue, Mention, Utterance, bundled, load_minireel
from pecrs_lib.decoding import STRATEGIES
from pecrs_lib.metrics import bootstrap_means, perplexity, rouge
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import encode_windows, rank_windows

RESULT = ROOT / "data" / "results" / "decoding.json"
WITHOUT = ROOT / "runs" / "losses" / "without-response-0" / "last"
EXAMPLES = 8


def repeated(text: str, n: int = 3) -> float:
    """Share of the n-grams of a reply that it has said before, 0 to 1."""
    words = text.split()
    grams = [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def fluency(
    judge: PECRS, told: Conversation, dialogues: list[Dialogue], catalogue: Catalogue,
    v: torch.Tensor,
) -> float:  # fmt: skip
    """Perplexity of the replies under the shipped model, each after its history."""
    ended = []
    for d, t, reply in zip(told.dialogue, told.turn, told.replies, strict=True):
        mentions: tuple[Mention, ...] = ()
        if reply.recommended is not None:
            movie = reply.recommended.movie
            start = reply.text.find(movie.name)
            if start >= 0:
                mentions = (Mention(movie.id, start, start + len(movie.name)),)
        said = Utterance("recommender", reply.text, mentions)
        ended.append(Dialogue(dialogues[d].id, (*dialogues[d].utterances[:t], said)))
    ranked = rank_windows(judge, encode_windows(ended, catalogue, judge), v, candidates=1)
    last = ranked.response_utterance == np.array(told.turn)[ranked.response_dialogue]
    return perplexity(float(ranked.nll[last].sum()), int(ranked.tokens[last].sum()))


def measured(told: Conversation, seconds: float) -> dict[str, Any]:
    """The metrics of one conversation; ROUGE and length per reply with intervals."""
    raw = [reply.raw for reply in told.replies]
    each = [rouge([r], [x]) for r, x in zip(raw, told.references, strict=True)]
    columns = {
        "ROUGE-1": [x["rouge1"] for x in each], "ROUGE-2": [x["rouge2"] for x in each],
        "words": [len(r.split()) for r in raw], "repeated (%)": [100 * repeated(r) for r in raw],
    }  # fmt: skip
    values = np.array(list(columns.values()), dtype=float).T
    means = bootstrap_means(np.array(told.dialogue), values, 1000, seed=0)
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    found: dict[str, Any] = {
        name: {"value": float(values[:, k].mean()), "low": low[k], "high": high[k]}
        for k, name in enumerate(columns)
    }
    plain = {k: x for k, x in told.metrics().items() if not k.startswith("rouge")}
    return found | plain | {"milliseconds a reply": 1000 * seconds / len(raw)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dialogues", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    catalogue, splits = load_minireel()
    test = splits["test"][: args.dialogues]
    folders: dict[str, Path] = {
        "trained": bundled("checkpoints/minireel"), "without the response loss": WITHOUT,
    }  # fmt: skip
    models = {name: PECRS.from_pretrained(folder).eval() for name, folder in folders.items()}
    judge = models["trained"]
    v_judge = item_vectors(judge, catalogue)
    rows, examples = [], []
    for name, model in models.items():
        v = item_vectors(model, catalogue)
        for strategy, arguments in tqdm(STRATEGIES.items(), desc=name):
            seeds = args.seeds if arguments.get("do_sample") else args.seeds[:1]
            for seed in seeds:
                started = time.perf_counter()
                told = converse(model, test, catalogue, v, seed=seed, **arguments)
                row = measured(told, time.perf_counter() - started)
                row["perplexity"] = fluency(judge, told, test, catalogue, v_judge)
                rows.append({"model": name, "strategy": strategy, "seed": seed} | row)
                if seed == args.seeds[0]:
                    said = list(zip(told.replies, told.references, strict=True))
                    examples += [
                        {"model": name, "strategy": strategy, "reply": r.raw, "true": true}
                        for r, true in said[:: max(1, len(said) // EXAMPLES)]
                    ]
    record = machine() | {
        "data": "MiniReel test", "dialogues": len(test), "replies": len(told.replies),
        "strategies": STRATEGIES, "rows": rows, "examples": examples,
    }  # fmt: skip
    RESULT.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
