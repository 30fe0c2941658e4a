"""What PECRS costs before it is run: operations, hours, memory and money from first principles.

Beside the flow, for notebook 15; arithmetic only, no torch. The model, and what it leaves out:

- A token meets every weight of the linear layers once, two operations each; a scored token meets
  the vocabulary, too. Backward goes to the inputs only (the weights are frozen), as much again.
  Attention, LoRA, heads and optimizer are left out: a few percent of it at GPT-2 small's size.
- Writing a token reads all weights once, however many replies are written together.
- A machine reaches a `share` of its rates, one number for everything, measured by the benchmark on
  a CPU for each dtype. That a GPU reaches the same share is an assumption: small models with small
  batches reach far less of it, large ones more.
- Training batches are sorted by length, so padding is left out; devices divide the work evenly,
  and what they tell each other costs nothing. A validation is retrieval and re-ranking alone.

`measured` holds this against the benchmark's measurements; `shapes` has models and machines.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, fields

from pecrs_lib.costs.shapes import Machine, Shape, positive

BYTES = {"float32": 4, "bfloat16": 2}
WORKING = 1.5  # times what is kept: with what backward computes beside it (fitted: notebook 15)
PROGRAM = 1.5e9  # bytes: Python, torch, the data, and what loading left behind (fitted, too)


@dataclass(frozen=True)
class Data:
    """What a corpus asks of the LM; per dialogue on average. Defaults: about INSPIRED's.

    Attributes:
        dialogues: of the training part; `valid` of the part that is ranked after every epoch.
        tokens: in the trunk and the response branches.
        recommending: data points with an item.
        scored: tokens of responses.
        spread: of the tokens, standard deviation over mean; for padding only.
        items, item_tokens: of the catalogue, and of an item text.
    """

    dialogues: int = 801
    valid: int = 99
    tokens: float = 400
    recommending: float = 2.6
    scored: float = 280
    spread: float = 0.6
    items: int = 1662
    item_tokens: float = 66


@dataclass(frozen=True)
class Run:
    """What is asked for; see `config.Config` and `configs/fsdp_7b.yaml`.

    Attributes:
        batch: dialogues a step, of all devices together.
        checkpointing: activations computed twice rather than kept.
        shared: weights shared out over the devices (FSDP) rather than whole on each.
        at_once: dialogues a device reads in one pass (`Trainer`); 0: all of its share.
    """

    M_train: int = 150
    M_inference: int = 700
    epochs: int = 20
    batch: int = 1
    dtype: str = "float32"
    checkpointing: bool = False
    shared: bool = False
    devices: int = 1
    at_once: int = 0


@dataclass(frozen=True)
class Estimate:
    """Hours by part, bytes on one device and on disk by part, money, seconds of single answers,
    and whether training and validation fit into a device's memory."""

    hours: Mapping[str, float]
    memory: Mapping[str, float]
    disk: Mapping[str, float]
    money: float
    seconds: Mapping[str, float]
    fits: bool


def step_flop(shape: Shape, tokens: float, scored: float, *, checkpointing: bool = False) -> float:
    """Forward and backward to the inputs; with checkpointing forward twice."""
    passes = 3 if checkpointing else 2
    return 2.0 * (passes * tokens * shape.linear + 2 * scored * shape.vocabulary * shape.dim)


def read_flop(shape: Shape, tokens: float) -> float:
    """Forward without LM head: item texts, contexts, candidates."""
    return 2.0 * tokens * shape.linear


def padding(batch: int, spread: float) -> float:
    """Tokens of an unsorted batch over those that count: the longest of `batch` normal lengths.

    Source: Blom (1958), expected largest of n normal numbers, Φ⁻¹((n - 3/8) / (n + 1/4)).
    """
    return 1 + spread * statistics.NormalDist().inv_cdf((batch - 0.375) / (batch + 0.25))


def reply_seconds(
    shape: Shape, machine: Machine, dtype: str, share: float,
    *, replies: int = 1, context: float = 128, tokens: int = 32,
) -> float:  # fmt: skip
    """Seconds until `replies` of `tokens` tokens are written: contexts are read, then a token of
    each reply at a time, for which all weights are read from memory."""
    rate = machine.flops[dtype]
    weights = shape.linear + shape.vocabulary * shape.dim
    each = BYTES[dtype] * weights / machine.read + 2 * replies * weights / rate
    return (read_flop(shape, replies * context) / rate + tokens * each) / share


def memory_of(shape: Shape, data: Data, run: Run) -> dict[str, float]:
    """Bytes on each device while training, by part; item features lie in a file, read in parts.

    A validation holds all weights, shared out or not. Of logits there are a few rows at a time.
    """
    per = math.ceil(run.batch / run.devices)
    per = min(per, run.at_once or per)
    tokens = per * (data.tokens + data.recommending * run.M_train)
    size, layers = BYTES[run.dtype], shape.layers
    weights: float = shape.parameters * size
    if run.shared:  # a part of them, and one layer whole
        weights = weights / run.devices + shape.linear / layers * size
    kept = tokens * shape.kept * size * (1 if run.checkpointing else layers)
    if run.checkpointing:
        kept += tokens * shape.dim * layers * size  # what goes into each layer
    return {
        "program": PROGRAM,
        "frozen weights": weights,
        "trained, with Adam": 16 * shape.trained / (run.devices if run.shared else 1),
        "activations": WORKING * kept,
    }


def cache_bytes(shape: Shape, tokens: float, dtype: str) -> float:
    """Keys and values of `tokens` tokens."""
    return 2.0 * shape.layers * shape.kv * tokens * BYTES[dtype]


def estimate(shape: Shape, data: Data, machine: Machine, run: Run, share: float) -> Estimate:
    """Hours, memory and money of a training, and seconds of what follows it.

    Args:
        share: of the machine's rates that is reached, above 0, at most 1.

    Raises:
        ValueError: nonsense, in a sentence that says what to change.
    """
    _checked(data, machine, run, share)
    rate = machine.flops[run.dtype] * share
    tokens = data.tokens + data.recommending * run.M_train
    step = step_flop(shape, tokens, data.scored, checkpointing=run.checkpointing)
    M = min(run.M_inference, data.items)
    ranked = read_flop(shape, data.tokens + data.recommending * M)
    longest = math.ceil(run.batch / run.devices) * run.devices / run.batch  # share of a batch
    flop = {
        "encoding items": read_flop(shape, data.items * data.item_tokens),
        "training": run.epochs * data.dialogues * step * longest,
        "validation": run.epochs * data.valid * ranked,
    }
    hours = {name: x / rate / run.devices / 3600 for name, x in flop.items()}
    memory = memory_of(shape, data, run)
    whole = shape.parameters * BYTES[run.dtype] + cache_bytes(shape, data.tokens, run.dtype)
    return Estimate(
        hours=hours,
        memory=memory,
        disk={
            "item features": 2.0 * data.items * data.item_tokens * shape.dim,
            "item vectors": 4.0 * data.items * shape.dim,
        },
        money=sum(hours.values()) * run.devices * machine.price,
        seconds={
            "a recommendation": read_flop(shape, data.tokens + M) / rate,
            "a reply of 32 tokens": reply_seconds(shape, machine, run.dtype, share),
        },
        fits=max(sum(memory.values()), PROGRAM + whole) <= machine.memory,
    )


def _checked(data: Data, machine: Machine, run: Run, share: float) -> None:
    optional = {"valid", "spread", "recommending", "at_once"}
    positive(**{
        f.name: getattr(part, f.name)
        for part in (data, run) for f in fields(part)
        if f.type in ("int", "float") and f.name not in optional
    })  # fmt: skip
    if not 0 < share <= 1:
        raise ValueError(f"share is a part of the peak, above 0 and at most 1, got {share}")
    if run.dtype not in machine.flops:
        raise ValueError(f"no rate of {machine.name} is known in {run.dtype}")
    positive(rate=machine.flops[run.dtype], read=machine.read, memory=machine.memory)
    if machine.price < 0:
        raise ValueError(f"price must not be negative, got {machine.price}")
    if run.at_once < 0:
        raise ValueError(f"at_once must not be negative, got {run.at_once}")
    if run.M_train > data.items:
        raise ValueError(f"M_train is {run.M_train}, but there are only {data.items} items")
    if run.batch < run.devices:
        raise ValueError(
            f"a batch of {run.batch} leaves {run.devices - run.batch} of {run.devices} devices "
            "idle: at least a dialogue for each"
        )
    if run.shared and run.devices == 1:
        raise ValueError("weights cannot be shared out over one device: take more, or none shared")
