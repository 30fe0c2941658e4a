"""The cost model of `estimate` beside what was measured (data/results/bench_scaling*.json).

After `estimate`, before `scaling_figures`. What a dialogue holds and what the machine can do
is read off the benchmark's counts and rates; one number is fitted, the share of the rates that is
reached. Times are not used otherwise, so that they can disagree.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pecrs_lib.costs.estimate import (
    Data,
    Run,
    memory_of,
    padding,
    read_flop,
    reply_seconds,
    step_flop,
)
from pecrs_lib.costs.shapes import SHAPES, Machine

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
    asked = record["asked"]
    return Data(
        tokens=asked["tokens"], recommending=asked["recommending"], scored=asked["scored"],
        spread=asked["tokens_std"] / asked["tokens"], item_tokens=asked["item_tokens"], **known,
    )  # fmt: skip


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
        at_once = row["at_once"] or n
        padded = padding(at_once, data.spread) * (data.tokens + data.recommending * M)
        flop = step_flop(SHAPE, n * padded, n * data.scored)
        more = {}
        if n > 1:
            wide = replace(data, tokens=padded, recommending=0)
            parts = memory_of(SHAPE, wide, Run(batch=at_once, dtype=record["dtype"]))
            more = {"GB measured": row["peak_gib"] * 2**30 / 1e9,
                    "GB predicted": sum(parts.values()) / 1e9}  # fmt: skip
        told = f"{n} dialogues" + (f", {at_once} at once" if at_once < n else "")
        add("training", f"M_train {M}, {told}", row, flop / rate / share, **more)
    flop = read_flop(SHAPE, record["asked"]["encoded_tokens"])
    add("encoding", "100 items", record["encode"], flop / rate / share)
    for row in record["rank"]:
        n, M = row["contexts"], row["M"]
        flop = read_flop(SHAPE, n * (record["asked"]["context"] + M))
        add("ranking", f"M {M}, {n} contexts", row, flop / rate / share)
    for row in record["write"]:
        seconds = reply_seconds(
            SHAPE, machine, record["dtype"], share, replies=row["replies"], context=CONTEXT,
            tokens=row["tokens"],
        )  # fmt: skip
        add("writing", f"{row['replies']} replies", row, seconds)
    return rows
