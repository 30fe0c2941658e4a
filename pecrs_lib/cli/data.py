"""``pecrs data``: get the corpora, check them, count them, split and convert them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pecrs_lib.cli.options import CatalogueOption, FormatOption, JsonOption, SeedOption
from pecrs_lib.cli.terminal import advice, columns, say, show, show_json, stop, watched

app = typer.Typer(
    help="Get, check, count, split and convert corpora.",
    rich_markup_mode=None,
)
DatasetArgument = Annotated[
    str,
    typer.Argument(help="A data set of `pecrs data sources`, or one file, as inspired/dev.tsv."),
]
DataCacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache", help="Folder of the originals; default: PECRS_DATA, else the user's cache."
    ),
]
FilesArgument = Annotated[list[Path], typer.Argument(help="Files; several are one data set.")]


@app.callback(invoke_without_command=True)
def _data(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        show(context.get_help())


@app.command()
def sources(as_json: JsonOption = False) -> None:
    """List the data sets: files, terms, where they come from.

    Example: pecrs data sources
    """
    from pecrs_lib.data.download import describe_sources

    rows = describe_sources()
    if as_json:
        show_json(rows)
    else:
        show(columns([list(rows[0]), *(list(row.values()) for row in rows)]))


@app.command()
def download(
    dataset: DatasetArgument, cache: DataCacheOption = None, as_json: JsonOption = False
) -> None:
    """Download a data set, check its content, unpack it; prints where its files are.

    What is there already is not fetched again.

    Example: pecrs data download inspired-pecrs
    """
    from pecrs_lib.data.archive import DownloadError, safe_unzip
    from pecrs_lib.data.download import fetch

    try:
        files = fetch(dataset, cache, progress=watched())
    except DownloadError as error:
        if "\n" not in str(error):  # the disk, not the network
            raise
        place = f" --cache {cache}" if cache else ""
        raise DownloadError(
            f"{advice(error)}; to fetch it by hand: `pecrs data verify {dataset}{place}` says from "
            "where and to where"
        ) from error
    paths = []
    for path in files.values():
        paths.append(path)
        if path.suffix == ".zip":
            paths += safe_unzip(path, path.parent)
    if as_json:
        show_json({"dataset": dataset, "files": [str(path) for path in paths]})
    else:
        show("\n".join(map(str, paths)))


@app.command()
def verify(
    dataset: DatasetArgument, cache: DataCacheOption = None, as_json: JsonOption = False
) -> None:
    """Check the downloaded files of a data set; exit status 1 unless all are as published.

    For a missing or damaged file it says where to fetch it and where to put it.

    Example: pecrs data verify inspired
    """
    from pecrs_lib.data.download import _places
    from pecrs_lib.data.download import verify as states

    rows = [
        {"name": name, "state": state, "path": str(path), "source": file.url()}
        for (name, state), (file, path) in zip(
            states(dataset, cache), _places(dataset, cache).items(), strict=True
        )
    ]
    if as_json:
        show_json({"dataset": dataset, "files": rows})
    else:
        show(columns([[row["state"], row["path"]] for row in rows]))
        for row in rows:
            if row["state"] != "ok":
                show(f"fetch {row['source']}\n   to {row['path']}")
    if any(row["state"] != "ok" for row in rows):
        raise typer.Exit(1)


@app.command()
def describe(
    files: FilesArgument,
    format: FormatOption,
    catalogue: CatalogueOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count a data set as the paper's Table 1 does, and plainly.

    With --catalogue, mentions of items that it lacks are counted apart (`outside`). What may be
    wrong (empty dialogues, mentions in words unlike the title, …) is said on stderr, with the first
    places.

    JSON: the counts by name (dialogues, utterances, items, mentions, outside, points,
    points_without, points_with, …), with `format`, `files`, and `doubts`: [{"what": …, "n": …,
    "places": […]}, …].

    Example: pecrs data describe --format redial train_data.jsonl test_data.jsonl
    """
    from pecrs_lib.cli.inputs import load_catalogue, load_dialogues
    from pecrs_lib.data import describe as count
    from pecrs_lib.data import doubts

    items = load_catalogue(catalogue)
    dialogues = load_dialogues(files, format, items)
    counts, doubtful = count(dialogues, items), doubts(dialogues, items)
    if as_json:
        record = {"format": format, "files": [str(f) for f in files]} | counts.to_json()
        show_json(record | {"doubts": [asdict(doubt) for doubt in doubtful]})
    else:
        show(counts.table())
    for doubt in doubtful:
        say(f"please check: {doubt}")
    if not counts.points_with:
        say("no recommender mentions an item: there is nothing to train a recommendation on")


@app.command()
def split(
    file: Annotated[Path, typer.Argument(help="Dialogues to split.")],
    format: FormatOption,
    out_train: Annotated[Path, typer.Option(help="Where to write the training part (.jsonl).")],
    out_valid: Annotated[Path, typer.Option(help="Where to write the validation part (.jsonl).")],
    share: Annotated[float, typer.Option(help="Of the dialogues for validation.")] = 0.1,
    seed: SeedOption = 0,
    catalogue: CatalogueOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put whole dialogues aside for validation; equal ones stay on one side.

    Both parts are written in this package's format, and what was done to <out-valid>.split.json.

    Example: pecrs data split --format redial train_data.jsonl
    --out-train train.jsonl --out-valid valid.jsonl
    """
    from pecrs_lib.cli.inputs import load_catalogue, load_dialogues
    from pecrs_lib.data import split_by_dialogue, write_jsonl

    if out_train.resolve() == out_valid.resolve():
        stop(f"--out-train and --out-valid are the same file: {out_train}")
    parts = split_by_dialogue(
        load_dialogues([file], format, load_catalogue(catalogue)), share, seed
    )
    write_jsonl(parts.train, out_train)
    write_jsonl(parts.valid, out_valid)
    record = {"source": file.name, **parts.record}
    place = out_valid.with_name(f"{out_valid.name}.split.json")
    place.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if as_json:
        show_json(record)
    else:
        show(f"{out_train}: {len(parts.train):,} dialogues")
        show(f"{out_valid}: {len(parts.valid):,} dialogues, recorded in {place.name}")


@app.command()
def convert(
    files: FilesArgument,
    format: FormatOption,
    out: Annotated[Path, typer.Option(help="Where to write the dialogues (.jsonl, .jsonl.gz).")],
    catalogue: CatalogueOption = None,
    out_catalogue: Annotated[
        Path | None, typer.Option(help="Where to write the catalogue (.jsonl or .csv).")
    ] = None,
) -> None:
    """Rewrite dialogues, and their catalogue, in this package's formats.

    With --catalogue, the mentions get its ids.

    Example: pecrs data convert --format inspired test.tsv --out test.jsonl
    --catalogue movie_database.tsv --out-catalogue movies.csv
    """
    from pecrs_lib.cli.inputs import load_catalogue, load_dialogues
    from pecrs_lib.data import write_catalogue, write_jsonl

    items = load_catalogue(catalogue)
    if out_catalogue is not None and items is None:
        stop("--out-catalogue needs a --catalogue to write")
    dialogues = load_dialogues(files, format, items)
    write_jsonl(dialogues, out)
    show(f"{out}: {len(dialogues):,} dialogues")
    if out_catalogue is not None and items is not None:
        write_catalogue(items, out_catalogue)
        show(f"{out_catalogue}: {len(items):,} items")
