"""Judges of the paper's claims on groups of points: context lengths and genres.

Comes after `judges`, before `claims`. As there, None stands for runs that are not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pecrs_lib.reproduction.evidence import OPEN, Results, cell, paper_table, rank_array, verdict
from pecrs_lib.reproduction.findings import Files, Finding, Judge, finding, weakest
from pecrs_lib.reproduction.judges import printed_text
from pecrs_lib.reproduction.tables import NAMES

COMMON = 5.0  # percent of the catalogue from which on a genre counts as common
FEWEST = 5  # points of a group below which nothing is said of it


def turns(ranges: Sequence[tuple[int, int]]) -> Judge:
    """Figure 4: R@50 in a range of utterances before, less half of that elsewhere.

    The paper says "moderate" and "well" without a number; we call a drop moderate that leaves more
    than half.
    """

    def judge(files: Files, results: Results) -> Finding | None:
        found: dict[str, Finding | None] = {}
        for low, high in ranges if results.main else ():
            turn = np.array(results.main[0]["points"]["turn"])
            inside = (turn >= low) & (turn <= high)
            name = f"{low} to {high} utterances before" if low < high else f"{low} utterance before"
            if inside.sum() < FEWEST or (~inside).sum() < FEWEST:
                note = f"{inside.sum()} of {len(turn)} points have {name}: too few."
                found[name] = Finding(OPEN, n=int(inside.sum()), note=note)
                continue
            hits = [rank_array(run["points"]["rank"]) <= 50 for run in results.main]
            columns = [np.column_stack([h & inside, inside, h & ~inside, ~inside]) for h in hits]
            kept = cell("", "", results.main[0]["points"]["dialogue"], columns, _kept)
            kept["n"] = int(inside.sum())
            judged = verdict(1.0, kept, sized=False)
            found[name] = finding(judged, np.nan, kept, files.names(results.main))
        return weakest(found)

    return judge


def _kept(means: Any) -> Any:
    return 100 * (means[..., 0] / means[..., 1] - means[..., 2] / means[..., 3] / 2)


def common_genres(files: Files, results: Results) -> Finding | None:
    """Appendix B: films of common genres get one of their genre more often than others."""
    if not results.main:
        return None
    share, true, first = _genres(results)
    known = np.isin(true, list(share))
    common = np.isin(true, [g for g, x in share.items() if x >= COMMON])
    rare = known & ~common
    if min(common.sum(), rare.sum()) < FEWEST:
        return Finding(OPEN, n=int(known.sum()), note="Too few films of rare genres.")
    columns = [
        np.column_stack([(g == true) & common, common, (g == true) & rare, rare]) for g in first
    ]
    found = cell("", "", results.main[0]["points"]["dialogue"], columns,
                 lambda m: 100 * (m[..., 0] / m[..., 1] - m[..., 2] / m[..., 3]))  # fmt: skip
    found["n"] = int(known.sum())
    note = f"{int(rare.sum())} of {int(known.sum())} targets are of rare genres."
    claimed = _printed_genres(9 if results.dataset == "redial" else 10)
    if results.dataset not in ("redial", "inspired"):
        return finding(verdict(claimed, found, sized=False), np.nan, found,
                       files.names([*results.main, results.data]), note=note)  # fmt: skip
    judged = verdict(claimed, found)
    return finding(judged, claimed, found, files.names([*results.main, results.data]), note=note)


def _printed_genres(number: int) -> float:
    """Common less rare in the paper's table, genres weighted by their recommendations."""
    table = paper_table(number).dropna()
    items, weight, right = (table.iloc[:, k].to_numpy(float) for k in (1, 2, 3))
    common = items >= COMMON
    share = [np.average(right[mask], weights=weight[mask]) for mask in (common, ~common)]
    return float(share[0] - share[1])


def genre_hit(files: Files, results: Results) -> Finding | None:
    """Appendix B: among wrong films, the right genre more often than a random film has it."""
    if not results.main:
        return None
    share, true, first = _genres(results)
    chance = np.array([share.get(g, np.nan) for g in true]) / 100
    wrong = [rank_array(run["points"]["rank"]) > 1 for run in results.main]
    listed = np.isfinite(chance)
    columns = [
        np.column_stack([np.where(w & listed, (g == true) - np.nan_to_num(chance), 0), w & listed])
        for w, g in zip(wrong, first, strict=True)
    ]
    found = cell("", "", results.main[0]["points"]["dialogue"], columns,
                 lambda m: 100 * m[..., 0] / m[..., 1])  # fmt: skip
    found["n"] = int((wrong[0] & listed).sum())
    name = NAMES[results.dataset]
    claimed = printed_text("genre-hit", name) - printed_text("genre-random", name)
    sized = bool(np.isfinite(claimed))
    judged = verdict(claimed if sized else 1.0, found, sized=sized)
    frequent = 100 * max((true[listed] == g).mean() for g in share)
    note = f"Always the most frequent genre of the targets would be right in {frequent:.1f} %."
    return finding(judged, claimed, found, files.names([*results.main, results.data]), note=note)


def _genres(results: Results) -> tuple[Mapping[str, float], Any, list[Any]]:
    """Genre -> percent of the films whose genre is known; of each target; of each run's firsts."""
    genre = np.array([str(g).lower() for g in results.data["genre"]])
    named, count = np.unique(genre[genre != ""], return_counts=True)
    share = dict(zip(named.tolist(), (100 * count / count.sum()).tolist(), strict=True))
    row_of = {item: j for j, item in enumerate(results.data["items"])}
    points = results.main[0]["points"]
    true = np.array([genre[row_of[i]] if i in row_of else "" for i in points["item"]])
    tops = [np.array(run["points"]["top1"]) for run in results.main]
    return share, true, [np.where(top >= 0, genre[top], "") for top in tops]
