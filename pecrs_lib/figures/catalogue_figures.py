"""What large catalogues cost: tables and a figure of data/results/large_catalogue.json.

Beside `figures`. The file is of `experiments.large_catalogue` and `experiments.encode_catalogue`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from pecrs_lib.figures import MARKERS, axes_of


def search_table(record: Mapping[str, Any]) -> pd.DataFrame:
    """A row per number of items N, way to search, and M retrieved.

    Columns: recall@10 and recall@M of the exact nearest in percent, the latter with its interval
    and the number of queries n; milliseconds of one query, and per query of a batch; seconds to
    build; memory in MiB. A share of the lists is what was asked for: where M is large for the
    number of items, `index.Approximate` looks into more. Last, the least milliseconds when every
    item is looked at.
    """
    rows = []
    for size in record["search"]["sizes"]:
        for way, found in size.items():
            for at in found["at"] if isinstance(found, dict) and "at" in found else ():
                cell = at["recall@M"]
                rows.append({
                    "N": size["N"], "way": way, "M": at["M"],
                    "recall@10": at["recall@10"]["value"],
                    "recall@M": cell["value"], "low": cell["low"], "high": cell["high"],
                    "n": cell["n"], "ms, single": at["single_ms"], "ms, batch": at["batch_ms"],
                    "build (s)": found["build_seconds"], "memory (MiB)": found["mib"],
                    "least ms, single": size["floor"]["single_ms"],
                    "least ms, batch": size["floor"]["batch_ms"],
                })  # fmt: skip
    return pd.DataFrame(rows)


def memory_table(record: Mapping[str, Any]) -> pd.DataFrame:
    """Memory that encoding takes above what is there before, in MiB, and whether the numbers are
    the same: a row per number of items and way.
    """
    names = {
        "way": "way", "N": "N", "features_mib": "features (MiB)", "peak_mib": "peak memory (MiB)",
        "same features": "same features", "same vectors": "same vectors",
    }  # fmt: skip
    rows = [{new: row[old] for old, new in names.items()} for row in record["encoding"]["rows"]]
    return pd.DataFrame(rows)


def search_figure(record: Mapping[str, Any], M: int = 700) -> Figure:
    """Time of a query alone and in a batch, and what is found, over the number of items.

    Args:
        M: items retrieved, one of those measured.

    Raises:
        ValueError: this M was not measured.
    """
    table = search_table(record)
    if M not in set(table["M"]):
        raise ValueError(f"M = {M} was not measured, but {sorted(set(table['M']))}")
    table = table[table["M"] == M]
    figure, axes = axes_of(3, (11.0, 3.8))
    ways = list(dict.fromkeys(table["way"]))
    colours = sns.color_palette("colorblind", len(ways))
    for way, marker, colour in zip(ways, MARKERS, colours, strict=False):
        rows = table[table["way"] == way]
        style: dict[str, Any] = {"marker": marker, "color": colour, "label": way}
        axes[0].plot(rows["N"], rows["ms, single"], **style)
        axes[1].plot(rows["N"], rows["ms, batch"], **style)
        if way != "exact":
            spread = np.stack([rows["recall@M"] - rows["low"], rows["high"] - rows["recall@M"]])
            axes[2].errorbar(rows["N"], rows["recall@M"], yerr=spread.clip(0), capsize=3, **style)
    exact = table[table["way"] == "exact"]
    for ax, name in ((axes[0], "single"), (axes[1], "batch")):
        least = exact[f"least ms, {name}"]
        ax.plot(exact["N"], least, color="0.4", ls=":", label="least for exact")
        ax.set(yscale="log", ylabel=f"ms per query, {name}")
    axes[2].set_ylabel(f"recall@{M} of the exact nearest (%)")
    for ax in axes:
        ax.set(xscale="log", xlabel="items of the catalogue")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9)
    return figure
