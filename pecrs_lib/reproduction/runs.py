"""The runs of the reproduction: what each trains, how it is called, and the file it leaves.

Comes after `variants`; `running` carries a run out, `tables` reads the files. A
run is one training with one seed; its file holds numbers and catalogue ids only, no sentence of a
corpus.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pecrs_lib import __version__
from pecrs_lib.config import PAPER_SMALL, TINY, Config
from pecrs_lib.data import DataError
from pecrs_lib.data.storage import write_whole
from pecrs_lib.reproduction.variants import BEYOND, LEARNING_CURVE, OFFICIAL

MAIN = "PECRS"
# Variant -> settings that differ, in the words and order of the paper's Table 5. "titles" stands
# for a catalogue without the other fields.
ABLATIONS: dict[str, dict[str, Any]] = {
    # the warm start is retrieval, so it goes with its loss; see REFERENCE
    "w/o Recall loss": {"alpha": 0.0, "warm_start": 0},
    "w/o Rerank loss": {"beta": 0.0},
    "w/o Generation loss": {"gamma": 0.0},
    "w/o Neg. sharing (batch)": {"share_over_batch": False},
    "w/o Neg. sharing (tasks)": {"share_over_tasks": False},
    "w/o Item pooling": {"item_pooling": False},
    "w/o Item head": {"item_head": False},
    "w/o Metadata (just title)": {"titles": True},
}
# What the paper does where the preset for CPUs deviates (see the DEVIATION notes of `warmstart`,
# `heads` and `model`): each undone alone, to see what it is worth.
AS_IN_PAPER: dict[str, dict[str, Any]] = {
    "re-rank score from g alone": {"rerank_from_retrieval": False},
    "query from [REC] alone": {"query_pooling": False},
    "single stage alone": {"warm_start": 0},
}
# An ablation is compared with the main run, but one without warm start with such a run.
REFERENCE = {"w/o Recall loss": "single stage alone"}
M_TRAIN = "M_train = "  # Figure 3: the variants of a preset are called after their number


@dataclass(frozen=True)
class Recipe:
    """How a preset treats one data set.

    Attributes:
        config: of the main run.
        m_train: the values of Figure 3.
        m_inference: likewise; all of them are measured in every run.
        minutes: of the main run on the machine the preset is for; a guess until there are files.
        read_lm: whether the warm start reads the frozen LM, see `warmstart.warm_start`.
        dialogues: of the single stage, drawn at random with the seed; None: all.
        valid: dialogues that choose the epoch, the same for every run; None: all.
        replies: test dialogues whose recommender turns are answered; None: all.
        prune: whether main runs are measured with each item field left out, too (Table 6).
    """

    config: Config
    m_train: tuple[int, ...]
    m_inference: tuple[int, ...]
    minutes: float
    read_lm: bool = True
    dialogues: int | None = None
    valid: int | None = None
    replies: int | None = None
    prune: bool = True


_CPU = TINY.with_(
    negatives=64,
    retrieval_negatives=64,
    share_over_tasks=True,  # as in the paper, so that Table 5 can take it away
    temperature=0.1,
    warm_start=6,
    head_learning_rate=3e-4,  # the heads are warm already
    alpha=1.0,  # a small LM in one or two epochs: recommendation first
    beta=0.5,
    gamma=0.5,
    warmup_epochs=0.1,
    epochs=1,
    patience=None,
    candidates=400,
)
_PAPER = PAPER_SMALL.with_(patience=None)
_GRID = (16, 64, 150), (16, 64, 150, 400)
_REEL_GRID = (16, 64, 150), (16, 64, 100)
_PAPER_GRID = (50, 150, 300, 600), (50, 150, 300, 700)
PRESETS: dict[str, dict[str, Recipe]] = {
    "cpu": {
        "minireel": Recipe(
            _CPU.with_(candidates=100), *_REEL_GRID, minutes=8,
            dialogues=800, valid=60, replies=20,
        ),
        "inspired": Recipe(_CPU, *_GRID, minutes=10, replies=20),
        "redial": Recipe(
            _CPU, *_GRID, minutes=20, read_lm=False,
            dialogues=1200, valid=60, replies=30, prune=False,
        ),
    },
    "paper": {
        "minireel": Recipe(_PAPER, *_PAPER_GRID, minutes=60),
        "inspired": Recipe(_PAPER.with_(epochs=20), *_PAPER_GRID, minutes=120),
        "redial": Recipe(_PAPER, *_PAPER_GRID, minutes=600, prune=False),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training. `variant` is `MAIN` or another name of `variants`.

    Raises:
        ValueError: a name that is none of these.
    """

    dataset: str
    preset: str
    backbone: str
    variant: str = MAIN
    seed: int = 0

    def __post_init__(self) -> None:
        known = PRESETS.get(self.preset)
        if known is None:
            raise ValueError(f"no preset {self.preset!r}; there are {', '.join(PRESETS)}")
        if self.dataset not in known:
            raise ValueError(f"no data set {self.dataset!r}; there are {', '.join(known)}")
        if self.variant not in variants(known[self.dataset]):
            names = "; ".join(variants(known[self.dataset]))
            raise ValueError(f"no variant {self.variant!r}; there are: {names}")

    @property
    def name(self) -> str:
        """What its file and its folder are called."""
        parts = (self.dataset, self.preset, self.model, self.variant, str(self.seed))
        words = (part.lower().replace("w/o", "without") for part in parts)
        return "-".join(re.sub(r"[^a-z0-9]+", "-", part).strip("-") for part in words)

    @property
    def model(self) -> str:
        """The backbone without the folder it lies in, which is nobody else's business."""
        return Path(self.backbone).name

    @property
    def recipe(self) -> Recipe:
        return PRESETS[self.preset][self.dataset]

    @property
    def changes(self) -> dict[str, Any]:
        return variants(self.recipe)[self.variant]

    @property
    def titles_only(self) -> bool:
        return "titles" in self.changes

    @property
    def share(self) -> float:
        """Of the training dialogues, which a learning curve makes smaller."""
        return float(self.changes.get("share", 1))

    @property
    def config(self) -> Config:
        """To train with; `settings` is what a file holds of it."""
        changes = {k: v for k, v in self.changes.items() if k not in ("titles", "share")}
        return self.recipe.config.with_(backbone=self.backbone, seed=self.seed, **changes)

    @property
    def settings(self) -> dict[str, Any]:
        return self.config.to_dict() | {"backbone": self.model}


def variants(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Every variant by name; what the main run already is has no run of its own."""
    grid = {f"{M_TRAIN}{m}": {"negatives": m, "retrieval_negatives": m} for m in recipe.m_train}
    main, others = recipe.config, {**grid, **AS_IN_PAPER, **BEYOND, **OFFICIAL}
    others = {name: of for name, of in others.items() if main.with_(**of) != main}
    return {MAIN: {}, **ABLATIONS, **others, **LEARNING_CURVE}


# Table or figure -> the variants it needs; 4, 7 and 8 are made by other tools.
NEEDS: dict[str, tuple[str, ...]] = {
    "1": (),
    "2": (MAIN,),
    "3": (MAIN,),
    "4": (),
    "5": (MAIN, *ABLATIONS, *REFERENCE.values()),
    "6": (MAIN,),
    "7": (),
    "8": (),
    "9": (MAIN,),
    "10": (MAIN,),
    "figure-3": (MAIN, M_TRAIN),
    "figure-4": (MAIN,),
    "deviations": (MAIN, *AS_IN_PAPER),
    "beyond": (MAIN, *BEYOND),
    "learning-curve": (MAIN, *LEARNING_CURVE),
    "official": (MAIN, *OFFICIAL),
}


def needed(tables: Sequence[str], preset: str, dataset: str) -> list[str]:
    """Variants that some tables need, each once, the main run first."""
    every = variants(PRESETS[preset][dataset])
    wanted = tuple(name for table in tables for name in NEEDS[table])
    grid = M_TRAIN in wanted
    return [v for v in every if v in wanted or (grid and v.startswith(M_TRAIN))]


def is_done(run: Run, files: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether there is a file of this run, made with the settings it has now."""
    found = files.get(run.name)
    return found is not None and Config.from_dict(found["config"]).to_dict() == run.settings


def plan(
    runs: Iterable[Run], minutes: Mapping[Run, float], budget: float | None
) -> tuple[list[Run], list[Run]]:
    """Runs that fit into `budget` minutes, in their order, and those that do not."""
    chosen: list[Run] = []
    left: list[Run] = []
    spent = 0.0
    for run in runs:
        fits = budget is None or spent + minutes[run] <= budget
        (chosen if fits else left).append(run)
        spent += minutes[run] if fits else 0.0
    return chosen, left


def estimate(run: Run, done: Mapping[str, Mapping[str, Any]]) -> float:
    """Minutes a run will take: as another seed of it, or as its main run, or as its recipe says.

    Args:
        done: files by name, from `read_runs`.
    """

    def measured(variant: str) -> list[float]:
        of = {"dataset": run.dataset, "preset": run.preset, "backbone": run.model}
        wanted = of | {"variant": variant}
        same = [r for r in done.values() if all(r.get(k) == v for k, v in wanted.items())]
        return [sum(r["seconds"].values()) / 60 for r in same]

    found = measured(run.variant) or measured(MAIN) or [run.recipe.minutes]
    return sum(found) / len(found)


def machine() -> dict[str, str]:
    """What a result file says of where its numbers come from."""
    root = Path(__file__).resolve().parents[1]
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        commit = found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = f"version {__version__}"  # installed, not a clone
    if torch.cuda.is_available():
        hardware = torch.cuda.get_device_name()
    else:
        hardware = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return {"commit": commit, "torch": torch.__version__, "hardware": hardware}


def write_run(record: Mapping[str, Any], path: Path) -> None:
    """A line per entry: small, and legible in a diff. Appears only once it is complete."""
    lines = (f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in record.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """The files of a folder by name, without ``.json``.

    Raises:
        DataError: a file is damaged.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"not a run: {error}; remove it to run again", path=path) from error
    return found


def rounded(values: Sequence[float], digits: int = 2) -> list[float]:
    """Numbers for a file: whole ones without a point."""
    return [int(x) if x == int(x) else x for x in (round(float(v), digits) for v in values)]
