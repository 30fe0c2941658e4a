"""``pecrs reproduce``: runs what the paper's tables need, and builds the tables from the files."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pecrs_lib.cli.options import CompatOption
from pecrs_lib.cli.terminal import columns, say, show, stop, watched

if TYPE_CHECKING:  # imported when the command runs: these need torch
    from pecrs_lib.reproduction.runs import Run


class Dataset(StrEnum):
    """`data.CORPORA`."""

    minireel = "minireel"
    inspired = "inspired"
    redial = "redial"


class Preset(StrEnum):
    """The keys of `runs.PRESETS`."""

    cpu = "cpu"
    paper = "paper"


def reproduce(
    tables: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TABLE]...",
            help="1 to 10, figure-3, figure-4, or ours: deviations (from the paper, each undone "
            "alone), beyond (whole catalogue as negatives, items with adapters), learning-curve, "
            "official (what the official code does differently); all of them when none is named.",
        ),
    ] = None,
    dataset: Annotated[
        Dataset, typer.Option(help="minireel comes with the package; the others are downloaded.")
    ] = Dataset.minireel,
    preset: Annotated[
        Preset,
        typer.Option(help="cpu: minutes on one core; paper: section 4.1, for a GPU."),
    ] = Preset.cpu,
    backbone: Annotated[
        str | None,
        typer.Option(help="The language model; default: that of the preset (paper: gpt2)."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="One run of everything for each, as 0,1,2.")] = "0",
    compat: CompatOption = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Minutes: only runs that fit, by measured or estimated times."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="A folder with the data instead of a download: for inspired pecrs/ and "
            "pecrs/movie_db or id2movie.jsonl.gz; for redial movie_db, train.jsonl.gz and "
            "valid.jsonl.gz, which is then the test part.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the result files, one per run.")
    ] = Path("data/results/runs"),
    work: Annotated[
        Path, typer.Option("--work", help="Folder of checkpoints, to go on after an interruption.")
    ] = Path("runs/reproduce"),
    only_list: Annotated[
        bool, typer.Option("--list", help="Say what would run and for how long, and stop.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE.md",
            help="Write a verdict on every claim of the paper, from the files of OUT and of the "
            "folder above it, and stop.",
        ),
    ] = None,
) -> None:
    """Reproduce tables and figures of the paper.

    Runs what the tables need and is not done yet, one file per run in OUT, then prints the tables
    from these files alone: the paper's number, ours with its 95 % interval, n. Run the same
    command again to go on after an interruption.

    \b
    Examples:
      pecrs reproduce 2 --dataset inspired --seeds 0,1,2
      pecrs reproduce 5 figure-3 --dataset inspired --budget 120 --list
      pecrs reproduce 2 3 --dataset inspired --compat official
      pecrs reproduce --dataset redial --preset paper --backbone gpt2-medium
      pecrs reproduce --report report.md
    """
    none = f"no result files in {out}: run in the repository, which has some, or give --out"
    if report is not None:
        if not any(out.glob("*.json")):
            stop(none)
        _report(report, out)
        return
    numbers = _seeds(seeds)
    from pecrs_lib.reproduction.runs import PRESETS, estimate, is_done, plan, read_runs

    wanted = _tables(tables, compat)
    model = backbone or PRESETS[preset][dataset].config.backbone
    runs = _runs(wanted, dataset, preset, model, numbers, compat)
    done = read_runs(out)
    if not done:
        say(none)
    missing = [run for run in runs if not is_done(run, done)]
    for run in missing:
        if run.name in done:
            say(f"{out / run.name}.json is of other settings, and made anew")
    minutes = {run: estimate(run, done) for run in runs}
    chosen, left = plan(missing, minutes, budget)
    if only_list:
        _list(runs, minutes, set(runs) - set(missing), chosen, work)
        return
    needs_data = f"{dataset}-data" not in done
    if chosen or needs_data:
        _carry_out(chosen, minutes, dataset, data, out, work)
    _print(wanted, read_runs(out), dataset, preset, Path(model).name, compat)
    if left:
        say(f"left out for the budget of {budget:g} minutes: {', '.join(r.name for r in left)}")


def _print(
    tables: list[str], files: dict[str, Any], dataset: str, preset: str, backbone: str,
    compat: str | None,
) -> None:  # fmt: skip
    from pecrs_lib.cli.paper_tables import LEGEND, as_text, claims_as_text
    from pecrs_lib.reproduction.claims import claims
    from pecrs_lib.reproduction.evidence import Results
    from pecrs_lib.reproduction.runs import MAIN
    from pecrs_lib.reproduction.tables import ELSEWHERE, TABLES
    from pecrs_lib.reproduction.variant_tables import VARIANT_TABLES
    from pecrs_lib.reproduction.variants import AS_OFFICIAL

    results = Results.of(files, dataset, preset, backbone)
    if compat:
        results = replace(results, runs={MAIN: results.runs.get(AS_OFFICIAL, ())})
    trained = f"{backbone} {AS_OFFICIAL}" if compat else backbone
    show(f"{dataset}, preset {preset}, {trained}; {LEGEND}")
    made = []
    every = TABLES | VARIANT_TABLES
    for name in tables:
        if name in ELSEWHERE:
            show(f"\nTable {name}: {ELSEWHERE[name]}")
        elif every[name] not in made:  # 9 and 10 are one table of two data sets
            made.append(every[name])
            show(f"\n{as_text(every[name](results))}")
    found = claims(results)
    found = found[found["table"].isin(tables)]
    if len(found):
        show(f"\nClaims\n{claims_as_text(found)}")


def _report(path: Path, out: Path) -> None:
    from pecrs_lib.reproduction.findings import read_files
    from pecrs_lib.reproduction.report import report

    path.write_text(report(read_files(out.parent, out)), encoding="utf-8")
    say(f"{path} written from the files of {out} and {out.parent}")


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        stop(f"--seeds wants whole numbers separated by commas, as 0,1,2; got {text!r}")
    return list(dict.fromkeys(map(int, parts)))


def _tables(names: list[str] | None, compat: str | None) -> list[str]:
    from pecrs_lib.reproduction.runs import MAIN, NEEDS

    unknown = [name for name in names or () if name not in NEEDS]
    if unknown:
        stop(f"no table {unknown[0]!r} in the paper; there are {', '.join(NEEDS)}")
    if compat is None:
        return list(dict.fromkeys(names or NEEDS))
    # one run stands for the main run; of Table 6's fields only this is measured
    possible = [name for name, needs in NEEDS.items() if needs == (MAIN,) and name != "6"]
    for name in names or ():
        if name not in possible:
            stop(f"--compat has no table {name!r}, only {', '.join(possible)}")
    return list(dict.fromkeys(names or possible))


def _runs(
    tables: list[str], dataset: str, preset: str, backbone: str, seeds: list[int],
    compat: str | None,
) -> list[Run]:  # fmt: skip
    from pecrs_lib.reproduction.runs import Run, needed
    from pecrs_lib.reproduction.variants import AS_OFFICIAL

    names = [AS_OFFICIAL] if compat else needed(tables, preset, dataset)
    return [Run(dataset, preset, backbone, name, seed) for name in names for seed in seeds]


def _list(
    runs: list[Run],
    minutes: dict[Run, float],
    done: set[Run],
    chosen: list[Run],
    work: Path,
) -> None:
    rows = []
    for run in runs:
        begun = (work / run.name / "last").exists()
        open_ = ("begun" if begun else "to do") if run in chosen else "left out"
        rows.append([run.name, "done" if run in done else open_, f"{minutes[run]:.0f}"])
    show(columns([["run", "state", "minutes"], *rows], right=[2]))
    total = sum(minutes[run] for run in chosen)
    show(f"{len(chosen)} of {len(runs)} runs to do, about {total:.0f} minutes")


def _carry_out(
    runs: list[Run], minutes: dict[Run, float], dataset: str, data: Path | None, out: Path,
    work: Path,
) -> None:  # fmt: skip
    from pecrs_lib.cli.trained import quieten
    from pecrs_lib.data import load_corpus
    from pecrs_lib.data.local import load_folder
    from pecrs_lib.reproduction.measuring import data_record
    from pecrs_lib.reproduction.running import carry_out
    from pecrs_lib.reproduction.runs import write_run

    quieten()
    corpus = load_corpus(dataset) if data is None else load_folder(dataset, data)
    place = out / f"{dataset}-data.json"
    if not place.exists():
        say(f"counts and baselines of {dataset}")
        write_run(data_record(dataset, corpus), place)
    for k, run in enumerate(runs, 1):
        say(f"run {k} of {len(runs)}: {run.name}, about {minutes[run]:.0f} minutes")
        try:
            record = carry_out(run, corpus, work, show=watched())
        except KeyboardInterrupt:
            stop(f"interrupted in {run.name}; the same command goes on from there", status=130)
        write_run(record, out / f"{run.name}.json")
