"""Where the time goes: tables and figures of data/results/bench_scaling*.json and its neighbours.

Beside `figures`, after `costs`; for notebook 15 and figures/scaling.png.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pecrs_lib.costs.estimate import Data, Estimate, Run, cache_bytes, estimate, read_flop
from pecrs_lib.costs.measured import SHAPE, Record, data_of, measured_rows, share_of
from pecrs_lib.costs.shapes import Machine, Shape
from pecrs_lib.figures import MARKERS, axes_of
from pecrs_lib.figures.catalogue_figures import search_table

FACTOR = 2.0  # within which a prediction is called right
SECTIONS = {"train": ("M_train", "dialogues", "at_once"), "encode": (), "rank": ("M", "contexts"),
            "write": ("replies",)}  # fmt: skip


def seconds_table(record: Record) -> pd.DataFrame:
    """What was measured: a row per section and setting, seconds with quartiles, floor, n.

    The floor of writing reads the weights once per token; the others' is that of matrix products.
    """
    rows = []
    for section, keys in SECTIONS.items():
        found = record[section]
        for row in found if isinstance(found, list) else [found]:
            floor = row.get("floor", row.get("read_floor", np.nan) * row.get("tokens", np.nan))
            low, high = row["quartiles"]
            rows.append({
                "section": section, "setting": ", ".join(f"{k} {row[k]}" for k in keys if row[k]),
                "seconds": row["seconds"], "low": low, "high": high, "floor": floor, "n": row["n"],
            })  # fmt: skip
    return pd.DataFrame(rows)


def inside_table(records: Mapping[str, Record]) -> pd.DataFrame:
    """What a step of training (one dialogue, M_train 150, profiled) takes: a row per dtype.

    Columns: torch's matrix products, its attention and everything else, in multiples of the step's
    floor at the rate measured beside it; then all of it in seconds.
    """
    rows = {}
    for name, record in records.items():
        of = record["inside"]
        took = {kind: of[kind] for kind in ("products", "attention")}
        took["the rest"] = of["seconds"] - sum(took.values())
        floors = {f"{kind}, in floors": seconds / of["floor"] for kind, seconds in took.items()}
        rows[name] = floors | {"seconds a step": of["seconds"]}
    return pd.DataFrame(rows).T


def check_table(record: Record) -> pd.DataFrame:
    """`measured_costs.measured_rows` as a table, with `factor`, predicted over measured seconds."""
    table = pd.DataFrame(measured_rows(record))
    table.insert(4, "factor", table["predicted"] / table["measured"])
    return table


def scaling_figure(record: Record) -> Figure:
    """Measured seconds and their floors: steps of training over M_train and over dialogues,
    re-ranking over M, and a token of replies written together.
    """
    figure, axes = axes_of(4, (13.0, 3.9))
    alone = [row for row in record["train"] if row["dialogues"] == 1]
    wide = [row for row in record["train"] if row["M_train"] == 150]
    several = [row for row in wide if 1 in (row["dialogues"], row["at_once"])]
    one = [row for row in record["rank"] if row["contexts"] == 1]
    _measured(axes[0], alone, "M_train", "M_train, one dialogue", "seconds a step of training")
    _measured(axes[1], several, "dialogues", "dialogues a step, one at a time", "seconds a step")
    _measured(axes[2], one, "M", "M, candidates re-ranked", "seconds a context")
    axes[2].plot(
        [row["M"] for row in one], [row["candidate_floor"] for row in one], "--", color="0.4",
        label="floor of the candidates alone",
    )  # fmt: skip
    axes[2].set(xscale="log", yscale="log")
    written = [
        row | {"seconds": row["seconds_per_token"], "floor": row["read_floor"],
               "quartiles": np.array(row["quartiles"]) / row["tokens"]}
        for row in record["write"]
    ]  # fmt: skip
    _measured(axes[3], written, "replies", "replies written together", "seconds a token, of all")
    for ax in axes[[0, 1, 3]]:
        ax.set_ylim(0)
    handles, labels = axes[2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9)
    return figure


def _measured(ax: Any, rows: Sequence[Record], x: str, xlabel: str, ylabel: str) -> None:
    """Medians with quartiles over `x`, the floor below, and what lies between."""
    at = [row[x] for row in rows]
    seconds = np.array([row["seconds"] for row in rows])
    floor = np.array([row["floor"] for row in rows])
    low, high = np.array([row["quartiles"] for row in rows]).T
    ax.fill_between(at, floor, seconds, color="0.9")
    spread = np.stack([seconds - low, high - seconds]).clip(0)
    ax.errorbar(at, seconds, yerr=spread, marker="o", color="#1f77b4", capsize=3,
                label="measured, median and quartiles")  # fmt: skip
    ax.plot(at, floor, marker="s", color="0.25", ls=":", label="floor, at the machine's own rate")
    ax.set(xlabel=xlabel, ylabel=ylabel)


def check_figure(records: Mapping[str, Record]) -> Figure:
    """Predicted against measured seconds, a panel per record; shaded: right within `FACTOR`."""
    figure, axes = axes_of(len(records), (4.6 * len(records), 4.4))
    for ax, (name, record) in zip(np.atleast_1d(axes), records.items(), strict=True):
        table = check_table(record)
        ends = np.array([table["measured"].min() / 3, table["measured"].max() * 3])
        ax.fill_between(ends, ends / FACTOR, ends * FACTOR, color="0.92")
        ax.plot(ends, ends, color="0.5", lw=1)
        colours = sns.color_palette("colorblind", table["part"].nunique())
        parts = table.groupby("part", sort=False)
        for (part, rows), marker, colour in zip(parts, MARKERS, colours, strict=False):
            ax.plot(rows["measured"], rows["predicted"], marker, color=colour, mec="black",
                    label=part)  # fmt: skip
        ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, title=name)
        ax.set(xlabel="measured (s)", ylabel=f"predicted (s), share {share_of(record):.2f}")
        ax.set_aspect("equal")
        for axis in (ax.xaxis, ax.yaxis):
            _plain(axis)
    np.atleast_1d(axes)[0].legend(fontsize=9)
    return figure


def latency_figure(record: Record, large: Mapping[str, Any], M: int = 700) -> Figure:
    """Seconds of one recommendation: reading and re-ranking over M, finding M items over N.

    Args:
        large: data/results/large_catalogue.json.

    Raises:
        ValueError: this M was not measured.
    """
    one = {row["M"]: row for row in record["rank"] if row["contexts"] == 1}
    table = search_table(large)
    known = sorted(set(table["M"]) & set(one))
    if M not in known:
        raise ValueError(f"M = {M} was not measured, but {known}")
    figure, (left, right) = axes_of(2, (9.6, 3.9))
    _measured(left, list(one.values()), "M", "M, candidates re-ranked", "seconds, one context")
    right.axhline(one[M]["seconds"], color="#1f77b4", label=f"reading and re-ranking {M}")
    ways = table[table["M"] == M].groupby("way", sort=False)
    colours = sns.color_palette("colorblind", len(ways) + 1)[1:]
    for (way, rows), marker, colour in zip(ways, MARKERS[1:], colours, strict=False):
        style: dict[str, Any] = {"marker": marker, "color": colour, "label": f"search: {way}"}
        right.plot(rows["N"], rows["ms, single"] / 1000, **style)
    dim = large["search"]["sizes"][0]["D"]
    right.set(xlabel=f"N, items of the catalogue (vectors of D = {dim})", ylabel="seconds")
    for ax in (left, right):
        ax.set(xscale="log", yscale="log")
    _plain(left.yaxis)
    left.legend(fontsize=9)
    right.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def official_table(official: pd.DataFrame, one_pass: Record, record: Record) -> pd.DataFrame:
    """Seconds of the same work by the official code, by a reference of three passes per data point
    (vectorised, else as the paper describes) and by this package; NaN where nobody measured.

    Args:
        official: data/paper/official_costs.csv, indexed by `what`.
        one_pass: data/results/bench_one_pass.json.
        record: data/results/bench_scaling.json.
    """
    of = official["seconds"]
    rank = next(r for r in record["rank"] if r["M"] == 700 and r["contexts"] == 1)
    reply = next(r for r in record["write"] if r["replies"] == 1)
    names = ["official code", "three passes, vectorised", "this package"]
    points = [1 / one_pass[key]["points_per_second"] for key in ("three_passes", "one_pass")]
    rows = {
        "a data point of training": [of["training step, natural mix"] / 2, *points],
        "100 item texts": [of["100 items encoded"], np.nan, record["encode"]["seconds"]],
        "ranking one context, M = 700": [
            of["retrieval and re-ranking"], np.nan, rank["seconds"]
        ],
        "a token of a reply": [of["one reply"] / 65, np.nan, reply["seconds_per_token"]],
    }  # fmt: skip
    return pd.DataFrame(rows, index=names).T


def official_figure(table: pd.DataFrame) -> Figure:
    """`official_table` as bars on a logarithmic axis, each with its seconds."""
    figure, ax = axes_of(size=(8.4, 4.0))
    height = 0.8 / table.shape[1]
    shades, hatches = ("0.85", "0.6", "#7f9fc8"), ("", "//", "")
    for k, (name, shade, hatch) in enumerate(zip(table, shades, hatches, strict=True)):
        known = table[name].notna().to_numpy()
        place = -np.arange(len(table))[known] - k * height
        bars = ax.barh(place, table[name][known], height * 0.92, color=shade, hatch=hatch,
                       edgecolor="black", linewidth=0.6, label=name)  # fmt: skip
        ax.bar_label(bars, [f" {x:.2g} s" for x in table[name][known]], fontsize=9)
    ax.set_yticks(-np.arange(len(table)) - height, list(table.index))
    ax.set(xscale="log", xlabel="seconds, logarithmic axis")
    ax.margins(x=0.15)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    return figure


def growth_table(shapes: Mapping[str, Shape]) -> pd.DataFrame:
    """What grows with the backbone, a row each; memory in bfloat16."""
    rows = {
        name: {
            "weights (M)": shape.parameters / 1e6,
            "trained (M)": shape.trained / 1e6,
            "weights (GB)": 2 * shape.parameters / 1e9,
            "operations a token (G)": read_flop(shape, 1) / 1e9,
            "cache of 1,000 tokens (MB)": cache_bytes(shape, 1000, "bfloat16") / 1e6,
            "activations of a token (MB)": 2 * shape.layers * shape.kept / 1e6,
        }
        for name, shape in shapes.items()
    }
    return pd.DataFrame(rows).T


def catalogue_table(record: Record, machine: Machine, sizes: Sequence[int]) -> pd.DataFrame:
    """What catalogues of so many items take at the benchmark's shape, a row per size.

    An exact search is reckoned as reading every vector once.
    """
    rows = {}
    for N in sizes:
        found = estimate(SHAPE, data_of(record, items=N), machine, Run(), share_of(record))
        rows[f"{N:,}"] = {f"{name} (GB)": x / 1e9 for name, x in found.disk.items()} | {
            "encoding (h)": found.hours["encoding items"],
            "exact search, at least (s)": 4 * N * SHAPE.dim / machine.read,
            "reading and re-ranking 700 (s)": found.seconds["a recommendation"],
        }
    return pd.DataFrame(rows).T.rename_axis("items")


def devices_table(
    shape: Shape, data: Data, machines: Sequence[Machine], share: float
) -> pd.DataFrame:
    """Whether a training in bfloat16 fits, and what it takes, on one device, on eight, and on eight
    that share the weights out; 32 dialogues a step, with checkpointing.
    """
    rows = []
    for machine in machines:
        for devices, shared in ((1, False), (8, False), (8, True)):
            run = Run(
                dtype="bfloat16", batch=32, devices=devices, shared=shared, checkpointing=True
            )
            found = estimate(shape, data, machine, run, share)
            rows.append({
                "machine": machine.name, "devices": devices, "weights shared": shared,
                "GB a device": sum(found.memory.values()) / 1e9, "fits": found.fits,
                "hours": sum(found.hours.values()), "money, assumed": found.money,
            })  # fmt: skip
    return pd.DataFrame(rows)


def gpu_table(record: Mapping[str, Any]) -> pd.DataFrame:
    """Training steps on a GPU (`bench_gpu.json`); no numbers where there was none to measure on."""
    columns = ["points_per_second", "share_of_peak", "peak_gib"]
    index = ["shape", "checkpointing", "compiled"]
    table = pd.DataFrame(record["rows"]).set_index(index).reindex(columns=columns)
    return table.rename_axis(columns=record["device"] or "no GPU: not measured")


def estimate_figure(found: Estimate, machine: Machine) -> Figure:
    """Hours by part, and memory of a device by part beside what it has."""
    figure, (left, right) = axes_of(2, (10.4, 2.9))
    sides = ((left, found.hours, 1.0, "hours"), (right, found.memory, 1e9, "GB on a device"))
    for ax, parts, unit, label in sides:
        values = [x / unit for x in parts.values()]
        bars = ax.barh(list(parts), values, color="#7f9fc8", edgecolor="black", linewidth=0.6)
        ax.bar_label(bars, [f" {x:.3g}" for x in values], fontsize=9)
        ax.invert_yaxis()
        ax.set_xlabel(label)
        ax.margins(x=0.15)
        ax.grid(axis="y", visible=False)
        ax.grid(axis="x", alpha=0.3)
    total, there = (x / 1e9 for x in (sum(found.memory.values()), machine.memory))
    right.set_title(f"{total:.3g} of {there:.3g} GB", fontsize=10)
    left.set_title(f"{sum(found.hours.values()):.3g} hours in all", fontsize=10)
    return figure


def _plain(axis: Any) -> None:
    """Numbers in place of powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())
