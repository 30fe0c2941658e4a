"""The options that several commands share, declared once so that they mean the same everywhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pecrs_lib.reproduction.variants import COMPAT


class Format(StrEnum):
    """The dialogue formats of `data.FORMATS`, spelled out: asking it would import torch."""

    redial = "redial"
    inspired = "inspired"
    pecrs = "pecrs"
    jsonl = "jsonl"
    csv = "csv"


FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        help="redial: ReDial's JSON lines; inspired: INSPIRED's .tsv; pecrs: the files the paper's "
        "authors processed; jsonl: this package's own, for your data; csv: your data as a table "
        "(commas or tabs) with the columns dialogue, role, text, items.",
    ),
]
CatalogueOption = Annotated[
    Path | None,
    typer.Option(
        "--catalogue",
        help="The items: our .csv, .tsv or .jsonl, INSPIRED's movie_database.tsv, ReDial's "
        "movies_with_mentions.csv, or the authors' movie_db. Where its ids are not those of the "
        "dialogues, titles are matched and the outcome is reported.",
    ),
]


class Compat(StrEnum):
    """Whose habits to train with where the paper says otherwise."""

    official = "official"


CompatOption = Annotated[
    Compat | None,
    typer.Option(
        "--compat",
        help="official: train as the official code where it differs from the paper, all at once: "
        f"{', '.join(f'{name}={value}' for name, value in COMPAT.items())}.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of every random choice.")]
CheckpointOption = Annotated[
    Path,
    typer.Option(
        "--checkpoint",
        help="A folder written by `pecrs train`: the run itself (its best epoch is taken) or a "
        "checkpoint in it. Its catalogue.jsonl is used where --catalogue is not given.",
    ),
]
OwnCheckpointOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        help="A folder written by `pecrs train`: the run itself (its best epoch is taken) or "
        "a checkpoint in it; default: the small model that comes with the package.",
    ),
]
BackboneOption = Annotated[
    str | None,
    typer.Option("--backbone", help="Where the language model is now, if it has moved."),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Where item features are kept between runs; by default cache/ in the run's folder.",
    ),
]
CandidatesOption = Annotated[
    int | None,
    typer.Option(
        "--candidates", min=1, help="M, items retrieved and then re-ranked; default: as trained."
    ),
]
RepeatsOption = Annotated[
    bool,
    typer.Option(
        "--repeats/--no-repeats", help="Whether what was named before may be recommended again."
    ),
]
TopOption = Annotated[int, typer.Option("--top", min=1, help="How many items to show.")]
NAMING = 'name a film with its year, quotation marks or capitals: Up (2009), "Up", Home Alone'
