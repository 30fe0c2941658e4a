"""Tables of `context_prompt`: what long and short contexts cost PECRS, and what they give.

After `tables`; the record is that of `tables.read_record`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pecrs_lib.metrics import bootstrap_means
from pecrs_lib.pod.tables import Record


def context_table(record: Record, cuts: Sequence[int] = (1, 10, 50)) -> pd.DataFrame:
    """PECRS with long and short contexts: tokens, CPU time, recall (%) with intervals."""
    found: dict[tuple[str, str], list[Record]] = {}
    for row in record["context"]["rows"]:
        found.setdefault((row["context"], row["prefix"]), []).append(row)
    dialogue = np.array(record["context"]["dialogue"])
    table = {}
    for key, rows in found.items():
        rank = np.array([row["rank"] for row in rows])
        hit = 100 * (rank[:, :, None] <= np.array(cuts)).mean(0)  # (P, cuts), seeds averaged
        low, high = np.quantile(bootstrap_means(dialogue, hit, 2000, 0), [0.025, 0.975], axis=0)
        table[key] = {
            "seeds": len(rows),
            "tokens": round(float(np.mean([row["tokens"] for row in rows])), 1),
            "ms a dialogue": round(float(np.mean([row["milliseconds"] for row in rows]))),
        } | {
            f"R@{k}": f"{hit[:, i].mean():.1f} [{low[i]:.1f}, {high[i]:.1f}]"
            for i, k in enumerate(cuts)
        }
    return pd.DataFrame(table).T.rename_axis(["context", "in front"])


def context_difference(record: Record, cuts: Sequence[int] = (1, 10, 50)) -> pd.DataFrame:
    """Recall (points) after minus before, on the same turns, seeds averaged, with intervals."""
    rank: dict[tuple[str, str], list[list[int]]] = {}
    for row in record["context"]["rows"]:
        rank.setdefault((row["context"], row["prefix"]), []).append(row["rank"])
    dialogue = np.array(record["context"]["dialogue"])
    learned = next(prefix for _, prefix in rank if prefix.endswith("learned"))
    pairs = {
        "short, learned − long, instruction": (("short", learned), ("long", "instruction")),
        "short − long": (("short", "none"), ("long", "none")),
        "long, learned − long": (("long", learned), ("long", "none")),
        "short, learned − short": (("short", learned), ("short", "none")),
    }
    table: dict[str, dict[str, str]] = {}
    for name, (after, before) in pairs.items():
        table[name] = {}
        for k in cuts:
            hit = [100 * (np.array(rank[key]) <= k).mean(0) for key in (after, before)]
            gain = hit[0] - hit[1]
            means = bootstrap_means(dialogue, gain[:, None], 2000, 0)
            low, high = np.quantile(means, [0.025, 0.975])
            table[name][f"R@{k}"] = f"{gain.mean():+.1f} [{low:+.1f}, {high:+.1f}]"
    return pd.DataFrame(table).T
