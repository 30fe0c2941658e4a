"""Table 8 with our models: what each decoding strategy says, and what the metrics make of it.

    python -m experiments.decoding          # replies and metrics; goes on where it was stopped
    python -m experiments.decoding --time   # milliseconds a reply, on a quiet machine

Replies to every recommender turn of MiniReel's first test dialogues: with the shipped checkpoint,
and with the two of `experiments.losses` (run that first) that were trained with all three losses
and without the response loss. Writes `data/results/decoding.json`: metrics with intervals over
dialogues, examples, times.
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

from experiments.inspired import ROOT
from pecrs_lib.assessment import Conversation, converse, item_vectors
from pecrs_lib.data import Catalogue, Dialogue, Mention, Utterance, bundled, load_minireel
from pecrs_lib.decoding import STRATEGIES
from pecrs_lib.generation import respond
from pecrs_lib.metrics import bootstrap_means, perplexity, rouge
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import encode_windows, rank_windows
from pecrs_lib.reproduction.runs import machine

RESULT = ROOT / "data" / "results" / "decoding.json"
FOLDERS: dict[str, Path] = {
    "trained": bundled("checkpoints/minireel"),
    "all three losses": ROOT / "runs" / "losses" / "all-three-losses-0" / "last",
    "without the response loss": ROOT / "runs" / "losses" / "without-response-0" / "last",
}
COMPARED = (  # between the two of `experiments.losses`
    "greedy", "beam search", "diverse beam search, 1.0", "top-k, k = 50", "nucleus, p = 0.95",
)  # fmt: skip
EXAMPLES = 8  # of each strategy
BATCH, TIMES = 16, 3


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


def measured(told: Conversation) -> dict[str, Any]:
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
    return found | plain


def timed(model: PECRS, histories: list[Dialogue], catalogue: Catalogue) -> dict[str, Any]:
    """Milliseconds a reply of each strategy, all histories in one batch: median, least and most."""
    v = item_vectors(model, catalogue)
    found = {}
    for strategy, arguments in tqdm(STRATEGIES.items(), desc="time"):
        taken = []
        for seed in range(TIMES):
            started = time.perf_counter()
            respond(model, histories, catalogue, v, top=2, seed=seed, **arguments)
            taken.append(1000 * (time.perf_counter() - started) / len(histories))
        found[strategy] = {"value": float(np.median(taken)), "low": min(taken), "high": max(taken)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dialogues", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0, help="of sampling")
    parser.add_argument("--time", action="store_true", help="measure the time, nothing else")
    args = parser.parse_args()
    catalogue, splits = load_minireel()
    test = splits["test"][: args.dialogues]
    settings = {"data": "MiniReel test", "dialogues": len(test), "seed": args.seed}
    record: dict[str, Any] = {"rows": [], "examples": [], "milliseconds": {}}
    if RESULT.exists():
        before = json.loads(RESULT.read_text(encoding="utf-8"))
        record = before if settings.items() <= before.items() else record
    record = machine() | settings | {"strategies": STRATEGIES} | record

    def write() -> None:
        RESULT.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")

    judge = PECRS.from_pretrained(FOLDERS["trained"]).eval()
    if args.time:
        turns = [Dialogue(d.id, d.utterances[:t]) for d in test for t in (3, 5)][:BATCH]
        record["milliseconds"] = machine() | {"replies": BATCH} | timed(judge, turns, catalogue)
        return write()
    done = {(row["model"], row["strategy"]) for row in record["rows"]}
    v_judge = item_vectors(judge, catalogue)
    for name, folder in FOLDERS.items():
        model = PECRS.from_pretrained(folder).eval()
        v = item_vectors(model, catalogue)
        wanted = STRATEGIES if name == "trained" else {x: STRATEGIES[x] for x in COMPARED}
        for strategy, arguments in tqdm(wanted.items(), desc=name):
            if (name, strategy) in done:
                continue
            told = converse(model, test, catalogue, v, seed=args.seed, **arguments)
            row = measured(told) | {"perplexity": fluency(judge, told, test, catalogue, v_judge)}
            record["replies"] = len(told.replies)
            record["rows"].append({"model": name, "strategy": strategy} | row)
            said = list(zip(told.replies, told.references, strict=True))
            record["examples"] += [
                {"model": name, "strategy": strategy, "reply": r.raw, "true": true}
                for r, true in said[:: max(1, len(said) // EXAMPLES)]
            ]
            write()


if __name__ == "__main__":
    main()
