"""The cost model of `costs` beside what was measured (data/results/bench_scaling*.json).

After `costs`, before `scaling_figures`. What a dialogue holds is read off the benchmark's counts of
tokens, what the machine can do off its rates; one number is fitted, the share of the rates that is
reached. Times are not used otherwise, so that they can disagree.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pecrs_lib.costs import (
    Data,
    Run,
    memory_of,
    padding,
    read_flop,
    reply_seconds,
    step_flop,
)
from pecrs_lib.shapes import SHAPES, Machine

SHAPE = SHAPES["GPT-2 small"]  # of the benchmark
FILES = ("bench_scaling.json", "bench_scaling_bfloat16.json")
CONTEXT = 128  # tokens before a reply of the benchmark
Record = Mapping[str, Any]


def read_records(folder: Path) -> dict[str, Record]:
    """dtype → benchmark file, of those that are there; float32 always is."""
    there = [p for p in map(folder.joinpath, FILES) if p.exists()]
    return {r["dtype"]: r for r in (json.loads(p.read_text(encoding="utf-8")) for p in there)}


def machine_of(record: Record) -> Machine:
    """The benchmark's machine at the rates measured in the same run; its memory is not known."""
    flops = {record["dtype"]: record["gemm_gflops"] * 1e9}
    return Machine(record["machine"], flops, record["read_gb"] * 1e9, float("inf"))


def laptop(records: Sequence[Record], memory: float = 16e9) -> Machine:
    """The machine of the benchmark files, one per dtype, as if it had `memory` bytes."""
    flops = {r["dtype"]: r["gemm_gflops"] * 1e9 for r in records}
    return replace(machine_of(records[0]), flops=flops, memory=memory)


def share_of(record: Record) -> float:
    """Median share of the floor that training, encoding and ranking reach."""
    rows = [*record["train"], record["encode"], *record["rank"]]
    return statistics.median(row["share"] for row in rows)


def data_of(record: Record, **known: int) -> Data:
    """What the benchmark's dialogues hold, from its counts; `known` are fields of `Data`."""
    rate = record["gemm_gflops"] * 1e9
    alone = [row for row in record["train"] if row["dialogues"] == 1]
    M = [row["M_train"] for row in alone]
    line = statistics.linear_regression(M, [_tokens(row) for row in alone])
    tokens, recommending = line.intercept, line.slope
    few = alone[M.index(min(M))]  # its floor is least of candidates
    scored = (few["floor"] * rate - step_flop(SHAPE, _tokens(few), 0)) / step_flop(SHAPE, 0, 1)
    two = next(row for row in record["train"] if row["dialogues"] == 2)
    unpadded = 2 * (tokens + recommending * two["M_train"])
    spread = (_tokens(two) / unpadded - 1) / (padding(2, 1.0) - 1)
    found = Data(tokens=tokens, recommending=recommending, scored=scored, spread=max(0.0, spread))
    item_tokens = record["encode"]["floor"] * rate / read_flop(SHAPE, 100)
    return replace(found, item_tokens=item_tokens, **known)


def measured_rows(record: Record) -> list[dict[str, Any]]:
    """Predicted beside measured: `part`, `what`, seconds `measured` and `predicted`; for training
    on several dialogues, which sets the process's peak of memory, `GB measured`, `GB predicted`.
    """
    machine, share, data = machine_of(record), share_of(record), data_of(record)
    rate = machine.flops[record["dtype"]]
    rows: list[dict[str, Any]] = []

    def add(part: str, what: str, row: Record, seconds: float, **more: float) -> None:
        told = {"measured": row["seconds"], "predicted": seconds}
        rows.append({"part": part, "what": what} | told | more)

    for row in record["train"]:
        n, M = row["dialogues"], row["M_train"]
        padded = padding(n, data.spread) * (data.tokens + data.recommending * M)
        flop = step_flop(SHAPE, n * padded, n * data.scored)
        more = {}
        if n > 1:
            wide = replace(data, tokens=padded, recommending=0)
            parts = memory_of(SHAPE, wide, Run(M_train=M, batch=n, dtype=record["dtype"]))
            more = {"GB measured": row["peak_gib"] * 2**30 / 1e9,
                    "GB predicted": sum(parts.values()) / 1e9}  # fmt: skip
        add("training", f"M_train {M}, {n} dialogues", row, flop / rate / share, **more)
    flop = read_flop(SHAPE, 100 * data.item_tokens)
    add("encoding", "100 items", record["encode"], flop / rate / share)
    first = next(row for row in record["rank"] if row["contexts"] == 1)
    context = first["floor"] * rate / read_flop(SHAPE, 1) - first["M"]
    for row in record["rank"]:
        n, M = row["contexts"], row["M"]
        flop = read_flop(SHAPE, n * (padding(n, data.spread) * context + M))
        add("ranking", f"M {M}, {n} contexts", row, flop / rate / share)
    for row in record["write"]:
        seconds = reply_seconds(
            SHAPE, machine, record["dtype"], share, replies=row["replies"], context=CONTEXT,
            tokens=row["tokens"],
        )  # fmt: skip
        add("writing", f"{row['replies']} replies", row, seconds)
    return rows


def _tokens(row: Record) -> float:
    """Tokens of a step, padding included."""
    return row["tokens_per_second"] * row["seconds"]
