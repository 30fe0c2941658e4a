"""The Item-Language Model measured: alignment, ranking and conversation.

    python -m experiments.ilm run [--only NAME …]     # MiniReel, every variant and seed
    python -m experiments.ilm movielens --data FOLDER # beside a text-only LM on MovieLens-100K
    python -m experiments.ilm amazon --data FOLDER    # stage 1 and baselines on three Amazon sets
    python -m experiments.ilm collect [--ship]        # data/results/ilm.json

Every run leaves a file in `runs/ilm/` and is not done again. Seeds differ in weights, batches,
held-out items and users; within a seed all variants have the same items, users and number of
steps. Settings were chosen on seed 0, which is not reported, and on items held out from those that
the other seeds train on. `--data` is a folder that `read_movielens` or `read_amazon` reads.
`--ship` copies the first model to `data/checkpoints/ilm/`.
What item tokens give to PECRS: `experiments.ilm_pecrs`.
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
from pecrs_lib.data import load_minireel
from pecrs_lib.data.interactions import (
    Interactions,
    LeaveOneOut,
    leave_one_out,
    read_amazon,
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
from pecrs_lib.ilm.cf import cf_vectors, shuffled, user_vectors
from pecrs_lib.ilm.config import ILMConfig
from pecrs_lib.ilm.evaluation import answers, log_perplexity, semantic_consistency
from pecrs_lib.ilm.language import ILM, fingerprint, load_backbone, teach
from pecrs_lib.ilm.qformer import MLP, QFormer
from pecrs_lib.ilm.tasks import KINDS, Material, early, names_of
from pecrs_lib.ilm.titles import Titles, recommend_next
from pecrs_lib.metrics import bootstrap_means, rule_of_three
from pecrs_lib.next_item import best_items, gains, popularity, ranks_in
from pecrs_lib.reproduction.runs import machine, rounded, write_run

RUNS = ROOT / "runs" / "ilm"
RESULT = ROOT / "data" / "results" / "ilm.json"
SHIPPED = ROOT / "data" / "checkpoints" / "ilm"
SEEDS = (1, 2, 3)
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
BOTH_STAGES = (MAIN, "text-only LM")  # on MovieLens-100K
MORE: dict[str, dict[str, Any]] = {  # there is more to learn from than MiniReel's 600 films
    "minireel": {}, "movielens": {"align_steps": 600}, "amazon": {"align_steps": 600},
}  # fmt: skip
AMAZON = ("beauty", "toys", "sports")
HELD_OUT = 0.2  # of the items that somebody took
USERS = {"minireel": 80, "movielens": 40}  # a seed, for HR@k
TASKS = 24  # of each kind, for log perplexity
SAID = 8  # of them answered, for semantic consistency
K = 10


def started(config: ILMConfig) -> dict[str, Any]:
    return machine() | {"config": config.to_dict()}


def stage_one(
    config: ILMConfig, whole: Interactions, split: LeaveOneOut, tokenizer: Any
) -> tuple[QFormer, torch.Tensor, torch.Tensor, dict[str, Any]]:
    """An aligned Q-Former, the CF vectors, the rows it saw, and what held-out items say of it."""
    cf = cf_vectors(split.train, config.cf_dim)
    texts = Texts.of(whole.texts, tokenizer, config.text_tokens)
    seen, unseen = held_out(split.train, HELD_OUT, config.seed)
    former = new_qformer(config, texts)
    history = align(former, cf, texts, split.train, seen, config)
    other = shuffled(cf, torch.Generator().manual_seed(config.seed))
    found: dict[str, Any] = {
        "unseen": unseen.tolist(),
        "history": history[:: max(1, len(history) // 20)],
    }
    for name, vectors in (("own", cf), ("other", other)):
        ranks = retrieval_ranks(former, vectors, texts, unseen)
        found[name] = {way: rank.tolist() for way, rank in ranks.items()}
        found[name]["nll"] = rounded(written_nll(former, vectors, texts, unseen).tolist(), 4)
    return former, cf, seen, found


@cache
def source(data: str, folder: Path | None) -> tuple[Interactions, tuple[tuple[str, ...], ...]]:
    """Interactions of a data set, and the genres of its films."""
    if data == "minireel":
        genres = tuple(movie.genres for movie in load_minireel()[0])
        return read_minireel_interactions().at_least(3), genres
    assert folder is not None
    if data in AMAZON:
        return read_amazon(folder, data).at_least(3), ()
    films = read_movielens(folder).at_least(3)
    named = zip(films.titles, films.texts, strict=True)
    return films, tuple(tuple(text[len(t) + 2 : -1].split(", ")) for t, text in named)


def one_run(variant: str, seed: int, data: str, folder: Path | None = None) -> dict[str, Any]:
    """Both stages of one variant, and everything measured of it."""
    config = replace(ILMConfig(), seed=seed, **{**MORE[data], **VARIANTS[variant]})
    record, clock = started(config) | {"variant": variant, "seed": seed}, time.perf_counter()
    whole, genres = source(data, folder)
    split = leave_one_out(whole)
    lm, tokenizer = load_backbone(config.backbone)
    before = fingerprint(lm)
    encoder: Any
    encoder, cf, seen, alignment = stage_one(config, whole, split, tokenizer)
    if config.align_steps:
        record["alignment"] = alignment
    if variant.startswith("MLP"):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder = MLP(config)
    model = ILM(config, encoder, lm, tokenizer)
    material = Material(
        split.train, names_of(whole.titles), genres, tuple(seen.tolist()), config.history
    )
    table = torch.cat([cf, user_vectors(cf, [early(taken) for taken in split.train.users])])
    names = material.spoken() if variant == "text-only LM" else None
    loss = teach(model, material, table, names)
    record["loss"] = rounded(loss[:: max(1, len(loss) // 20)], 3)
    model.eval()

    n = USERS[data]
    users = np.random.default_rng(0).permutation(len(whole.users))[seed * n :][:n]
    histories = [whole.users[u][:-1] for u in users]
    lists = recommend_next(model, table, Titles(material.names, tokenizer), histories, K, names)
    record |= {"users": users.tolist(), "places": places(lists, [split.test[u] for u in users])}

    chosen = np.setdiff1d(np.flatnonzero(popularity(split.train.users, len(whole))), seen.numpy())
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
    if (variant, data) == (MAIN, "minireel"):
        model.save(RUNS / f"model-{seed}")
    return record


def places(lists: np.ndarray, targets: Sequence[int]) -> list[int]:
    """Where in the lists the targets are, from 1; 0 if not."""
    found = ranks_in(lists, np.asarray(targets))
    return np.where(np.isfinite(found), found, 0).astype(int).tolist()


def baselines(split: LeaveOneOut, whole: Interactions, dim: int) -> dict[str, list[int]]:
    """Places of all users' last items: what knows no language."""
    cf = cf_vectors(split.train, dim)
    counts = popularity(split.train.users, len(whole))
    parts: dict[str, list[int]] = {"popularity": [], "CF nearest neighbour": []}
    for at in range(0, len(whole.users), 1000):
        histories = [taken[:-1] for taken in whole.users[at : at + 1000]]
        scores = {
            "popularity": np.tile(counts, (len(histories), 1)),
            "CF nearest neighbour": (user_vectors(cf, histories) @ cf.T).numpy(),
        }
        for name, score in scores.items():
            for row, seen in zip(score, histories, strict=True):
                row[list(seen)] = -np.inf
            parts[name] += places(best_items(score, K), split.test[at : at + 1000])
    return parts


def stage_one_alone(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Stage 1 on a data set whose items have a phrase and no genres."""
    config = replace(ILMConfig(), seed=seed, **MORE["amazon"])
    whole, _ = source(name, folder)
    split = leave_one_out(whole)
    *_, found = stage_one(config, whole, split, load_backbone(config.backbone)[1])
    record = started(config) | {"seed": seed, "alignment": found}
    if seed == SEEDS[0]:
        record["baselines"] = baselines(split, whole, config.cf_dim)
    return record


def cell(values: Sequence[float], groups: Sequence[int], least: float = 0) -> dict[str, Any]:
    """Mean with its 95 % bootstrap interval over groups; of zeros alone, the rule of three.

    `least` is the smallest value a point can have, -100 for differences of hits in percent.
    """
    table = np.asarray(values, dtype=float)[:, None]
    means = bootstrap_means(np.asarray(groups), table, 2000, 0)[:, 0]
    low, high = np.quantile(means, (0.025, 0.975))
    if not table.any():
        low, high = rule_of_three(0, len(table), least, 100)
    named = {"value": table.mean(), "low": low, "high": high}
    return {k: round(float(v), 3) for k, v in named.items()} | {"n": len(table)}


def of_places(place: Sequence[int], users: Sequence[int]) -> dict[str, Any]:
    found = gains(np.array([p or np.inf for p in place]), (5, K))
    return {name: cell((100 * values).tolist(), users) for name, values in found.items()}


def done(prefix: str) -> list[dict[str, Any]]:
    return [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(RUNS.glob(f"{prefix}-*.json"))
    ]


def of_runs(runs: list[dict[str, Any]], whole: Interactions) -> dict[str, Any]:
    """Tables of one data set's runs of both stages."""
    found: dict[str, Any] = {"config": runs[0]["config"], "ranking": {}, "users": len(whole.users)}
    known = baselines(leave_one_out(whole), whole, runs[0]["config"]["cf_dim"])
    asked = [u for seed in SEEDS for u in next(r for r in runs if r["seed"] == seed)["users"]]
    found["ranking"] = {
        name: of_places([place[u] for u in asked], asked) for name, place in known.items()
    } | {f"{name}, all users": of_places(p, range(len(p))) for name, p in known.items()}
    found["alignment"], found["tasks"], found["paired"] = {}, {}, {}
    main = [r for r in runs if r["variant"] == MAIN]
    for variant in VARIANTS:
        mine = [r for r in runs if r["variant"] == variant]
        if not mine:
            continue
        if "alignment" in mine[0]:
            found["alignment"][variant] = of_alignment([r["alignment"] for r in mine])
        users = [u for r in mine for u in r["users"]]
        found["ranking"][variant] = of_places([p for r in mine for p in r["places"]], users)
        found["tasks"][variant] = {kind: of_task(kind, mine) for kind in KINDS}
        if variant != MAIN:
            found["paired"][variant] = against_main(mine, main)
    found["language model unchanged"] = all(r["language model unchanged"] for r in runs)
    return found


def collect(folder: Path | None) -> dict[str, Any]:
    """All runs that are there, as tables with intervals."""
    runs = done("minireel")
    record: dict[str, Any] = machine() | {
        "data": "MiniReel, train seekers", "seeds": list(SEEDS), "variants": VARIANTS,
        "held_out": HELD_OUT, "commit": runs[0]["commit"],
    }  # fmt: skip
    record |= of_runs(runs, source("minireel", None)[0])
    first = next(r for r in runs if r["variant"] == MAIN)["alignment"]["history"]
    names = list(dict.fromkeys(name for step in first for name in step))
    record["history"] = {n: rounded([step[n] for step in first if n in step], 3) for n in names}
    record["seconds"] = {v: [r["seconds"] for r in runs if r["variant"] == v] for v in VARIANTS}
    old = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    if (real := done("movielens")) and folder:
        record["movielens"] = of_runs(real, source("movielens", folder)[0])
    elif "movielens" in old:
        record["movielens"] = old["movielens"]
    record["amazon"] = old.get("amazon", {})
    for name in AMAZON:
        if phrases := done(name):
            known = next(r for r in phrases if "baselines" in r)["baselines"]
            record["amazon"][name] = {
                "config": phrases[0]["config"],
                "alignment": {MAIN: of_alignment([r["alignment"] for r in phrases])},
                "ranking": {rule: of_places(p, range(len(p))) for rule, p in known.items()},
            }
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
    found = {f"HR@{K}": cell(hits, users, -100)}
    for name in ("log perplexity", "consistency"):
        both = [
            x - y
            for a, b in pairs
            for kind in KINDS
            for x, y in zip(a["tasks"][kind][name], b["tasks"][kind][name], strict=True)
        ]
        found[name] = cell(both, range(len(both)))
    return found


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
    parser.add_argument("what", choices=("run", "movielens", "amazon", "collect"))
    parser.add_argument("--only", nargs="*", help="variants")
    parser.add_argument("--data", type=Path, help="folder of MovieLens-100K or of the Amazon files")
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    if args.what in ("movielens", "amazon") and not args.data:
        parser.error(f"{args.what} needs --data")
    for seed in SEEDS:
        if args.what == "amazon":
            for name in AMAZON:
                once(f"{name}-{seed}", lambda n=name, s=seed: stage_one_alone(n, s, args.data))
        elif args.what != "collect":
            data = "minireel" if args.what == "run" else "movielens"
            known = tuple(VARIANTS) if args.what == "run" else BOTH_STAGES
            for number, variant in enumerate(known):
                if variant in (args.only or known):
                    once(
                        f"{data}-{number}-{seed}",
                        lambda v=variant, s=seed, d=data: one_run(v, s, d, args.data),
                    )
    if args.what == "collect":
        write_run(collect(args.data), RESULT)
        if args.ship:
            shutil.rmtree(SHIPPED, ignore_errors=True)
            shutil.copytree(RUNS / f"model-{SEEDS[0]}", SHIPPED)


if __name__ == "__main__":
    main()
