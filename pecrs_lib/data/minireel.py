"""MiniReel, the bundled data set: 600 real films and simulated dialogues about them.

A reader of the first step of the flow, over the files of `data/minireel/` (made by
`python -m experiments.minireel`; its README.md is the data card).
"""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

from pecrs_lib.data.files import existing_file
from pecrs_lib.data.movies import read_catalogue
from pecrs_lib.data.redial import read_redial
from pecrs_lib.data.schema import Catalogue, DataError, Dialogue

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Interaction:
    """A seeker watched a film and liked it or not; `time` counts the seeker's films from 0."""

    seeker: str
    time: int
    item: str
    liked: bool
    split: str  # of the seeker's dialogues; seekers of one split appear in no other
    dialogue: str | None  # where it came up; None for what they had watched before


def bundled(name: str) -> Path:
    """The folder ``data/<name>`` that comes with the package, in a clone or an installed wheel.

    Raises DataError when it is not there.
    """
    package = Path(__file__).resolve().parents[1]
    for root in (package.parent / "data", package / "bundled"):
        if (root / name).is_dir():
            return root / name
    raise DataError(f"the bundled folder {name!r} is missing; install the package again")


def bundled_backbone(name: str) -> str:
    """The folder of a language model that comes with the package; any other name as it is."""
    if "/" in name or Path(name).exists():
        return name
    try:
        return str(bundled(f"backbone/{name}"))
    except DataError:
        return name


def load_minireel() -> tuple[Catalogue, dict[str, list[Dialogue]]]:
    """The catalogue, and the dialogues of "train", "valid" and "test"."""
    folder = bundled("minireel")
    splits = {name: read_redial(folder / f"{name}.jsonl.gz") for name in SPLITS}
    return read_catalogue(folder / "films.jsonl"), splits


def load_interactions() -> list[Interaction]:
    """What every seeker watched, seeker by seeker in time order."""
    path = existing_file(bundled("minireel") / "interactions.csv.gz")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as rows:
        return [
            Interaction(
                row["seeker"], int(row["time"]), row["item"], row["liked"] == "1", row["split"],
                row["dialogue"] or None,
            )
            for row in csv.DictReader(rows)
        ]  # fmt: skip


def load_oracle() -> dict[tuple[str, int, str], int]:
    """(dialogue id, turn, item) -> rank of that recommendation for one who knows the taste.

    The rank is under the distribution the simulator drew the film from; 1 is best.
    """
    path = existing_file(bundled("minireel") / "oracle.jsonl.gz")
    rows = map(json.loads, gzip.decompress(path.read_bytes()).decode().splitlines())
    return {(r["conversation"], r["turn"], r["movie"]): r["rank"] for r in rows}
