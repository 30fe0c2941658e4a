"""Hours, memory and money of a plan: the calculator of notebook 15.

`costs.estimate` computes, `costs.measured` says what share of a machine's rates is reached. `plan`
is the same without controls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ipywidgets as ipw
import pandas as pd
from matplotlib.figure import Figure

from pecrs_lib.costs.estimate import Data, Estimate, Run, estimate
from pecrs_lib.costs.measured import Record, data_of, laptop, share_of
from pecrs_lib.costs.shapes import MACHINES, SHAPES, Machine, Shape
from pecrs_lib.figures.scaling_figures import estimate_figure
from pecrs_lib.widgets import STYLE, WIDE, Panel

OWN = "numbers of my own"
TOO_LARGE = (
    "<b>It does not fit:</b> take more devices, fewer dialogues at once, checkpointing, "
    "or shared weights (a validation holds them all)."
)
HELP = {
    "backbone": "the frozen language model; with your own numbers, one of GPT-2's form",
    "layers": "of a backbone of your own", "dim": "D, of a backbone of your own",
    "machine": "peaks of data sheets; the laptop's are measured by the benchmark",
    "tflops": "of a machine of your own, in the dtype below: TFLOP/s of matrix products",
    "read_gb": "of a machine of your own: GB/s from memory",
    "memory_gb": "of a machine of your own: GB of a device",
    "devices": "that train together; each needs a dialogue of every batch",
    "price": "of one device for an hour: an assumption, put in what you pay",
    "share": "of the rates that is reached (percent). Measured on a CPU; on a GPU it may be far "
    "less for a small model and a small batch, so measure a few steps of yours",
    "dialogues": "of the training part", "items": "of the catalogue",
    "M_train": "negatives of each recommending turn in training",
    "M_inference": "candidates re-ranked", "epochs": "over the training part",
    "batch": "dialogues a step, of all devices together",
    "at_once": "dialogues that a device reads in one pass (--at-once); 0: all of its share",
    "dtype": "of the frozen backbone",
    "checkpointing": "activations computed twice rather than kept (--checkpointing)",
    "shared": "weights shared out over the devices (FSDP, configs/fsdp_7b.yaml)",
}  # fmt: skip


def plan(
    records: Mapping[str, Record], backbone: str | Shape = "GPT-2 small",
    machine: str | Machine = "laptop", *, share: float | None = None, price: float | None = None,
    dialogues: int = 801, items: int = 1662, **run: Any,
) -> tuple[Estimate, Machine, float]:  # fmt: skip
    """What a training would take; dialogues are like INSPIRED's.

    Args:
        records: dtype → benchmark file; float32 is needed.
        backbone: a name of `SHAPES`, or a shape.
        machine: "laptop" (the benchmark's), a name of `MACHINES`, or a machine.
        share: of its rates that is reached; None: what the benchmark reached in this dtype, or in
            float32 where this dtype was not measured.
        price: of a device and hour; None: as the machine says, which is an assumption.
        run: fields of `costs.estimate.Run`.

    Returns:
        the estimate, the machine it is for, and the share.

    Raises:
        ValueError: an unknown name, or nonsense (`costs.estimate.estimate`).
    """
    wanted = Run(**run)
    shape = backbone if isinstance(backbone, Shape) else _named(backbone, SHAPES, "backbone")
    known = {"laptop": laptop(list(records.values()))} | MACHINES
    used = machine if isinstance(machine, Machine) else _named(machine, known, "machine")
    if price is not None:
        used = replace(used, price=price)
    if share is None:
        share = share_of(records.get(wanted.dtype, records["float32"]))
    few = max(1, round(dialogues / 8))
    data = data_of(records["float32"], dialogues=dialogues, valid=few, items=items)
    return estimate(shape, data, used, wanted, share), used, share


def plan_table(found: Estimate) -> pd.DataFrame:
    """The estimate as rows: what, how much, unit."""
    rows = [(f"hours: {name}", x, "h") for name, x in found.hours.items()]
    rows += [(f"memory: {name}", x / 1e9, "GB") for name, x in found.memory.items()]
    rows += [(f"disk: {name}", x / 1e9, "GB") for name, x in found.disk.items()]
    rows += [(name, 1000 * x, "ms") for name, x in found.seconds.items()]
    rows.append(("money, at your price", found.money, ""))
    return pd.DataFrame(rows, columns=["what", "how much", "unit"]).set_index("what")


def calculator_widget(records: Mapping[str, Record], memory: float = 16e9) -> Panel:
    """Choose backbone, machine, data and settings; see hours, memory and money.

    Args:
        records: dtype → benchmark file; float32 is needed.
        memory: bytes of the laptop, which is the benchmark's machine otherwise.
    """

    def draw(
        backbone: str, layers: int, dim: int, machine: str, tflops: float, read_gb: float,
        memory_gb: float, price: float, share: float, dtype: str, **more: Any,
    ) -> tuple[Figure, str]:  # fmt: skip
        shape: str | Shape = backbone
        device: str | Machine = machine
        if backbone == OWN:
            shape = Shape.gpt2(OWN, layers, dim)
        if machine == "laptop":
            device = laptop(list(records.values()), memory)
        if machine == OWN:
            device = Machine(OWN, {dtype: tflops * 1e12}, read_gb * 1e9, memory_gb * 1e9)
        found, used, reached = plan(
            records, shape, device, share=share / 100, price=price, dtype=dtype, **more
        )
        fits = "It fits." if found.fits else TOO_LARGE
        says = f"<p>{fits} Reckoned with {100 * reached:.0f} % of the peak of {used.name}.</p>"
        return estimate_figure(found, used), says + plan_table(found).round(3).to_html()

    def number(name: str, value: float, label: str) -> ipw.Widget:
        kind = ipw.IntText if isinstance(value, int) else ipw.FloatText
        return kind(value=value, description=label, style=STYLE, layout=WIDE, tooltip=HELP[name])

    def choice(name: str, options: list[str], label: str) -> ipw.Dropdown:
        return ipw.Dropdown(
            options=options, description=label, style=STYLE, layout=WIDE, tooltip=HELP[name]
        )

    def switch(name: str, label: str) -> ipw.Checkbox:
        return ipw.Checkbox(description=label, layout=WIDE, style=STYLE, tooltip=HELP[name])

    data, run = Data(), Run()
    panel = Panel(
        draw, "hours of each part, and memory of a device beside what it has",
        backbone=choice("backbone", [*SHAPES, OWN], "backbone"),
        layers=number("layers", 12, "own: layers"), dim=number("dim", 768, "own: D"),
        machine=choice("machine", ["laptop", *MACHINES, OWN], "machine"),
        tflops=number("tflops", 100.0, "own: peak (TFLOP/s)"),
        read_gb=number("read_gb", 1000.0, "own: memory rate (GB/s)"),
        memory_gb=number("memory_gb", 24.0, "own: memory (GB)"),
        devices=number("devices", 1, "devices"), price=number("price", 0.0, "price per hour"),
        share=number("share", round(100 * share_of(records["float32"]), 1), "share reached (%)"),
        dialogues=number("dialogues", data.dialogues, "dialogues"),
        items=number("items", data.items, "items"),
        M_train=number("M_train", run.M_train, "M_train"),
        M_inference=number("M_inference", run.M_inference, "M_inference"),
        epochs=number("epochs", run.epochs, "epochs"), batch=number("batch", run.batch, "batch"),
        at_once=number("at_once", run.at_once, "at once"),
        dtype=choice("dtype", ["float32", "bfloat16"], "dtype"),
        checkpointing=switch("checkpointing", "checkpointing"),
        shared=switch("shared", "weights shared out (FSDP)"),
    )  # fmt: skip

    def begin(change: Mapping[str, Any]) -> None:
        """A machine begins with its price, a dtype with the share that was measured in it."""
        if change["owner"] is panel.controls["machine"]:
            known = MACHINES.get(change["new"])
            panel.controls["price"].value = known.price if known else 0.0
        else:
            record = records.get(change["new"], records["float32"])
            panel.controls["share"].value = round(100 * share_of(record), 1)

    for name in ("machine", "dtype"):
        panel.controls[name].observe(begin, names="value")
    told = "".join(f"<li><b>{name}</b>: {text}</li>" for name, text in HELP.items())
    panel.children = (
        *panel.children, ipw.HTML(f"<details><summary>What the fields mean</summary><ul>{told}\
</ul></details>"),
    )  # fmt: skip
    return panel


def _named(name: str, known: Mapping[str, Any], what: str) -> Any:
    if name not in known:
        raise ValueError(f"no {what} {name!r}; there are {', '.join(known)}")
    return known[name]
