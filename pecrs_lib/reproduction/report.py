"""The report of the reproduction as Markdown: for every claim of the paper a verdict and why.

Comes after `report_tables`. Written from result files and `data/paper` alone: its words depend on
the numbers, so it changes when a file does. `pecrs reproduce --report FILE.md` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from pecrs_lib.reproduction.better import better_table, better_text
from pecrs_lib.reproduction.claims import PLACES, findings
from pecrs_lib.reproduction.evidence import FAILS, HOLDS, OPEN, Results
from pecrs_lib.reproduction.findings import MISSING, UNTESTED, VERDICTS, Files
from pecrs_lib.reproduction.layout import wide
from pecrs_lib.reproduction.report_tables import (
    Found,
    against_baselines,
    by_chance,
    command,
    counts,
    evidence_rows,
    one_seed,
    printed_noise,
    runs_table,
    settings,
    verdicts,
)
from pecrs_lib.reproduction.tables import TABLES

SYMBOLS = {HOLDS: "✓", FAILS: "✗", OPEN: "?", MISSING: "·", UNTESTED: "–"}
RULE = f"""\
- **{HOLDS}**: the whole 95 % interval of our difference lies on the side that the paper claims.
- **{FAILS}**: it lies on the other side, or below half the size that the paper prints.
- **{OPEN}**: neither.
- **{MISSING}**: the files it needs are not there. **{UNTESTED}**: no file could judge it, or ours \
are of a setting that cannot.

Intervals are over dialogues (bootstrap). Where a claim makes several comparisons at once, it \
holds if all of them do, and does not if one does not. Counts of a whole have no interval. Beside \
every difference in recall stands the same on *novel* targets, films that nobody had mentioned \
before."""


def report(files: Files) -> str:
    """The whole report."""
    found = findings(files)
    parts = [
        "# What holds of the paper, here",
        "Parameter-Efficient Conversational Recommender System as a Language Processing Task "
        "(EACL 2024), claim by claim. Written by `pecrs reproduce --report` from the result files "
        "and `data/paper`; every number comes from there.",
        summary(found),
        markdown(counts(found).reset_index()),
        "## How a verdict is made",
        RULE,
        chance_text(found),
        "## Verdicts",
        " · ".join(f"{SYMBOLS[v]} {v}" for v in VERDICTS),
        markdown(_short(verdicts(found))),
        *(text for place in PLACES for text in section(files, found, place)),
        "## A model with counts beside it" if better_text(files) else "",
        *better_text(files),
        markdown(better_table(files)),
        *method(files),
        *threats(files, found),
        "## Runs",
        "Each command trains what is not done yet, and goes on after an interruption.",
        markdown(_code(runs_table(files), "command")),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown; "" for an empty one."""
    if table.empty:
        return ""
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    lines += [
        [str(value).replace("|", "\\|") for value in row] for row in table.itertuples(index=False)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(table: pd.DataFrame) -> pd.DataFrame:
    """Ids in code, verdicts as symbols."""
    others = [c for c in table if c not in ("id", "where", "the paper says")]
    symbols = table[others].map(lambda v: SYMBOLS.get(v, ""))
    return _code(pd.concat([table[["id", "the paper says", "where"]], symbols], axis=1), "id")


def _code(table: pd.DataFrame, column: str) -> pd.DataFrame:
    return table.assign(**{column: [f"`{value}`" for value in table[column]]})


def summary(found: Found) -> str:
    """One sentence per data set: how many claims could be judged, and how they came out."""
    table = counts(found)
    lines = []
    for name in table:
        judged = table.loc[[HOLDS, FAILS, OPEN], name]
        about = int(table[name].sum())
        if not judged.sum():
            lines.append(f"**{name}**: none of {about} claims can be judged yet.")
            continue
        lines.append(
            f"**{name}**: of {about} claims {judged.sum()} can be judged: {judged[HOLDS]} "
            f"{_plural(judged[HOLDS], 'holds', 'hold')}, {judged[FAILS]} "
            f"{_plural(judged[FAILS], 'does not', 'do not')}, and {judged[OPEN]} cannot be told "
            "with this much data."
        )
    return "\n".join(f"- {line}" for line in lines)


def _plural(n: int, one: str, more: str) -> str:
    return one if n == 1 else more


def chance_text(found: Found) -> str:
    """How many verdicts would be wrong by chance."""
    chance = by_chance(found)
    if not chance["n"]:
        return ""
    return (
        f"**By chance.** {chance['n']} verdicts rest on an interval. If no difference were real, "
        f"about {chance['expected']:.1f} of them would still read '{HOLDS}', and the chance of at "
        f"least one would be {chance['at least one']:.0f} % were they independent; about as many "
        f"true claims may read '{FAILS}'. They are not independent: they share test points and "
        "main runs, so wrong ones come together. No verdict is corrected for this."
    )


def section(files: Files, found: Found, place: str) -> list[str]:
    """One place of the paper: its claims, the numbers behind the verdicts, its tables here."""
    claims = [claim for claim in found if claim.table == place]
    texts = [f"## {PLACES[place]}"]
    for claim in claims:
        marks = ", ".join(
            f"{name} {SYMBOLS[f.verdict]} {f.verdict}" for name, f in found[claim].items() if f
        )
        said = f"{UNTESTED}. {claim.reason}" if claim.reason else f"{marks}."
        texts.append(f"**{claim.says}** ({claim.where}) {said}")
    rows = evidence_rows(found, place)
    if len(rows):
        texts.append(markdown(rows.drop(columns=["files", "note"])))
        texts.append(_notes(rows))
    for name, results in files.columns.items():
        texts += key_tables(name, results, place)
    commands = dict.fromkeys(
        command(claim, files.columns[name])
        for claim in claims
        for name, f in found[claim].items()
        if f is not None and claim.judge is not None
    )
    texts += ["Run again: " + ", ".join(f"`{c}`" for c in commands) + "."] if commands else []
    return texts


def _notes(rows: pd.DataFrame) -> str:
    """What to know of each number, and the files it comes from."""
    lines = [
        " ".join(f"- `{row['claim']}`, {row['data']}: {row['note']} {_files(row['files'])}".split())
        for row in rows.to_dict("records")
    ]
    return "\n".join(lines)


def _files(names: str) -> str:
    parts = names.split(", ") if names else []
    return f"Files: {', '.join(f'`{name}`' for name in parts)}." if parts else ""


def key_tables(name: str, results: Results, place: str) -> Iterable[str]:
    """The paper's table beside ours, for one data set that has runs."""
    if place not in TABLES or not results.data or not (results.main or place == "1"):
        return []
    if place == "1" and results.dataset == "minireel":
        return []
    table = TABLES[place](results)
    shown = markdown(wide(table))
    title = f"{table.attrs['title']}. Runs on {name}"
    title += f"; the paper: {table.attrs['paper']}." if table.attrs["paper"] else "."
    texts = [f"{title} Cells: the paper | ours [95 % interval].", shown]
    if place == "2":
        texts += [
            f"PECRS less simple baselines on {name}, recall in points [95 % interval].",
            markdown(beside := against_baselines(results)),
            baselines_text(name, beside),
            noise_text(name, results),
        ]
    return [text for text in texts if text]


def baselines_text(name: str, table: pd.DataFrame) -> str:
    """In words: which baselines PECRS is ahead of at R@50, on all and on novel targets.

    Args:
        table: of `report_tables.against_baselines`.
    """
    if table.empty:
        return ""
    texts = []
    for targets, rows in table.groupby("targets", sort=False):
        bounds = rows["R@50"].str.extract(r"\[(\S+), (\S+)\]").astype(float).to_numpy()
        side = np.sign(bounds).sum(1) / 2  # 1 ahead, -1 behind, else neither
        groups = {"ahead of": side == 1, "behind": side == -1, "not to be told from": abs(side) < 1}
        names = {word: ", ".join(rows["PECRS less"][mask]) for word, mask in groups.items()}
        parts = [f"{word} {of}" for word, of in names.items() if of]
        texts.append(f"on {targets} targets {'; '.join(parts)}")
    return f"At R@50 PECRS on {name} is {', and '.join(texts)}."


def noise_text(name: str, results: Results) -> str:
    """How many of the paper's own differences in Table 2 are larger than noise."""
    table = printed_noise(results)
    if table.empty:
        return ""
    larger = table[table["larger"]]
    behind = int((larger["difference"] < 0).sum())
    return (
        f"The paper's own Table 2 on {name}: of {len(table)} differences between a PECRS and "
        f"another system {len(larger)} are larger than the noise of {table['n'].iloc[0]:,} points "
        f"(independent shares, 95 %), {behind} of them with PECRS behind."
    )


def method(files: Files) -> list[str]:
    """Protocol and data, and where the runs are not the paper's."""
    texts = [
        "## Method",
        "One point per film that a recommender names; ranks over the whole catalogue, the target "
        "against every other film; history as people said it. The epoch is chosen on validation "
        "dialogues; the test part is read once a run, after training.",
    ]
    for name, results in files.columns.items():
        if not results.main:
            texts.append(f"**{name}**: no main run.")
            continue
        run = results.main[0]
        counted = ", ".join(f"{k} {v:,}" for k, v in run["n"].items())
        texts.append(
            f"**{name}**: preset `{run['preset']}`, backbone `{run['backbone']}`, "
            f"{len(results.main)} {_plural(len(results.main), 'seed', 'seeds')}; {counted}. "
            f"{run['hardware']}. Settings that are not the paper's:"
        )
        texts.append(markdown(_code(settings(results), "setting")))
        if len(results.runs) > 1:
            table = wide(TABLES["deviations"](results))
            texts += [
                f"What our deviations are worth on {name}, each undone alone:",
                markdown(table),
            ]
    return texts


def threats(files: Files, found: Found) -> list[str]:
    """What may make the verdicts wrong."""
    lines = []
    for name, results in files.columns.items():
        runs = sum(len(of) for of in results.runs.values())
        if runs:
            points = len(results.data["points"]["item"])
            lines.append(
                f"The test part of {name} ({points:,} points) was read by {runs} "
                f"{_plural(runs, 'run', 'runs')}, once each; no run chooses anything by it, but "
                "all verdicts rest on the same points."
            )
        if f"fusion_{results.dataset}" in files.others:
            lines.append(f"{name}: the model with counts beside it read the test part once more.")
        if results.main and results.main[0]["preset"] != "paper":
            run = results.main[0]
            lines.append(
                f"{name}: preset `{run['preset']}` with `{run['backbone']}` is not the paper's "
                "setting. What does not hold here may hold there."
            )
    single = one_seed(found)
    if single:
        lines.append(
            f"One seed only, so another training may come out otherwise ({len(single)}): "
            f"{', '.join(single)}."
        )
    lines.append(
        "Intervals resample dialogues, not trainings; with few seeds they are too narrow for a "
        "claim about the method."
    )
    return ["## Threats", "\n".join(f"- {line}" for line in lines)]
