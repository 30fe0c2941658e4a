"""Figures of POD's chapter, and a small widget: K and template, and what they cost and give.

The end of `pod`.
"""

from __future__ import annotations

import ipywidgets as ipw
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pecrs_lib.figures import MARKERS, axes_of
from pecrs_lib.pod.tables import DATA, FORMS, Record, grid, published
from pecrs_lib.widgets import Panel, slider


def leak_figure(record: Record) -> Figure:
    """NDCG@10 of the untrained rule beside POD's published one; bars: 95 % over users."""
    printed = published().query("task == 'sequential' and metric == 'NDCG@10'")
    value = printed.set_index("dataset")["value"]
    ways = ("largest + 1, leaky ids", "largest + 1, random ids")
    figure, ax = axes_of()
    place = np.arange(len(record["leak"]))
    for k, (way, colour, hatch) in enumerate(zip(ways, ("0.45", "0.9"), ("", "//"), strict=True)):
        found = [of["rules"][way]["NDCG@10"] for of in record["leak"].values()]
        height = np.array([cell["value"] for cell in found])
        spread = np.array([[c["value"] - c["low"], c["high"] - c["value"]] for c in found]).T
        ax.bar(place + 0.27 * k, height, 0.25, yerr=spread.clip(0), capsize=3, color=colour,
               edgecolor="black", hatch=hatch, label=f"rule: {way}")  # fmt: skip
    pod = [value[name] for name in record["leak"]]
    ax.bar(place + 0.54, pod, 0.25, color="white", edgecolor="black", hatch="..",
           label="POD, published")  # fmt: skip
    ax.set_xticks(place + 0.27, list(record["leak"]))
    ax.set_ylabel("NDCG@10, sequential")
    ax.margins(y=0.35)
    ax.legend(fontsize=8, loc="upper left")
    return figure


def grid_figure(table: pd.DataFrame, K: int | None = None, form: str = "") -> Figure:
    """Tokens against the metric for every K and form; a line at the chosen one."""
    metric = table.columns[list(table.columns).index("low") - 1]
    known = table.dropna()
    figure, ax = axes_of()
    for name, colour, fill in zip(FORMS, ("0.1", "0.5"), ("0.1", "white"), strict=True):
        for marker, (_, row) in zip(MARKERS, known[known.form == name].iterrows(), strict=False):
            spread = [[row[metric] - row.low], [row.high - row[metric]]]
            ax.errorbar(row.tokens, row[metric], yerr=spread, fmt=marker, color=colour, mfc=fill,
                        capsize=3, ms=8, label=f"K = {row.K}, {name}")  # fmt: skip
    for _, row in table[(table.K == K) & (table.form == form)].iterrows():
        ax.axvline(row.tokens, color="black", linestyle=":")
    ax.set(xlabel="tokens of a sequential prompt, K included", ylabel=f"{metric}, seen removed")
    ax.set(xlim=(0, 1.15 * table.tokens.max()), ylim=(0, 1.6 * known.high.max()))
    ax.legend(fontsize=8, ncols=2)
    return figure


def grid_widget(record: Record) -> Panel:
    """Choose data, K and whether the template stays; see tokens, CPU time and quality."""
    known = {name: grid(record, name) for name in DATA}

    def draw(data: str, K: int, form: str) -> tuple[Figure, str]:
        table = known[data]
        row = table[(table.K == K) & (table.form == form)]
        return grid_figure(table, K, form), row.round(4).to_html(index=False)

    K = sorted({K for table in known.values() for K in table.K})
    return Panel(
        draw, "tokens against NDCG, a line at the chosen setting",
        data=ipw.Dropdown(options=tuple(known), description="data"),
        K=slider("K", K, K[-1]), form=ipw.Dropdown(options=FORMS, description="prompt"),
    )  # fmt: skip
