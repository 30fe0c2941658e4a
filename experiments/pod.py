"""POD, measured: the leak on real sequences, and a small POD on MiniReel beside baselines.

    python -m experiments.pod leak --data FOLDER      # the three Amazon sets, no training
    python -m experiments.pod lengths                 # tokens, padding, CPU time; no training
    python -m experiments.pod baselines               # extra `pod`: cornac
    python -m experiments.pod train [--seeds 0 1 2] [--only NAME …]
    python -m experiments.pod movielens --data FOLDER # MovieLens-100K, where more can be learned
    python -m experiments.pod context                 # POD meets PECRS

Every command writes its part of `data/results/pod.json`; `train`, `movielens` and `context` after
every run, and they skip the runs it holds. Times are CPU seconds of one thread. `--data` is a
folder that `read_amazon` or `read_movielens` reads. Batch, steps and rate of POD were chosen on
validation items of MiniReel; those of SASRec were tried once.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from pecrs_lib import next_item
from pecrs_lib.data import bundled, load_minireel
from pecrs_lib.data.interactions import (
    Interactions,
    LeaveOneOut,
    leave_one_out,
    read_amazon,
    read_movielens,
)
from pecrs_lib.metrics import rouge
from pecrs_lib.model import PECRS
from pecrs_lib.pod import context_prompt, item_ids, leak, samples
from pecrs_lib.pod.batches import Batch, alternated, mixed
from pecrs_lib.pod.config import PODConfig
from pecrs_lib.pod.explanations import Sentences, minireel_data, words_of
from pecrs_lib.pod.model import POD
from pecrs_lib.pod.prompt_tuning import tuned
from pecrs_lib.pod.prompts import BARE, TASKS, TEMPLATES, Sample, all_texts
from pecrs_lib.pod.recommending import answers, ask, in_parts, ranked_items, ranked_lists
from pecrs_lib.pod.training import tasks_of, train, training_batch
from pecrs_lib.pod.vocabulary import Vocabulary
from pecrs_lib.reproduction.runs import machine, write_run

RESULT = Path(__file__).resolve().parents[1] / "data" / "results" / "pod.json"
AMAZON = ("sports", "beauty", "toys")
BASE = PODConfig()
# name -> what differs; ids are random unless the name says otherwise
VARIANTS: dict[str, dict[str, Any]] = {
    "K = 3": {},
    "K = 0": {"prompts": 0},
    "templates only": {"bare": 0.0},
    "clusters": {},
    "clusters, K = 0": {"prompts": 0},
    "K = 10": {"prompts": 10},
    "K = 1": {"prompts": 1},
}
SENTENCES = 200  # of the test, explained greedily
FREE = 214  # users asked without a trie
CHOSEN = 321  # users asked to choose among candidates


def load() -> dict[str, Any]:
    return json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}


def save(part: str, found: Any) -> None:
    """One part of the record anew; where it comes from is said of every part."""
    record = load()
    record["machine"] = record.get("machine", {}) | {part: machine()}
    write_run(record | {part: found}, RESULT)


def cpu(do: Any) -> tuple[Any, float]:
    """What it returns, and the CPU seconds it took."""
    started = time.process_time()
    return do(), time.process_time() - started


def plain(ranks: np.ndarray) -> list[int]:
    """Ranks for a file; 0 stands for not in the list."""
    return np.where(np.isfinite(ranks), ranks, 0).astype(int).tolist()


# -- without training -----------------------------------------------------------------------------


def measure_leak(folder: Path) -> None:
    found: dict[str, Any] = {}
    for name in tqdm(AMAZON):
        amazon = read_amazon(folder, name)
        rules = leak.scores(amazon)
        rules |= {
            f"{system}, no ids": {
                metric: next_item.with_interval(values)
                for metric, values in next_item.gains(places).items()
            }
            for system, places in counted(amazon).items()
        }
        found[name] = {"users": len(amazon.users), "items": len(amazon), "rules": rules}
    save("leak", found)


def counted(amazon: Interactions, part: int = 1000) -> dict[str, np.ndarray]:
    """(U,) place of everybody's last item by counts of training, over the whole catalogue."""
    data, n = leave_one_out(amazon), len(amazon)
    users, seen = data.train.users, samples.seen_items(data, test=True)
    popular = next_item.popularity(users, n)
    found: dict[str, list[np.ndarray]] = {"popularity": [], "last item": []}
    for at in range(0, len(users), part):
        past, target = seen[at : at + part], np.array(data.test[at : at + part])[:, None]
        followed = next_item.last_item_scores(users, past, n)
        for name, scores in {"popularity": popular[None], "last item": followed}.items():
            own = np.take_along_axis(np.broadcast_to(scores, (len(past), n)), target, 1)
            ahead = (scores > own) | ((scores == own) & (np.arange(n) < target))
            found[name].append(1.0 + ahead.sum(1))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def prepared(
    data: LeaveOneOut, sentences: Sequence[Sample], codes: np.ndarray, config: PODConfig
) -> Vocabulary:
    return Vocabulary(codes, len(data.test), all_texts() + words_of(sentences), config.words)


def codes_of(data: LeaveOneOut) -> np.ndarray:
    """The ids in use: random ones."""
    return item_ids.random_ids(len(data.train), np.random.default_rng(0))


def clusters_of(data: LeaveOneOut) -> np.ndarray:
    return item_ids.cluster_ids(data.train.users, len(data.train), np.random.default_rng(0))


def step_seconds(model: POD, batch: Batch) -> float:
    return cpu(lambda: model(batch).backward())[1]


def middle(seconds: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, value, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return {"value": float(value), "low": float(low), "high": float(high), "n": len(seconds)}


def measure_lengths(times: int = 30) -> None:
    """Tokens, padding and CPU seconds of forward and backward, on MiniReel, taking turns."""
    data, sentences = minireel_data()
    vocabulary = prepared(data, sentences.train, codes_of(data), BASE)

    def made(counts: dict[int, int], config: PODConfig, rng: np.random.Generator) -> Batch:
        return training_batch(counts, data.train, sentences.train, vocabulary, config, rng)

    ways = list(product((0, 1, 3, 10), {"template": 0.0, "ids only": 1.0}.items(), range(3)))
    models = {K: POD(replace(BASE, prompts=K), len(vocabulary)) for K in (0, 1, 3, 10)}
    seconds: dict[Any, list[float]] = {}
    tokens: dict[Any, list[float]] = {}
    rng = np.random.default_rng(0)
    for turn in tqdm(range(times + 1)):
        for K, (form, bare), task in ways:
            batch = made({task: BASE.batch}, replace(BASE, bare=bare), rng)
            took = step_seconds(models[K], batch)
            if turn:  # the first step of a shape is slower
                seconds.setdefault((K, form, task), []).append(took)
                tokens.setdefault((K, form, task), []).append(batch.length.float().mean().item())
    rows = [
        {"K": K, "form": form, "task": TASKS[task], "step": middle(seconds[K, form, task]),
         "tokens": K + float(np.mean(tokens[K, form, task]))}
        for K, (form, _), task in ways
    ]  # fmt: skip
    padding = []
    for seed in tqdm(range(3)):
        rng = np.random.default_rng(seed)
        full = replace(BASE, bare=0.0)
        schedules = {"mixed": mixed(60, 60, (0, 1, 2)), "alternated": alternated(60, 60, (0, 1, 2))}
        batches = {name: [made(c, full, rng) for c in way] for name, way in schedules.items()}
        took = {name: 0.0 for name in batches}
        for pair in zip(*batches.values(), strict=True):
            for name, batch in zip(batches, pair, strict=True):
                took[name] += step_seconds(models[3], batch)
        for name, all_of in batches.items():
            n = sum(map(len, all_of))
            padding.append({
                "batches": name, "seed": seed,
                "padded tokens per sample": sum(b.padding for b in all_of) / n,
                "milliseconds per sample": 1000 * took[name] / n,
            })  # fmt: skip
    save("lengths", {"rows": rows, "padding": padding, "config": asdict(BASE)})


def baseline_rows(data: LeaveOneOut, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Ranks of the test items by counts and by cornac's SASRec, over the whole catalogue."""
    from cornac.models import SASRec

    n, users = len(data.train), data.train.users
    past, target = samples.seen_items(data, test=True), np.array(data.test)
    popular = np.tile(next_item.popularity(users, n), (len(users), 1))
    scores = {"popularity": [popular], "last item": [next_item.last_item_scores(users, past, n)]}
    scores["SASRec"] = []
    warnings.simplefilter("ignore")
    for seed in tqdm(seeds, desc="SASRec"):
        with torch.random.fork_rng():
            model = SASRec(
                embedding_dim=64, n_epochs=15, batch_size=128, max_len=20, n_sample=128,
                learning_rate=3e-3, seed=seed,
            )  # fmt: skip
            scores["SASRec"].append(next_item.sequence_scores(model, users, past, n))
    rows = []
    for name, runs in scores.items():
        for seed, found in enumerate(runs):
            lists = next_item.best_items(found, n)
            of = {"kept": lists, "removed": next_item.without(lists, past)}
            rows.append({"system": name, "seed": seed} | {
                how: placed(found, target) for how, found in of.items()
            })  # fmt: skip
    return rows


def placed(lists: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    """Places of the targets in the first ten, and how many items the lists name there."""
    first = lists[:, :10]
    return {"rank": plain(next_item.ranks_in(first, target)), "different": len(np.unique(first))}


def measure_baselines(seeds: Sequence[int]) -> None:
    data, sentences = minireel_data()
    rows = baseline_rows(data, seeds)
    counts = next_item.popularity(data.train.users, len(data.train))
    among = [
        np.argsort([-counts[j] for j in s.items], kind="stable").tolist().index(
            s.items.index(target)) + 1
        for s in samples.held_out(samples.TOP_N, data, BASE, test=True)[:CHOSEN]
        for target in [s.answer]
    ]  # fmt: skip
    save("baselines", {"rows": rows, "top-n": among})
    by_item = {s.items[0]: str(s.answer) for s in sentences.train}
    common = max(words_of(sentences.train), key=words_of(sentences.train).count)
    asked = sentences.test[:SENTENCES]
    said = {
        "the most frequent sentence": [common] * len(asked),
        "a training sentence of the item": [by_item.get(s.items[0], common) for s in asked],
    }
    save("sentences", {k: quality(v, asked) | {"n": len(asked)} for k, v in said.items()})


def quality(said: Sequence[str], asked: Sequence[Sample]) -> dict[str, Any]:
    """BLEU and ROUGE of sentences, in percent, intervals over sentences, and how many differ.

    BLEU's interval is sacrebleu's own: mean and half width of bootstrap samples.
    """
    import sacrebleu

    right = words_of(asked)
    bleu = sacrebleu.BLEU().corpus_score(list(said), [right], n_bootstrap=1000)
    low, high = max(0.0, bleu._mean - bleu._ci), bleu._mean + bleu._ci
    found: dict[str, Any] = {"BLEU": {"value": bleu.score, "low": low, "high": high}}
    each = [rouge([one], [other]) for one, other in zip(said, right, strict=True)]
    for name in each[0]:
        values = np.array([score[name] for score in each])
        found[name] = next_item.with_interval(values, bounds=(0, 100))
    return found | {"distinct": len(set(said))}


# -- training -------------------------------------------------------------------------------------


def sequential(
    model: POD, data: LeaveOneOut, vocabulary: Vocabulary, template: str
) -> dict[str, Any]:
    """Ranks of the test items, over the whole catalogue and over what each user has not seen."""
    asked = samples.held_out(samples.SEQUENTIAL, data, model.config, test=True)
    lists, seconds = cpu(lambda: ranked_lists(model, asked, vocabulary, template))
    unseen = samples.unseen_items(data, test=True)
    rest = ranked_lists(model, asked, vocabulary, template, among=unseen)
    target, batch = np.array(data.test), ask(asked, vocabulary, template)
    return {
        "tokens": model.config.prompts + batch.length.float().mean().item(),
        "seconds": seconds / len(asked),
        "kept": placed(lists, target),
        "removed": placed(rest, target),
        "lists": {"kept": lists[:, :10], "removed": rest[:, :10]},
    }


@torch.no_grad()
def nll(model: POD, asked: Sequence[Sample], vocabulary: Vocabulary) -> float:
    return float(np.mean([model(ask(p, vocabulary)).item() for p in in_parts(asked, 107)]))


def other_prompts(
    model: POD, asked: Sequence[Sample], vocabulary: Vocabulary, tasks: Sequence[int]
) -> dict[str, float]:
    """Loss of sequential questions with their vectors, with zeros, with those of other `tasks`."""
    own = model.prompt.data.clone()
    vectors = {"own": own, "zeros": own * 0}
    vectors |= {TASKS[t]: own.roll(-t, 0) for t in tasks if t != samples.SEQUENTIAL}
    found = {}
    for name, prompt in vectors.items():
        model.prompt.data = prompt
        found[name] = nll(model, asked, vocabulary)
    model.prompt.data = own
    return found


def tune(model: POD, data: LeaveOneOut, vocabulary: Vocabulary, seed: int) -> dict[str, Any]:
    """Three vectors for the frozen K = 0 model, bare sequential prompts (peft)."""
    config = replace(BASE, prompts=3, bare=1.0, steps=200, learning_rate=3e-2, seed=seed)
    rng = np.random.default_rng(seed)
    batches = (
        training_batch({0: config.batch}, data.train, [], vocabulary, config, rng)
        for _ in range(config.steps)
    )
    found = tuned(model, samples.SEQUENTIAL, batches, config)
    asked = samples.held_out(samples.SEQUENTIAL, data, BASE, test=True)
    ranks = sequential(found, data, vocabulary, BARE)
    return {k: ranks[k] for k in ("kept", "removed")} | {
        "nll": nll(found, asked, vocabulary),
        "trained": config.prompts * config.width,
        "of": sum(p.numel() for p in model.parameters()),
    }


def trained(
    name: str, seed: int, data: LeaveOneOut, sentences: Sentences
) -> tuple[dict[str, Any], POD, Vocabulary]:
    """One training run and what the sequential task got out of it; model and vocabulary."""
    config = replace(BASE, **VARIANTS[name], seed=seed)
    codes = clusters_of(data) if name.startswith("clusters") else codes_of(data)
    vocabulary = prepared(data, sentences.train, codes, config)
    model = POD(config, len(vocabulary))
    _, seconds = cpu(lambda: train(model, data.train, sentences.train, vocabulary))
    found: dict[str, Any] = {"variant": name, "seed": seed, "config": asdict(config)}
    found["seconds per step"] = seconds / config.steps
    asked = samples.held_out(samples.SEQUENTIAL, data, config, test=True)
    found["nll"] = other_prompts(model, asked, vocabulary, tasks_of(sentences.train))
    for form, template in {"ids only": BARE, "template": TEMPLATES["sequential"][0]}.items():
        found[form] = sequential(model, data, vocabulary, template)
        lists = found[form].pop("lists")
        if (name, seed, form) == ("K = 3", 0, "ids only"):
            found["lists"] = {how: of.tolist() for how, of in lists.items()}
    if name == "K = 0":
        found["prompt tuning"] = tune(model, data, vocabulary, seed)
    return found, model, vocabulary


def run_minireel(name: str, seed: int, data: LeaveOneOut, sentences: Sentences) -> dict[str, Any]:
    """All three tasks, and what else is asked of a trained model."""
    found, model, vocabulary = trained(name, seed, data, sentences)
    asked = samples.held_out(samples.SEQUENTIAL, data, model.config, test=True)[:FREE]
    free = ranked_items(model, ask(asked, vocabulary), vocabulary)
    found["free"] = {
        "users": FREE, "real ids": float((free >= 0).mean()),
        "same lists": float((free == ranked_lists(model, asked, vocabulary)).all(1).mean()),
    }  # fmt: skip
    asked = samples.held_out(samples.TOP_N, data, model.config, test=True)[:CHOSEN]
    among = [sample.items for sample in asked]
    lists = ranked_lists(model, asked, vocabulary, among=among, beams=BASE.candidates)
    found["top-n"] = plain(next_item.ranks_in(lists, np.array(data.test[:CHOSEN])))
    explain = sentences.test[:SENTENCES]
    for form, template in {"ids only": BARE, "template": TEMPLATES["explanation"][0]}.items():
        written = [
            vocabulary.text(answer[0].tolist())
            for part in in_parts(explain, 100)
            for answer in answers(model, ask(part, vocabulary, template), longest=32)
        ]
        found[form] |= {"sentences": quality(written, explain)}
    found["examples"] = written[:5]
    return found


def train_all(seeds: Sequence[int], only: Sequence[str]) -> None:
    data, sentences = minireel_data()
    runs = load().get("runs", [])
    done = {(run["variant"], run["seed"]) for run in runs}
    for variant, seed in tqdm([x for x in product(only or VARIANTS, seeds) if x not in done]):
        runs.append(run_minireel(variant, seed, data, sentences))
        save("runs", runs)


def train_movielens(folder: Path, seeds: Sequence[int], only: Sequence[str]) -> None:
    """The first two tasks on MovieLens-100K, where more can be learned."""
    data = leave_one_out(read_movielens(folder).at_least(3))
    record = load().get("movielens") or {
        "users": len(data.test), "items": len(data.train), "baselines": baseline_rows(data, ()),
        "runs": [],
    }  # fmt: skip
    done = {(run["variant"], run["seed"]) for run in record["runs"]}
    wanted = only or [name for name in VARIANTS if name != "templates only"]
    for variant, seed in tqdm([x for x in product(wanted, seeds) if x not in done]):
        record["runs"].append(trained(variant, seed, data, Sentences([], []))[0])
        save("movielens", record)


# -- POD meets PECRS ------------------------------------------------------------------------------

CONTEXT = {"train": 256, "test": 200, "epochs": 2, "K": (3,)}


def measure_context(seeds: Sequence[int]) -> None:
    catalogue, splits = load_minireel()
    model = PECRS.from_pretrained(bundled("checkpoints/minireel")).eval().requires_grad_(False)
    v = model.encode_catalogue(model.item_features(catalogue))
    forms = {"long": True, "short": False}
    contexts = {
        part: {f: context_prompt.windows(model, splits[part][: CONTEXT[part]], catalogue, long=of)
               for f, of in forms.items()}
        for part in ("train", "test")
    }  # fmt: skip
    words = context_prompt.instruction(model)
    record = load().get("context", {"rows": []})
    record |= {"settings": {**CONTEXT, "K": list(CONTEXT["K"])}, "instruction": len(words)}
    done = {(row["context"], row["prefix"], row["seed"]) for row in record["rows"]}

    def note(form: str, name: str, seed: int, prefix: torch.Tensor) -> None:
        if (form, name, seed) in done:
            return
        (rank, dialogue), seconds = cpu(
            lambda: context_prompt.ranks(model, contexts["test"][form], v, prefix)
        )
        windows = contexts["test"][form]
        tokens = sum(len(w.token) + len(prefix) for w in windows) / CONTEXT["test"]
        row = {
            "context": form, "prefix": name, "seed": seed, "tokens": tokens,
            "milliseconds": 1000 * seconds / CONTEXT["test"],
            "rank": rank.tolist(),
        }  # fmt: skip
        record["rows"].append(row)
        record["dialogue"] = dialogue.tolist()
        save("context", record)

    for form in forms:
        note(form, "none", 0, words[:0])
        note(form, "instruction", 0, words)
    for seed in tqdm(seeds):
        for K in CONTEXT["K"]:
            name = f"{K} learned"
            if ("short", name, seed) in done and ("long", name, seed) in done:
                continue
            prefix = context_prompt.distil(
                model, contexts["train"]["long"], contexts["train"]["short"], v, K,
                epochs=CONTEXT["epochs"], seed=seed,
            )  # fmt: skip
            for form in forms:
                note(form, name, seed, prefix)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "part", choices=("leak", "lengths", "baselines", "train", "movielens", "context")
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[], choices=VARIANTS)
    args = parser.parse_args()
    if args.part in ("leak", "movielens") and args.data is None:
        parser.error(f"{args.part} needs --data")
    if args.part == "leak":
        measure_leak(args.data)
    elif args.part == "lengths":
        measure_lengths()
    elif args.part == "baselines":
        measure_baselines(args.seeds)
    elif args.part == "train":
        train_all(args.seeds, args.only)
    elif args.part == "movielens":
        train_movielens(args.data, args.seeds, args.only)
    else:
        measure_context(args.seeds)


if __name__ == "__main__":
    main()
