"""``pecrs train``: from files to a checkpoint, resumable."""

from __future__ import annotations

import json
import signal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pecrs_lib.cli.options import (
    CacheOption,
    CatalogueOption,
    CompatOption,
    FormatOption,
    JsonOption,
)
from pecrs_lib.cli.settings import (
    ALL,
    describe_fields,
    make_config,
    parse_negatives,
    refuse_negatives,
)
from pecrs_lib.cli.terminal import columns, say, show, show_json, stop, watched

if TYPE_CHECKING:  # imported when the command runs: these need torch
    from pecrs_lib.data import Catalogue
    from pecrs_lib.model import PECRS
    from pecrs_lib.training import Trainer


SPLIT = "split.json"  # of validation dialogues, in the folder of the run


class Preset(StrEnum):
    """The keys of `config.PRESETS`."""

    tiny = "tiny"
    paper_small = "paper-small"
    paper_medium = "paper-medium"


def train(
    train: Annotated[Path, typer.Option("--train", help="Dialogues to train on.")],
    format: FormatOption,
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")],
    catalogue: CatalogueOption = None,
    valid: Annotated[
        Path | None,
        typer.Option(
            "--valid",
            help="Dialogues that choose the epoch; without, a share of the training dialogues is "
            "put aside, and their ids in OUT/split.json.",
        ),
    ] = None,
    valid_share: Annotated[float, typer.Option(help="How large a share.")] = 0.1,
    preset: Annotated[
        Preset,
        typer.Option(
            help="tiny: for a small language model on a laptop, not the paper's recipe (warm "
            "start, queries that pool words); paper-small, paper-medium: section 4.1."
        ),
    ] = Preset.tiny,
    backbone: Annotated[
        str | None, typer.Option(help="The language model: a folder or a hub name.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the training dialogues; the warm start is apart. The learning rate "
            "falls to zero over them, so a run cannot be made longer afterwards."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Dialogues, or windows of long ones, of a step; not of the warm start."),
    ] = None,
    negatives: Annotated[
        str | None,
        typer.Option(
            help=f"M_train, for both tasks: a number, or {ALL!r} for the catalogue. In tiny, whose "
            "retrieval has the whole catalogue: --set negatives=N for re-ranking alone."
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate, not of the warm start (the heads' own: head_learning_rate)."
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the frozen model: float32, bfloat16 or float16.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random choice.")] = None,
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing", help="Compute activations twice: less memory, a third more time."
        ),
    ] = False,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Dialogues, or windows of long ones, in one pass: less memory, the same losses.",
        ),
    ] = None,
    compat: CompatOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help=f"Any field; in preset paper-small: {describe_fields()}.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on from OUT/last if it exists, or start anew.")
    ] = True,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on dialogues; the best epoch is kept in OUT/best.

    Run the same command again to go on after an interruption (Ctrl-C saves). On several GPUs, start
    it by `accelerate launch --multi_gpu --num_processes N -m pecrs_lib train …`: --batch-size is
    that of all together, and the losses are those of one process.

    The folder also holds last/ (the state to resume), catalogue.jsonl, history.csv and run.json.

    JSON: best (folder), best_epoch, score (mean of R@1, R@10 and R@50 on the validation
    dialogues), weights (numbers by part), trained_percent, history (a row per epoch, as in
    history.csv).

    \b
    Example:
      pecrs train --format pecrs --train train_data_processed --valid dev_data_processed \\
        --catalogue movie_db --out run --preset paper-small --batch-size 4 --set patience=3
    """
    from pecrs_lib.cli.folders import CACHE, folder_of_run, refuse_another_run
    from pecrs_lib.cli.inputs import few_items, load_catalogue, load_dialogues
    from pecrs_lib.data import Catalogue, split_by_dialogue
    from pecrs_lib.data.files import number
    from pecrs_lib.reproduction.variants import COMPAT

    named = {
        "backbone": backbone,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": lr,
        "head_learning_rate": lr,
        "dtype": dtype,
        "seed": seed,
    }
    options: dict[str, Any] = {} if compat is None else dict(COMPAT)
    options |= {name: value for name, value in named.items() if value is not None}
    if negatives is not None:
        options |= parse_negatives(negatives)
    config = make_config(preset, options, settings or [])

    items = load_catalogue(catalogue)
    dialogues = load_dialogues([train], format, items)
    held_out = None if valid is None else load_dialogues([valid], format, items)
    if items is None:
        items = Catalogue.of_mentions([*dialogues, *(held_out or [])])
        say(f"no --catalogue: the {len(items):,} mentioned items are known by their ids alone")
    refuse_negatives(config, len(items))
    if few := few_items(len(items)):
        say(f"{few}, and R@50 is a third of the score that chooses the epoch")
    record = None
    if held_out is None:
        dialogues, held_out, record = split_by_dialogue(dialogues, valid_share, config.seed)
        record["valid_ids"] = [dialogue.id for dialogue in held_out]
        aside = number(len(held_out), "dialogue")
        say(f"no --valid: {aside} put aside, by id in {out / SPLIT} once training begins")
    if resume:
        refuse_another_run(out, config, items)
    from pecrs_lib.cli.trained import quieten
    from pecrs_lib.model import PECRS
    from pecrs_lib.training import Trainer

    quieten()
    with folder_of_run(out):
        say(f"loading the language model {config.backbone}")
        model = PECRS.from_backbone(config)
        _say_weights(model)
        run = Trainer(
            model, items, dialogues, held_out, out, cache_dir=cache or out / CACHE, show=watched(),
            checkpointing=checkpointing, at_once=at_once,
        )  # fmt: skip
    _start(run, items, record, resume)
    _fit(run)
    _report(run, as_json)
    run.accelerator.end_training()


def _say_weights(model: PECRS) -> None:
    table = model.parameter_table()
    parts = ", ".join(f"{name} {n:,}" for name, n in table.items() if name != "frozen")
    trained = sum(table.values()) - table["frozen"]
    say(
        f"trained: {trained:,} of {sum(table.values()):,} weights, "
        f"{100 * model.trainable_share:.2f} % ({parts})"
    )


def _start(run: Trainer, items: Catalogue, split: dict[str, Any] | None, resume: bool) -> None:
    """Resume or begin, and leave the catalogue and what was split beside the checkpoints."""
    from pecrs_lib.cli.folders import CATALOGUE, way_out
    from pecrs_lib.data import write_catalogue
    from pecrs_lib.data.storage import write_whole

    with way_out():
        resumed = resume and run.resume()
    if resumed:
        state = run.progress
        say(
            f"resuming from {run.out / 'last'}: {state.epoch} of {run.config.epochs} epochs "
            f"and {state.step} steps are done (--no-resume starts anew)"
        )
    run.processes.wait()  # until all have read what the first one now writes anew
    if not run.processes.first:
        return
    write_catalogue(items, run.out / CATALOGUE)
    if split is not None:
        write_whole(run.out / SPLIT, json.dumps(split, indent=2) + "\n")


def _fit(run: Trainer) -> None:
    """`Trainer.fit`, with a line per epoch."""
    if run.processes.count > 1:  # how launchers and clusters end what still runs
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if run.config.warm_start and run.fresh and not run.progress.warm_start:
        say(f"warm start: {run.config.warm_start} epochs of the retrieval heads alone")
    try:
        for row in run.epochs():
            losses = ", ".join(f"{name} {row[name]:.3f}" for name in ("recall", "rerank", "gen"))
            recalls = ", ".join(f"R@{k} {row[f'R@{k}']:.1f}" for k in (1, 10, 50))
            say(
                f"epoch {int(row['epoch'])} of {run.config.epochs}: losses {losses}; "
                f"validation {recalls} %, perplexity {row['perplexity']:.2f}"
            )
    except KeyboardInterrupt:
        if run.config.warm_start and not (run.progress.warm_start or run.progress.step):
            stop("interrupted in the warm start, which the same command begins anew", status=130)
        saved = run.save_alone()
        if not run.processes.first:
            raise typer.Exit(130) from None
        stop(
            f"interrupted after step {run.progress.step}, "
            f"{'saved' if saved else 'finished epochs are saved'} in {run.out / 'last'}; "
            "the same command goes on from there",
            status=130,
        )
    if run.finished_early:
        say(f"stopped early: no better epoch for {run.config.patience}")


def _report(run: Trainer, as_json: bool) -> None:
    model, state, best = run.raw_model, run.progress, run.out / "best"
    if as_json:
        show_json(
            {
                "best": str(best),
                "best_epoch": state.best_epoch,
                "score": state.best,
                "weights": model.parameter_table(),
                "trained_percent": 100 * model.trainable_share,
                "history": state.history,
            }
        )
        return
    if state.history:
        names = list(state.history[0])
        rows = [
            [f"{r[n]:.0f}" if n == "epoch" else f"{r[n]:.3f}" for n in names] for r in state.history
        ]
        show(columns([names, *rows], right=range(len(names))))
    show(f"best: epoch {state.best_epoch}, score {state.best:.2f}, in {best}")
