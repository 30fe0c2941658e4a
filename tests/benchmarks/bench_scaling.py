"""Where the time goes at the shape of GPT-2 small, beside floors from first principles.

    python -m tests.benchmarks.bench_scaling --inspired FOLDER [--dtype bfloat16] [--json FILE]
        [--inside]

Random weights, real INSPIRED dialogues; every number is the median of `--repeat` runs with the
quartiles beside it, and its floor is what the matrix products (for replies: reading the weights)
would take at the rate measured in the same run (`floors`):

- **train**: a step over M_train, over dialogues in a batch, and with one of them at a time;
- **encode**: item texts, sorted by length, adapters off, no LM head;
- **rank**: retrieving and re-ranking over M and over contexts, among 5,000 vectors drawn at random;
  beside it what the tokens of the candidates alone would take;
- **write**: replies, one alone and several in a batch;
- **inside**: what of a training step is spent in torch's matrix products and in its attention.

`--inside` measures that part alone and keeps what the file holds of the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pecrs_lib.batches import batches_by_length
from pecrs_lib.calibration import calibrate
from pecrs_lib.config import Config
from pecrs_lib.context import Window
from pecrs_lib.data import Catalogue
from pecrs_lib.data.local import inspired_folder
from pecrs_lib.decoding import GREEDY
from pecrs_lib.generation import generate_replies
from pecrs_lib.items import ItemFeatures, tokenize_items
from pecrs_lib.memory import keep_freed_memory
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.protocol import encode_windows
from pecrs_lib.ranking import PASS_TOKENS, rank, read_trunks
from pecrs_lib.recommend import with_query
from tests.benchmarks.floors import (
    Cost,
    gemm_rate,
    gpt2_shape,
    peak_gib,
    processor,
    read_rate,
    reset_peak,
    stepper,
)

NEGATIVES = (16, 64, 150, 300)  # for one dialogue; then (dialogues, at once) for 150
BATCHES = ((2, 1), (8, 1), (2, None))
CANDIDATES, CONTEXTS = (50, 100, 200, 700, 1400, 5000), (1, 8)
REPLIES, REPLY_TOKENS = (1, 8, 32), 32
KERNELS = {
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::addmv_"),
    "attention": (
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
}


def asked(windows: Sequence[Window], texts: Sequence[Sequence[int]]) -> dict[str, float]:
    """What a dialogue and a catalogue ask of the LM, on average: of windows, and of item texts."""
    batches = [pack([w]) for w in windows]
    tokens = [b.token.shape[1] for b in batches]
    turns = [sum(bool(t.items) for t in w.turns) for w in windows]
    return {
        "tokens": float(np.mean(tokens)), "tokens_std": float(np.std(tokens)),
        "context": float(np.mean([len(w.token) for w in windows])),
        "recommending": float(np.mean(turns)),
        "scored": float(np.mean([len(b.response_label) for b in batches])),
        "points": float(np.mean([b.responses for b in batches])),
        "item_tokens": float(np.mean([len(t) for t in texts])),
        "encoded_tokens": float(sum(len(t) for t in texts[:100])),
    }  # fmt: skip


def measured(repeat: int, work: Callable[[int], Any], cost: Cost, rate: float) -> dict[str, Any]:
    """Median seconds of `work(0)`, `work(1)`, …, with quartiles, memory and share of the floor."""
    work(0)  # warm up
    reset_peak()
    seconds, floors = [], []
    for k in range(repeat):
        cost.reset()
        start = time.perf_counter()
        work(k)
        seconds.append(time.perf_counter() - start)
        floors.append(cost.flop / rate)
    low, high = np.quantile(seconds, (0.25, 0.75))
    share = statistics.median(f / s for f, s in zip(floors, seconds, strict=True))
    return {
        "seconds": statistics.median(seconds), "quartiles": [float(low), float(high)],
        "floor": statistics.median(floors), "share": share, "peak_gib": peak_gib(), "n": repeat,
    }  # fmt: skip


def train(
    model: PECRS, windows: Sequence[Window], features: ItemFeatures, repeat: int, rate: float
) -> list[dict[str, Any]]:
    """A step with its optimizer, over M_train for one dialogue, over dialogues for M = 150."""
    cost, rows = Cost(model), []
    model.train()
    for m, size, at_once in [*((m, 1, None) for m in NEGATIVES), *((150, *b) for b in BATCHES)]:
        config = model.config.with_(negatives=m, retrieval_negatives=m)
        one_step = stepper(model, features, at_once)
        done: list[tuple[int, int]] = []  # points and tokens of every step

        def step(
            k: int, size: int = size, config: Config = config, done: Any = done, one: Any = one_step
        ) -> None:
            part = [windows[(k * size + i) % len(windows)] for i in range(size)]
            done.append(one(part, config, k))

        found = measured(repeat, step, cost, rate)
        per = np.sum(done[1:], 0) / repeat / found["seconds"]
        speed = {"points_per_second": float(per[0]), "tokens_per_second": float(per[1])}
        rows.append({"M_train": m, "dialogues": size, "at_once": at_once} | found | speed)
        print("train", rows[-1], flush=True)
    model.eval()
    return rows


def inside(
    model: PECRS, windows: Sequence[Window], features: ItemFeatures, repeat: int
) -> dict[str, Any]:
    """Seconds of a step with one dialogue and M_train 150, and those spent in `KERNELS`.

    The rate of a plain product is measured anew beside them.
    """
    rate, cost = gemm_rate(model.backbone.dtype), Cost(model)
    config = model.config.with_(negatives=150, retrieval_negatives=150)
    model.train()
    one_step = stepper(model, features)
    one_step(windows[:1], config, 0)  # warm up
    cost.reset()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        start = time.perf_counter()
        for k in range(1, repeat + 1):
            one_step([windows[k % len(windows)]], config, k)
        seconds = time.perf_counter() - start
    model.eval()
    spent = {event.key: event.self_cpu_time_total / 1e6 for event in profiled.key_averages()}
    found = {"seconds": seconds / repeat, "floor": cost.flop / rate / repeat} | {
        kind: sum(spent.get(name, 0.0) for name in names) / repeat
        for kind, names in KERNELS.items()
    }
    print("inside", found, flush=True)
    return found | {"gemm_gflops": rate / 1e9, "n": repeat}


def encode(model: PECRS, catalogue: Catalogue, repeat: int, rate: float) -> dict[str, Any]:
    """100 item texts; the floor is that of the linear layers for their tokens."""
    some = Catalogue(catalogue.movies[:100])
    tokens, _ = tokenize_items(some, model.backbone.tokenizer)
    cost = Cost(model)
    found = measured(repeat, lambda _: model.item_features(some), cost, rate)
    found["floor"] = 2.0 * sum(map(len, tokens)) * cost.linear / rate
    found["share"] = found["floor"] / found["seconds"]
    found["items_per_second"] = len(some) / found["seconds"]
    print("encode", found, flush=True)
    return found


def ranked(
    model: PECRS, windows: Sequence[Window], repeat: int, rate: float
) -> list[dict[str, Any]]:
    """Retrieval and re-ranking, reading the trunk included."""
    cost, rows = Cost(model), []
    v = torch.randn(max(CANDIDATES), model.backbone.dim) * float(model.items.scale)
    queries = with_query([replace(w, turns=()) for w in windows], model.backbone.tokenizer.rec)
    for many in CONTEXTS:
        for m in CANDIDATES if many == 1 else (700,):

            def work(k: int, many: int = many, m: int = m) -> None:
                chosen = [queries[(k * many + i) % len(queries)] for i in range(many)]
                for part in batches_by_length(chosen, PASS_TOKENS):
                    trunk = read_trunks(model, pack(part), v)
                    column = torch.tensor([len(w.token) - 1 for w in part])
                    rank(model, trunk, torch.arange(len(part)), column, v, candidates=m)

            found = measured(repeat, work, cost, rate)
            floor = 2.0 * many * m * cost.linear / rate
            rows.append({"M": m, "contexts": many, **found, "candidate_floor": floor,
                         "times_floor": found["seconds"] / floor})  # fmt: skip
            print("rank", rows[-1], flush=True)
    return rows


def write(
    model: PECRS, windows: Sequence[Window], repeat: int, rate: float, bytes_per_second: float
) -> list[dict[str, Any]]:
    """Greedy replies of as many tokens; the floor reads every weight once per token."""
    cost, rows = Cost(model), []
    v = torch.zeros(1, model.backbone.dim)
    plain = [
        replace(w, token=w.token[:128], item=np.full(len(w.token[:128]), -1), turns=())
        for w in windows
    ]
    size = cost.linear + cost.head
    floor = size * torch.finfo(model.backbone.dtype).bits / 8 / bytes_per_second
    for many in REPLIES:
        said: list[int] = []

        def work(k: int, many: int = many, said: list[int] = said) -> None:
            part = [plain[(k * many + i) % len(plain)] for i in range(many)]
            replies = generate_replies(
                model, part, [None] * many, v, response_tokens=REPLY_TOKENS, **GREEDY
            )
            said.append(max(map(len, replies)))

        found = measured(repeat, work, cost, rate)
        del found["floor"], found["share"]  # of matrix products; here reading is what takes time
        steps = statistics.median(said[1:])
        rows.append({"replies": many, **found, "tokens": steps,
                     "seconds_per_token": found["seconds"] / steps, "read_floor": floor,
                     "times_floor": found["seconds"] / steps / floor,
                     "replies_per_second": many / found["seconds"]})  # fmt: skip
        print("write", rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inspired", type=Path, required=True, help="folder of the INSPIRED data")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--inside", action="store_true", help="this part alone; the others stay")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    keep_freed_memory()
    catalogue, splits = inspired_folder(args.inspired)
    config = Config(dtype=args.dtype)
    model = gpt2_shape((u.text for d in splits["train"] for u in d.utterances), config)
    chosen = np.random.default_rng(0).permutation(len(splits["train"]))[:24]
    windows = encode_windows([splits["train"][k] for k in chosen], catalogue, model)
    rate, bytes_per_second = gemm_rate(getattr(torch, args.dtype)), read_rate()
    report: dict[str, Any] = {
        "machine": f"{processor()}, {torch.get_num_threads()} threads", "dtype": args.dtype,
        "torch": torch.__version__, "gemm_gflops": rate / 1e9, "read_gb": bytes_per_second / 1e9,
    }  # fmt: skip
    print(report, flush=True)
    texts, _ = tokenize_items(catalogue, model.backbone.tokenizer)
    report["asked"] = asked(windows, texts)
    offset = torch.tensor([0, *map(len, texts)]).cumsum(0)
    features = ItemFeatures(torch.randn(int(offset[-1]), model.backbone.dim).half(), offset)
    calibrate(model, windows, features)
    if args.inside and args.json:
        report = json.loads(args.json.read_text(encoding="utf-8"))
    parts: dict[str, Callable[[], Any]] = {
        "write": lambda: write(model, windows, args.repeat, rate, bytes_per_second),
        "encode": lambda: encode(model, catalogue, args.repeat, rate),
        "train": lambda: train(model, windows, features, args.repeat, rate),
        "rank": lambda: ranked(model, windows, args.repeat, rate),
        "inside": lambda: inside(model, windows, features, args.repeat),
    }
    for name in ["inside"] if args.inside else parts:
        report[name] = parts[name]()
        if args.json:
            args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
