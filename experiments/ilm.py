"""The Item-Language Model measured: alignment, ranking, conversation, and what it gives to PECRS.

    python -m experiments.ilm run [--only NAME …]       # MiniReel, every variant and seed
    python -m experiments.ilm movielens --data FOLDER   # stage 1 and baselines on MovieLens-100K
    python -m experiments.ilm pecrs                     # PECRS with aligned tokens on MiniReel
    python -m experiments.ilm collect [--ship]          # data/results/ilm.json

Every run leaves a file in `runs/ilm/` and is not done again. Seeds differ in weights, batches,
held-out items and users; within a seed all variants have the same items, users and number of
steps. `--ship` copies the model of seed 0 to `data/checkpoints/ilm/`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.inspired import ROOT
from pecrs_lib.calibration import calibrate
from pecrs_lib.config import TINY
from pecrs_lib.data import load_minireel
from pecrs_lib.data.interactions import (
    Interactions,
    LeaveOneOut,
    leave_one_out,
    read_minireel_interactions,
    read_movielens,
)
from pecrs_lib.ilm.alignment import (
    Texts,
    align,
    held_out,
    new_qformer,
    retrieval_ranks,
    written_nll,
)
from pecrs_lib.ilm.bridge import ItemsWithTokens, retrieval_places
from pecrs_lib.ilm.cf import cf_vectors, popularity, shuffled, user_vectors
from pecrs_lib.ilm.config import ILMConfig
from pecrs_lib.ilm.evaluation import (
    answers,
    first_k,
    hit_rate,
    log_perplexity,
    ndcg,
    places,
    semantic_consistency,
)
from pecrs_lib.ilm.language import ILM, fingerprint, load_backbone, teach
from pecrs_lib.ilm.qformer import MLP, QFormer
from pecrs_lib.ilm.tasks import KINDS, Material, early, names_of
from pecrs_lib.ilm.titles import Titles, recommend_next
from pecrs_lib.metrics import bootstrap_means
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import encode_windows
from pecrs_lib.reproduction.runs import machine, rounded, write_run
from pecrs_lib.warmstart import warm_start

RUNS = ROOT / "runs" / "ilm"
RESULT = ROOT / "data" / "results" / "ilm.json"
SHIPPED = ROOT / "data" / "checkpoints" / "ilm"
SEEDS = (0, 1, 2)
MAIN = "ILM"
VARIANTS: dict[str, dict[str, Any]] = {
    MAIN: {},
    "without stage 1": {"align_steps": 0},
    "MLP in place of Q-Former": {"align_steps": 0},
    "text-only LM": {"align_steps": 0},
    "without item-item loss": {"item_item": False},
    "K = 1": {"queries": 1},
    "K = 8": {"queries": 8},
}
FIRST_STAGE = ("without item-item loss", "K = 1", "K = 8")  # measured after stage 1 alone
HELD_OUT = 0.2  # of the items that somebody took
USERS = 24  # a seed, for HR@k
TASKS = 12  # of each kind, for log perplexity
SAID = 8  # of them answered, for semantic consistency
K = 10


def started(config: ILMConfig) -> dict[str, Any]:
    return machine() | {"config": config.to_dict()}


def stage_one(
    config: ILMConfig, whole: Interactions, split: LeaveOneOut, lm: Any, tokenizer: Any
) -> tuple[QFormer, torch.Tensor, torch.Tensor, dict[str, Any]]:
    """An aligned Q-Former, the CF vectors, the rows it saw, and what held-out items say of it."""
    cf = cf_vectors(split.train, config.cf_dim)
    texts = Texts.of(whole.texts, tokenizer, config.text_tokens)
    seen, unseen = held_out(split.train, HELD_OUT, config.seed)
    former = new_qformer(config, texts, lm.get_input_embeddings().weight)
    history = align(former, cf, texts, split.train, seen, config)
    other = shuffled(cf, torch.Generator().manual_seed(config.seed))
    found: dict[str, Any] = {
        "unseen": len(unseen),
        "history": history[:: max(1, len(history) // 20)],
    }
    for name, vectors in (("own", cf), ("other", other)):
        ranks = retrieval_ranks(former, vectors, texts, unseen)
        found[name] = {way: rank.tolist() for way, rank in ranks.items()}
        found[name]["nll"] = rounded(written_nll(former, vectors, texts, unseen).tolist(), 4)
    return former, cf, seen, found


def one_run(variant: str, seed: int) -> dict[str, Any]:
    """Both stages of one variant on MiniReel, and everything measured of it."""
    config = replace(ILMConfig(), seed=seed, **VARIANTS[variant])
    record, clock = started(config) | {"variant": variant, "seed": seed}, time.perf_counter()
    catalogue, _ = load_minireel()
    whole = read_minireel_interactions().at_least(3)
    split = leave_one_out(whole)
    lm, tokenizer = load_backbone(config.backbone)
    before = fingerprint(lm)
    encoder: Any
    encoder, cf, seen, alignment = stage_one(config, whole, split, lm, tokenizer)
    if config.align_steps:
        record["alignment"] = alignment
    if variant in FIRST_STAGE:
        return record | {"seconds": round(time.perf_counter() - clock)}
    if variant.startswith("MLP"):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder = MLP(config)
    model = ILM(config, encoder, lm, tokenizer)
    material = Material(
        split.train, names_of(whole.titles), tuple(movie.genres for movie in catalogue),
        tuple(seen.tolist()), config.history,
    )  # fmt: skip
    table = torch.cat([cf, user_vectors(cf, [early(taken) for taken in split.train.users])])
    names = material.spoken() if variant == "text-only LM" else None
    loss = teach(model, material, table, names)
    record["loss"] = rounded(loss[:: max(1, len(loss) // 20)], 3)
    model.eval()

    users = np.random.default_rng(0).permutation(len(whole.users))[seed * USERS :][:USERS]
    histories = [whole.users[u][:-1] for u in users]
    lists = recommend_next(model, table, Titles(material.names, tokenizer), histories, K, names)
    found = places(lists, [split.test[u] for u in users])
    record |= {"users": users.tolist(), "places": [int(p) if p <= K else 0 for p in found]}

    chosen = np.setdiff1d(np.flatnonzero(popularity(split.train)), seen.numpy())
    asked = replace(material, train=whole, described=tuple(chosen.tolist()), last=True)
    record["tasks"] = {}
    for number, (kind, draw) in enumerate(KINDS.items()):
        tasks = [draw(asked, np.random.default_rng([seed, number, n])) for n in range(TASKS)]
        some = tasks[:SAID]
        said = answers(model, some, table, names)
        close = semantic_consistency(model, said, [task.answer for task in some])
        record["tasks"][kind] = {
            "log perplexity": rounded(log_perplexity(model, tasks, table, names).tolist(), 4),
            "consistency": rounded((100 * close).tolist(), 2),
            "example": [some[0].answer, said[0]],
        }
    record["language model unchanged"] = fingerprint(lm) == before
    record["seconds"] = round(time.perf_counter() - clock)
    if variant == MAIN:
        model.save(RUNS / f"model-{seed}")
    return record


def baselines(split: LeaveOneOut, whole: Interactions, dim: int) -> dict[str, list[int]]:
    """Places of all users' last items, 0 beyond K: what knows no language."""
    histories = [taken[:-1] for taken in whole.users]
    cf = cf_vectors(split.train, dim)
    counts = np.tile(popularity(split.train), (len(histories), 1))
    scores = {
        "popularity": counts,
        "CF nearest neighbour": (user_vectors(cf, histories) @ cf.T).numpy(),
    }
    lists = {name: first_k(score, histories, K) for name, score in scores.items()}
    found = {name: places(each, split.test) for name, each in lists.items()}
    return {name: [int(p) if p <= K else 0 for p in each] for name, each in found.items()}


def movielens(folder: Path, seed: int) -> dict[str, Any]:
    """Stage 1 on MovieLens-100K, and the baselines there."""
    config = replace(ILMConfig(), seed=seed)
    whole = read_movielens(folder / "interactions" / "ml-100k")
    split = leave_one_out(whole)
    *_, found = stage_one(config, whole, split, *load_backbone(config.backbone))
    record = started(config) | {"seed": seed, "alignment": found}
    return record | {"baselines": baselines(split, whole, config.cf_dim)} if seed == 0 else record


TOKENS = ("text alone", "aligned tokens")


@cache
def dialogues_of_minireel() -> tuple[Any, ...]:
    """Catalogue, item features, and windows of training and test dialogues; no seed in them."""
    catalogue, splits = load_minireel()
    model = PECRS.from_backbone(TINY)
    windows = (encode_windows(splits[name], catalogue, model) for name in ("train", "test"))
    return catalogue, model.item_features(catalogue), *windows


def pecrs(tokens: str, seed: int, epochs: int = 2) -> dict[str, Any]:
    """Retrieval heads of PECRS, trained alike, with something beside the item texts."""
    catalogue, features, windows, test = dialogues_of_minireel()
    model = PECRS.from_backbone(TINY.with_(seed=seed, warm_start=epochs))
    train = read_minireel_interactions()
    config = replace(ILMConfig(), seed=seed)
    cf = cf_vectors(train, config.cf_dim)
    if tokens == "aligned tokens":
        lm, tokenizer = load_backbone(config.backbone)
        texts = Texts.of(train.texts, tokenizer, config.text_tokens)
        former = new_qformer(config, texts, lm.get_input_embeddings().weight)
        warm = torch.from_numpy(np.flatnonzero(popularity(train)))
        align(former, cf, texts, train, warm, config)
        with torch.no_grad():
            outputs = former.encode(cf).flatten(1)
        model.items = ItemsWithTokens(model.items, outputs)
    calibrate(model, windows, features)
    loss = warm_start(model, windows, features, catalogue, epochs=epochs, read_lm=False)
    model.eval()
    place, row, dialogue = retrieval_places(model, test, model.encode_catalogue(features))
    cold = popularity(train)[row] == 0
    return machine() | {
        "tokens": tokens, "seed": seed, "epochs": epochs, "loss": rounded(loss, 3),
        "place": place.tolist(), "dialogue": dialogue.tolist(), "cold": cold.astype(int).tolist(),
    }  # fmt: skip


def cell(values: Sequence[float], groups: Sequence[int]) -> dict[str, Any]:
    """Mean with its 95 % bootstrap interval over groups."""
    table = np.asarray(values, dtype=float)[:, None]
    means = bootstrap_means(np.asarray(groups), table, 2000, 0)[:, 0]
    low, high = np.quantile(means, (0.025, 0.975))
    named = {"value": table.mean(), "low": low, "high": high}
    return {k: round(float(v), 3) for k, v in named.items()} | {"n": len(table)}


def of_places(place: Sequence[int], users: Sequence[int]) -> dict[str, Any]:
    at = np.array([p or np.inf for p in place])
    measures = {
        f"{name}@{k}": 100 * f(at, k)
        for name, f in (("HR", hit_rate), ("NDCG", ndcg))
        for k in (5, K)
    }
    return {name: cell(values.tolist(), users) for name, values in measures.items()}


def done(prefix: str) -> list[dict[str, Any]]:
    found = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(RUNS.glob(f"{prefix}-*.json"))
    ]
    return found


def collect() -> dict[str, Any]:
    """All runs that are there, as tables with intervals."""
    runs = done("run")
    record: dict[str, Any] = machine() | {
        "data": "MiniReel, train seekers", "seeds": list(SEEDS), "config": runs[0]["config"],
        "variants": {r["variant"]: VARIANTS[r["variant"]] for r in runs}, "held_out": HELD_OUT,
        "commit": runs[0]["commit"],
    }  # fmt: skip
    whole = read_minireel_interactions().at_least(3)
    known = baselines(leave_one_out(whole), whole, runs[0]["config"]["cf_dim"])
    asked = [u for seed in SEEDS for u in next(r for r in runs if r["seed"] == seed)["users"]]
    record["ranking"] = {
        name: of_places([place[u] for u in asked], asked) for name, place in known.items()
    } | {f"{name}, all users": of_places(p, range(len(p))) for name, p in known.items()}
    record["alignment"], record["tasks"], record["paired"] = {}, {}, {}
    for variant in VARIANTS:
        mine = [r for r in runs if r["variant"] == variant]
        if not mine:
            continue
        if "alignment" in mine[0]:
            record["alignment"][variant] = of_alignment([r["alignment"] for r in mine])
        if variant in FIRST_STAGE:
            continue
        users = [u for r in mine for u in r["users"]]
        record["ranking"][variant] = of_places([p for r in mine for p in r["places"]], users)
        record["tasks"][variant] = {kind: of_task(kind, mine) for kind in KINDS}
        if variant != MAIN:
            main = [r for r in runs if r["variant"] == MAIN]
            record["paired"][variant] = against_main(mine, main)
    record["language model unchanged"] = all(
        r["language model unchanged"] for r in runs if r["variant"] not in FIRST_STAGE
    )
    first = next(r for r in runs if r["variant"] == MAIN)["alignment"]["history"]
    names = list(dict.fromkeys(name for step in first for name in step))
    record["history"] = {n: rounded([step[n] for step in first if n in step], 3) for n in names}
    record["seconds"] = {
        v: [r["seconds"] for r in runs if r["variant"] == v] for v in record["variants"]
    }
    if real := done("movielens"):
        known = real[0]["baselines"]
        record["movielens"] = {
            "alignment": of_alignment([r["alignment"] for r in real]),
            "ranking": {name: of_places(p, range(len(p))) for name, p in known.items()},
        }
    if met := done("pecrs"):
        record["pecrs"] = of_pecrs(met)
    return record


def of_task(kind: str, mine: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"example": mine[0]["tasks"][kind]["example"]}
    for name in ("log perplexity", "consistency"):
        values = [x for r in mine for x in r["tasks"][kind][name]]
        found[name] = cell(values, range(len(values)))
    return found


def of_alignment(found: list[dict[str, Any]]) -> dict[str, Any]:
    """R@k of held-out items in percent; nats a word of their texts, own against another's CF."""
    groups = [j for f in found for j in f["unseen"]]  # held out by more than one seed, maybe
    rows: dict[str, Any] = {"chance R@10": round(1000 / len(found[0]["unseen"]), 2)}
    for name in ("own", "other"):
        for way in ("item to text", "text to item"):
            rank = np.array([r for f in found for r in f[name][way]])
            rows[f"{way}, {name} CF"] = {
                f"R@{k}": cell((100.0 * (rank <= k)).tolist(), groups) for k in (1, 5, 10)
            }
    own, other = (np.array([x for f in found for x in f[name]["nll"]]) for name in ("own", "other"))
    rows["nll"] = {
        "own": cell(own.tolist(), groups), "other": cell(other.tolist(), groups),
        "own - other": cell((own - other).tolist(), groups),
    }  # fmt: skip
    return rows


def against_main(mine: list[dict[str, Any]], main: list[dict[str, Any]]) -> dict[str, Any]:
    """`MAIN` less another variant, on the same users and tasks."""
    pairs = [(a, b) for a in main for b in mine if a["seed"] == b["seed"]]
    places_of = [(np.array(a["places"]), np.array(b["places"])) for a, b in pairs]
    hits = np.concatenate([100.0 * (x > 0) - 100.0 * (y > 0) for x, y in places_of]).tolist()
    users = [u for a, _ in pairs for u in a["users"]]
    found = {f"HR@{K}": cell(hits, users)}
    for name in ("log perplexity", "consistency"):
        both = [
            x - y
            for a, b in pairs
            for kind in KINDS
            for x, y in zip(a["tasks"][kind][name], b["tasks"][kind][name], strict=True)
        ]
        found[name] = cell(both, range(len(both)))
    return found


def of_pecrs(met: list[dict[str, Any]]) -> dict[str, Any]:
    """Recall of retrieval alone on MiniReel's test dialogues, warm and cold films apart."""
    rows: dict[str, Any] = {"epochs": met[0]["epochs"], "rows": {}, "paired": {}}
    masks = {"all": (0, 1), "warm": (0,), "cold": (1,)}
    for films, wanted in masks.items():
        hit: dict[str, dict[str, np.ndarray]] = {}
        groups: list[int] = []
        for tokens in dict.fromkeys(r["tokens"] for r in met):
            mine = sorted((r for r in met if r["tokens"] == tokens), key=lambda r: r["seed"])
            keep = np.concatenate([np.isin(r["cold"], wanted) for r in mine])
            place = np.concatenate([r["place"] for r in mine])[keep]
            groups = np.concatenate([r["dialogue"] for r in mine])[keep].tolist()
            hit[tokens] = {f"R@{k}": 100.0 * (place <= k) for k in (1, 10, 50)}
            rows["rows"].setdefault(tokens, {})[films] = {
                name: cell(values.tolist(), groups) for name, values in hit[tokens].items()
            }
        for tokens in list(hit)[1:]:
            rows["paired"].setdefault(tokens, {})[films] = {
                name: cell((hit[tokens][name] - hit[TOKENS[0]][name]).tolist(), groups)
                for name in hit[tokens]
            }
    return rows


def once(name: str, make: Any) -> None:
    """Make a run's file, unless it is there."""
    path = RUNS / f"{name}.json"
    if not path.exists():
        write_run(make(), path)
        print(time.strftime("%H:%M:%S"), name, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("run", "movielens", "pecrs", "collect"))
    parser.add_argument("--only", nargs="*", help="variants")
    parser.add_argument("--data", type=Path, help="folder with interactions/ml-100k")
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    for seed in SEEDS:
        if args.what == "run":
            for number, variant in enumerate(VARIANTS):
                if variant in (args.only or VARIANTS):
                    once(f"run-{number}-{seed}", lambda v=variant, s=seed: one_run(v, s))
        elif args.what == "movielens":
            once(f"movielens-{seed}", lambda s=seed: movielens(args.data, s))
        elif args.what == "pecrs":
            for number, tokens in enumerate(TOKENS):
                once(f"pecrs-{number}-{seed}", lambda t=tokens, s=seed: pecrs(t, s))
    if args.what == "collect":
        write_run(collect(), RESULT)
        if args.ship:
            shutil.rmtree(SHIPPED, ignore_errors=True)
            shutil.copytree(RUNS / "model-0", SHIPPED)


if __name__ == "__main__":
    main()
