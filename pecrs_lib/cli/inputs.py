"""From the files named on the command line to dialogues and a catalogue that fit together.

Stands between `data` and the commands. Nothing is dropped: what the catalogue lacks is reported
on stderr and stays in the dialogues.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pecrs_lib.cli.terminal import say
from pecrs_lib.data import (
    Catalogue,
    Dialogue,
    MatchReport,
    check_mentions,
    match_catalogue,
    most_detailed,
    read_catalogue,
    read_dialogues,
)
from pecrs_lib.data.files import number

STAY = "they stay as text, and count as misses in an evaluation"


def few_items(n: int, k: int = 50) -> str | None:
    """A remark on recall@k where the catalogue has hardly more items; None where it has."""
    share = min(100, 100 * k / n)
    said = (
        f"few items: a random order has {share:.0f} % of the catalogue's items among its first {k}"
    )
    return said if n < 10 * k else None


def load_catalogue(path: Path | None) -> Catalogue | None:
    return None if path is None else read_catalogue(path)


def load_dialogues(
    paths: Sequence[Path], format: str, catalogue: Catalogue | None = None
) -> list[Dialogue]:
    """The dialogues of one or more files, their mentions keyed by the ids of `catalogue`."""
    dialogues = [d for path in paths for d in read_dialogues(path, format, catalogue)]
    if catalogue is None:
        return dialogues
    return join(dialogues, catalogue, format, ", ".join(path.name for path in paths))


def join(
    dialogues: Sequence[Dialogue], catalogue: Catalogue, format: str, name: str
) -> list[Dialogue]:
    """Match by title the items whose ids the catalogue lacks; `name` is what stderr calls them.

    ReDial and the authors' item texts both number their films, differently: 27 ids of the one
    happen to be ids of the other. So ids are believed only where most films they stand for in the
    catalogue have the title that the dialogue says; else all are matched by title.
    """
    dialogues = list(dialogues)
    lacking = check_mentions(dialogues, catalogue)
    if not lacking:
        return dialogues
    mentions = sum(count for _, count in lacking)
    some = ", ".join(repr(item) for item, _ in lacking[:3]) + ", …" * (len(lacking) > 3)
    said = (
        f"{name}: {number(len(lacking), 'mentioned item')} ({some}; {number(mentions, 'mention')}) "
        f"{'are no ids' if len(lacking) > 1 else 'is no id'} in "
    )
    joined = [i for i, _ in lacking if any(p.strip() in catalogue for p in re.split("[,;]", i))]
    if joined:
        say(f"{name}: {joined[0]!r} looks like several ids; separate ids by '|'")
    if format == "pecrs":  # the authors' files hold ids only: there is no title to match
        say(f"{said}the catalogue; {STAY}")
        return dialogues
    # INSPIRED's ids are names; the other formats name an item by the words that mention it
    keyed, report = match_catalogue(
        dialogues, catalogue, str if format == "inspired" else None, choose=most_detailed
    )
    # a mention without words says nothing against its id
    known = [match for match in report.matches if match.item in catalogue and match.name]
    agree = sum(m.mentions for m in known if catalogue.row[m.item] in m.rows)
    if 2 * agree >= sum(match.mentions for match in known):
        keyed = [
            _keep_known(old, new, catalogue) for old, new in zip(dialogues, keyed, strict=True)
        ]
        report = MatchReport(tuple(m for m in report.matches if m.item not in catalogue))
    if not any(match.rows for match in report.matches):
        say(f"{said}the catalogue, and no title of it either; {STAY}")
        return keyed
    say(f"{said}the catalogue; matched by title:")
    say("\n".join(f"  {line}" for line in report.summary().splitlines()))
    if report.rate < 1:
        say("  ambiguous and unmatched ones stay as text, and count as misses in an evaluation")
    return keyed


def _keep_known(old: Dialogue, new: Dialogue, catalogue: Catalogue) -> Dialogue:
    """`new` with the mentions of `old` wherever their id is in the catalogue."""
    utterances = (
        replace(
            after,
            mentions=tuple(
                m if m.item in catalogue else n
                for m, n in zip(before.mentions, after.mentions, strict=True)
            ),
        )
        for before, after in zip(old.utterances, new.utterances, strict=True)
    )
    return replace(new, utterances=tuple(utterances))
