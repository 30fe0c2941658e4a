"""One pass per dialogue against three passes per data point, at the shape of GPT-2 small.

    python -m tests.benchmarks.bench_one_pass --inspired FOLDER [--dtype bfloat16] [--json FILE]

Random weights, real INSPIRED dialogues, M_train = 150. Everything is measured in one run, on this
machine: the rate of a plain matrix product (the ceiling), the reference (three vectorised passes
per data point, item vectors encoded live without gradient, the paper's way), one pass, evaluation
with M = 700 and the encoding of the catalogue. Floating-point operations are those of the linear
layers and the LM head; attention is left out, so the shares of the ceiling are lower bounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pecrs_lib.batches import make_batch
from pecrs_lib.calibration import calibrate
from pecrs_lib.config import Config
from pecrs_lib.context import Turn, Window
from pecrs_lib.data.local import inspired_folder
from pecrs_lib.items import tokenize_items
from pecrs_lib.losses import (
    pairwise_angular_distance,
    rerank_loss,
    response_loss,
    retrieval_loss,
)
from pecrs_lib.memory import keep_freed_memory
from pecrs_lib.model import PECRS, Losses
from pecrs_lib.negatives import own_item
from pecrs_lib.packing import additive
from pecrs_lib.protocol import encode_windows, rank_windows
from tests.benchmarks.floors import Cost, gemm_rate, gpt2_shape, peak_gib, processor, stepper

M_TRAIN, M_INFERENCE = 150, 700


def three_pass_step(
    model: PECRS, tokens: list[list[int]], window: Window, config: Config, seed: int
) -> int:
    """All data points of a window in steps of two, as the paper trains on INSPIRED.

    The two share their negatives, which are encoded once a step. Returns the number of points.
    """
    generator = torch.Generator().manual_seed(seed)
    points = [(turn, item) for turn in window.turns for item in turn.items or (None,)]
    for pair in (points[k : k + 2] for k in range(0, len(points), 2)):
        slot = torch.from_numpy(window.item)
        spans = [past_of(turn, config) for turn, _ in pair]
        rows = torch.cat([slot[span][slot[span] >= 0] for span in spans])
        recommended = [item for _, item in pair if item is not None]
        negative = torch.empty(0, dtype=torch.int64)
        if recommended:
            negative = torch.randperm(len(tokens), generator=generator)[:M_TRAIN]
        rows = torch.cat([torch.tensor(recommended, dtype=torch.int64), negative, rows]).unique()
        v = torch.empty(0, model.backbone.dim)
        if len(rows):
            v = model.items(*live_features(model, [tokens[j] for j in rows.tolist()]))
        row_of = torch.zeros(len(tokens), dtype=torch.int64)
        row_of[rows] = torch.arange(len(rows))
        losses = [
            three_passes(model, window, turn, item, negative, v, row_of, config)
            for turn, item in pair
        ]
        (sum(losses) / len(losses)).backward()
    return len(points)


def past_of(turn: Turn, config: Config) -> slice:
    return slice(max(0, turn.start - config.context_tokens), turn.start)


def three_passes(
    model: PECRS,
    window: Window,
    turn: Turn,
    item: int | None,
    negative: torch.Tensor,
    v: torch.Tensor,
    row_of: torch.Tensor,
    config: Config,
) -> torch.Tensor:
    """The joint loss of one data point: query, candidates and response, a pass each."""
    tok, backbone = model.backbone.tokenizer, model.backbone
    span = past_of(turn, config)
    token, slot = torch.from_numpy(window.token), torch.from_numpy(window.item)
    past, past_slot = token[span], slot[span]

    def embed(ids: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        x, at = backbone.embed(ids), slots >= 0
        return x.masked_scatter(at[:, None], v[row_of[slots[at]]]) if at.any() else x

    def run(x: torch.Tensor, candidates: int = 0) -> torch.Tensor:
        T = len(x) - candidates
        allowed = torch.ones(len(x), len(x), dtype=torch.bool).tril()
        allowed[T:, T:] = torch.eye(candidates, dtype=torch.bool)
        position = torch.arange(len(x)).clamp(max=T)
        return backbone(x[None], position[None], additive(allowed[None, None], x.dtype))[0]

    recall = rerank = torch.zeros(())
    head: list[int] = []
    if item is not None:
        head = [tok.rec, tok.item, tok.rec_end]
        rec, none = torch.tensor([tok.rec]), torch.tensor([-1])
        D_t = embed(torch.cat([past, rec]), torch.cat([past_slot, none]))
        at = torch.tensor([0]), torch.tensor([len(D_t) - 1])
        d = model.f(model.queries(run(D_t)[-1:], D_t[None], *at))
        rows = torch.cat([torch.tensor([item]), negative])
        candidate, hit = v[row_of[rows]], own_item(rows[None])
        offset = model.queries.offset(torch.cat([past_slot, none])[None], *at, rows)
        distance = pairwise_angular_distance(d, candidate) - offset
        recall = retrieval_loss(distance.masked_fill(hit, torch.inf), config.temperature, 1)
        placed = backbone.position_vectors(torch.tensor([len(D_t)]))
        out = run(torch.cat([D_t, candidate - placed]), len(candidate))[len(D_t) :]
        r = model.candidate_scores(out[None], distance).masked_fill(hit, -torch.inf)
        rerank = rerank_loss(r, 1)
    response = token[turn.response : turn.end][: config.response_tokens]
    speaker = tok.speaker["recommender"]
    ids = torch.cat([past, torch.tensor([*head, *speaker], dtype=torch.int64), response])
    slots = torch.full_like(ids, -1)
    slots[: len(past)] = past_slot
    if item is not None:
        slots[len(past) + 1] = item
    hidden = run(embed(ids, slots))[-len(response) - 1 : -1]
    nll = backbone.token_nll(hidden, response)
    gen = response_loss(nll, torch.zeros(len(nll), dtype=torch.int64), 1)
    return Losses(recall, rerank, gen, 1, 1).joint(config)


def live_features(model: PECRS, texts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Item token features without gradient, in length-sorted chunks and without LM head."""
    length = torch.tensor([len(t) for t in texts])
    C = torch.zeros(len(texts), int(length.max()), model.backbone.dim)
    mask = torch.arange(C.shape[1]) < length[:, None]
    order = length.argsort()
    with torch.no_grad():
        for rows in order.split(32):
            L = int(length[rows].max())
            ids = torch.zeros(len(rows), L, dtype=torch.int64)
            for k, j in enumerate(rows.tolist()):
                ids[k, : length[j]] = torch.tensor(texts[j])
            C[rows, :L] = model.backbone.item_output(ids, mask[rows, :L]).float()
    return C * mask[..., None], mask


def timed(repeat: int, work: Callable[[int], int]) -> tuple[list[float], list[int]]:
    seconds, counts = [], []
    for k in range(repeat):
        start = time.perf_counter()
        counts.append(work(k))
        seconds.append(time.perf_counter() - start)
    return seconds, counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inspired", type=Path, required=True, help="folder of the INSPIRED data")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=2, help="dialogues a step of one pass")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--reference-dialogues", type=int, default=2)
    parser.add_argument(
        "--return-memory", action="store_true", help="let the allocator return freed memory"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    if not args.return_memory:
        keep_freed_memory()
    dtype = getattr(torch, args.dtype)

    catalogue, splits = inspired_folder(args.inspired)
    texts = [u.text for d in splits["train"] for u in d.utterances]
    config = Config(batch_size=args.batch, dtype=args.dtype)
    model = gpt2_shape(texts, config)
    exact = gpt2_shape(texts, config.with_(dtype="float32"))
    tokens, _ = tokenize_items(catalogue, model.backbone.tokenizer)
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(splits["train"]))[: args.batch * (args.repeat + 1)]
    windows = encode_windows([splits["train"][k] for k in chosen], catalogue, model)
    windows.sort(key=lambda w: w.dialogue)
    rate = gemm_rate(dtype)
    threads = torch.get_num_threads()
    report: dict[str, object] = {
        "machine": f"{processor()}, {threads} threads",
        "torch": torch.__version__, "dtype": args.dtype, "gemm_gflops": rate / 1e9,
        "keep_freed_memory": not args.return_memory, "M_train": M_TRAIN,
        "batch_dialogues": args.batch, "repeats": args.repeat,
    }  # fmt: skip
    print(f"matrix product {rate / 1e9:.0f} GFLOP/s, {args.dtype}, {threads} threads")
    cost = Cost(model)

    # the catalogue, once
    cost.reset()
    model.eval()
    start = time.perf_counter()
    features = model.item_features(catalogue)
    seconds = time.perf_counter() - start
    report["encode_catalogue"] = {
        "items": len(catalogue), "seconds": seconds, "items_per_second": len(catalogue) / seconds,
        "gemm_share": 2.0 * sum(map(len, tokens)) * cost.linear / seconds / rate,
    }  # fmt: skip
    print("encode catalogue", report["encode_catalogue"])
    calibrate(model, windows, features)
    for name, buffer in exact.head_buffers().items():
        buffer.copy_(model.head_buffers()[name])

    # one pass
    model.train()
    step = stepper(model, features)
    parts = [windows[k : k + args.batch] for k in range(0, len(windows), args.batch)]

    def one_pass(k: int) -> int:
        return step(parts[k % len(parts)], config, k)[0]

    if args.dtype != "float32":  # what fewer bits do to the losses of one batch
        batch = make_batch(parts[0], len(catalogue), config, torch.Generator().manual_seed(0))
        with torch.no_grad():
            pair = [(m, m(batch, features)) for m in (exact, model)]
        report["losses"] = {
            name: [getattr(losses, name).item() for _, losses in pair]
            for name in ("recall", "rerank", "gen")
        }
        print("losses in float32 and", args.dtype, report["losses"])
    del exact
    one_pass(args.repeat)  # warm up
    cost.reset()
    seconds_one, points = timed(args.repeat, one_pass)
    per_second = [n / s for n, s in zip(points, seconds_one, strict=True)]
    report["one_pass"] = one = {
        "points": sum(points), "points_per_second": statistics.median(per_second),
        "range": [min(per_second), max(per_second)],
        "tokens_per_point": cost.tokens / sum(points),
        "gemm_share": cost.flop / sum(seconds_one) / rate, "peak_gib": peak_gib(),
    }  # fmt: skip
    print("one pass", one)

    # evaluation
    model.eval()
    v = model.encode_catalogue(features)
    cost.reset()
    subset = windows[: 2 * args.batch]
    start = time.perf_counter()
    ranked = rank_windows(model, subset, v, candidates=M_INFERENCE)
    seconds = time.perf_counter() - start
    turns = len({(d, u) for d, u in zip(ranked.dialogue, ranked.utterance, strict=True)})
    report["evaluate"] = {
        "M": M_INFERENCE, "turns": turns, "seconds_per_turn": seconds / max(turns, 1),
        "gemm_share": cost.flop / seconds / rate,
    }  # fmt: skip
    print("evaluate", report["evaluate"])

    # three passes
    model.train()
    cost.reset()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def three_pass(k: int) -> int:
        optimizer.zero_grad()
        n = three_pass_step(model, tokens, windows[k], config, k)
        optimizer.step()
        return n

    if args.reference_dialogues and args.dtype == "float32":
        seconds_three, points = timed(args.reference_dialogues, three_pass)
        per_second = [n / s for n, s in zip(points, seconds_three, strict=True)]
        report["three_passes"] = three = {
            "points": sum(points), "points_per_second": sum(points) / sum(seconds_three),
            "range": [min(per_second), max(per_second)],
            "tokens_per_point": cost.tokens / sum(points),
            "gemm_share": cost.flop / sum(seconds_three) / rate,
        }  # fmt: skip
        ratio = one["points_per_second"] / three["points_per_second"]
        report["ratio"] = ratio
        print("three passes", three)
        print(f"one pass does {ratio:.1f} times the points per second")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
