"""What a bundled backbone knows: perplexity, neighbours, continuations, a probe; fills in its card.

    python -m experiments.backbone_card reel-small --data FOLDER [--probe]

Perplexity per token on held-out dialogues, beside an interpolated 5-gram model (Witten-Bell) of
the same text and beside the same network untrained. `--probe` trains PECRS on the backbone and on
random weights of its shape, with equal steps, and compares recall. Everything goes to
`data/results/backbone-NAME.json` and into the tables of the model card.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from experiments.backbone import corpus
from experiments.inspired import random_backbone
from experiments.reel import CONFIG
from pecrs_lib.assessment import item_vectors, predictions_of, rank_dialogues
from pecrs_lib.config import TINY, Config
from pecrs_lib.data import load_minireel
from pecrs_lib.data.local import inspired_folder
from pecrs_lib.data.minireel import bundled
from pecrs_lib.documents import dialogue_text
from pecrs_lib.evaluation import as_records, recall_table
from pecrs_lib.items import pool
from pecrs_lib.model import PECRS
from pecrs_lib.pretrain import stream_perplexity, token_stream
from pecrs_lib.reproduction.runs import machine
from pecrs_lib.training import Trainer

ROOT = Path(__file__).resolve().parents[1]
FILMS = (
    "Toy Story", "Alien", "Die Hard", "The Notebook", "Halloween", "Saving Private Ryan",
)  # fmt: skip
PROBE = 800  # dialogues of MiniReel the probe trains on, about as many as INSPIRED has
OPENINGS = (
    "User: Hi! I am looking for a good comedy.<|endoftext|>System:",
    "User: I love Adam Sandler.<|endoftext|>System:",
    "User: What is it about?<|endoftext|>System: It's about",
)


def record_of(name: str) -> Path:
    """The result file of a bundled backbone."""
    return ROOT / "data" / "results" / f"backbone-{name}.json"


def five_gram(train: np.ndarray, test: np.ndarray, vocabulary: int, n: int = 5) -> float:
    """Perplexity of an interpolated n-gram model with Witten-Bell smoothing."""

    def keys(stream: np.ndarray, order: int) -> np.ndarray:
        """One hash per position: of the token there and the order - 1 before it."""
        h = np.zeros(len(stream) - n + 1, np.uint64)
        for back in range(order):
            part = stream[n - 1 - back : len(stream) - back].astype(np.uint64)
            h = (h ^ (part + np.uint64(back * 1_000_003 + 1))) * np.uint64(0x9E3779B97F4A7C15)
            h ^= h >> np.uint64(29)
        return h

    def history(stream: np.ndarray, order: int) -> np.ndarray:
        shifted = np.concatenate([[0], stream[:-1]])
        return keys(shifted, order - 1) if order > 1 else np.zeros(len(stream) - n + 1, np.uint64)

    p = np.full(len(test) - n + 1, 1 / vocabulary)
    for order in range(1, n + 1):
        words, first, count = np.unique(keys(train, order), return_index=True, return_counts=True)
        past = history(train, order)
        seen, total = np.unique(past, return_counts=True)
        types = np.zeros(len(seen))
        np.add.at(types, np.searchsorted(seen, past[first]), 1)

        def look(table: np.ndarray, value: np.ndarray, key: np.ndarray) -> np.ndarray:
            at = np.searchsorted(table, key).clip(max=len(table) - 1)
            return np.where(table[at] == key, value[at], 0)

        c = look(words, count, keys(test, order))
        h = history(test, order)
        N, T = look(seen, total, h), look(seen, types, h)
        p = np.where(N > 0, (c + T * p) / np.maximum(N + T, 1), p)
    return math.exp(-np.log(p).mean())


def neighbours(name: str, k: int = 3) -> dict[str, list[str]]:
    """Films whose item texts lie nearest, by cosine of centred mean outputs."""
    catalogue, _ = load_minireel()
    features = PECRS.from_backbone(TINY.with_(backbone=name)).item_features(catalogue)
    C, mask = features.gather(torch.arange(len(features)))
    mean = pool(C, torch.zeros(C.shape[-1]), mask)
    unit = torch.nn.functional.normalize((mean - mean.mean(0)) / mean.std(0), dim=1)
    found = {}
    for title in FILMS:
        row = next(j for j, m in enumerate(catalogue) if m.title == title)
        near = (unit @ unit[row]).argsort(descending=True)[1 : k + 1]
        found[catalogue[row].name] = [catalogue[int(j)].name for j in near]
    return found


def probe(folder: Path, data: Path, config: Config, seeds: int) -> list[dict[str, Any]]:
    """Recall on validation dialogues after equal training, pre-trained against random weights.

    The last epoch counts, so that no epoch is chosen on what is measured.
    """
    reel, splits = load_minireel()
    inspired, parts = inspired_folder(data / "inspired")
    sets = {
        "MiniReel valid": (reel, splits["train"][:PROBE], splits["valid"]),
        "INSPIRED dev": (inspired, parts["train"], parts["valid"]),
    }
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        other = random_backbone(str(folder), Path(scratch) / "random")
        for name, (catalogue, train, valid) in sets.items():
            predictions = []
            for seed in range(seeds):
                for backbone in (folder, other):
                    model = PECRS.from_backbone(config.with_(backbone=str(backbone), seed=seed))
                    out = Path(scratch) / f"{name}-{seed}-{backbone.name}"
                    run = Trainer(model, catalogue, train, valid[:1], out)
                    run.fit()
                    v = item_vectors(run.raw_model, catalogue)
                    found = predictions_of(
                        rank_dialogues(run.raw_model, valid, catalogue, v), valid, catalogue,
                        name=f"{'random' if backbone == other else 'pre-trained'}, seed {seed}",
                    )  # fmt: skip
                    predictions.append(found)
            rows += [{"data": name} | r for r in as_records(recall_table(predictions))]
    return rows


def stages(folder: Path) -> dict[str, dict[str, float]]:
    """Steps, tokens read and wall seconds of the two stages, from their records."""
    found = {}
    for stage in ("general", "dialogue"):
        record = json.loads((folder / f"{stage}.json").read_text(encoding="utf-8"))
        last = record["curve"][-1]
        found[stage] = {key: last[key] for key in ("step", "tokens", "seconds")}
        found[stage]["text"] = record["train_tokens"]
    return found


def tables(found: dict[str, Any]) -> dict[str, list[str]]:
    names = list(next(iter(found["perplexity"].values())))
    rows = {"stages": ["| stage | steps | tokens read | tokens of the text | hours |",
                       "|---|---|---|---|---|"]}  # fmt: skip
    for stage, of in found.get("stages", {}).items():
        read, text = (f"{of[key] / 1e6:.1f} M" for key in ("tokens", "text"))
        hours = of["seconds"] / 3600
        rows["stages"].append(f"| {stage} | {of['step']:,} | {read} | {text} | {hours:.1f} |")
    rows |= {"perplexity": [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]}
    for system, values in found["perplexity"].items():
        rows["perplexity"].append(
            f"| {system} | {' | '.join(f'{v:.1f}' for v in values.values())} |"
        )
    rows["neighbours"] = ["| film | nearest item texts |", "|---|---|"] + [
        f"| {film} | {'; '.join(near)} |" for film, near in found["neighbours"].items()
    ]
    rows["continuations"] = [f"- {text}" for text in found["continuations"]]
    if "probe" in found:
        rows["probe"] = ["| data | backbone | n | R@10 | R@50 |", "|---|---|---|---|---|"]
        for r in found["probe"]:
            if r["targets"] == "all":
                cells = [f"{r[k]['value']:.1f} [{r[k]['low']:.1f}, {r[k]['high']:.1f}]"
                         for k in ("R@10", "R@50")]  # fmt: skip
                rows["probe"].append(
                    f"| {r['data']} | {r['system']} | {r['n']} | {' | '.join(cells)} |"
                )
    return rows


def card(path: Path, found: dict[str, Any]) -> None:
    """Rewrite the tables of the model card from the result file."""
    text = path.read_text(encoding="utf-8")
    for name, rows in tables(found).items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)",
            lambda m, rows=rows: m[1] + "\n".join(rows) + "\n" + m[2], text, flags=re.DOTALL,
        )  # fmt: skip
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--epochs", type=int, default=6, help="of the probe's training")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    folder = bundled(f"backbone/{args.name}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    untrained = GPT2LMHeadModel(model.config)
    sources, held_out = corpus("dialogue", args.data)
    train = token_stream([t for texts in sources.values() for t in texts], tokenizer)
    perplexity: dict[str, dict[str, float]] = {}
    length = model.config.n_positions
    for name in ("ReDial valid", "INSPIRED dev", "MiniReel valid"):
        stream = token_stream([dialogue_text(d) for d in held_out[name]], tokenizer)
        for system, value in {
            args.name: stream_perplexity(model, stream, length),
            "5-gram of the second stage's text": five_gram(train, stream, len(tokenizer)),
            "the same network, untrained": stream_perplexity(untrained, stream, length),
        }.items():
            perplexity.setdefault(system, {})[name] = value
    said = []
    for text in OPENINGS:
        ids = tokenizer(text, return_tensors="pt")
        out = model.generate(**ids, max_new_tokens=30, do_sample=False, repetition_penalty=1.2,
                             pad_token_id=tokenizer.eos_token_id)  # fmt: skip
        said.append(tokenizer.decode(out[0]).replace("<|endoftext|>", " ⏎ "))
    path = record_of(args.name)
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found |= machine() | {
        "name": args.name, "perplexity": perplexity, "neighbours": neighbours(args.name),
        "continuations": said, "stages": stages(folder),
    }  # fmt: skip
    if args.probe:
        config = CONFIG.with_(epochs=args.epochs, candidates=50)
        found["probe_settings"] = config.to_dict()
        found["probe"] = probe(folder, args.data, config, args.seeds)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    card(folder / "README.md", found)


if __name__ == "__main__":
    main()
