"""``pecrs evaluate``: baselines and a checkpoint on the same points of the same dialogues."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pecrs_lib.cli.options import (
    BackboneOption,
    CacheOption,
    CandidatesOption,
    CatalogueOption,
    FormatOption,
    JsonOption,
    SeedOption,
)
from pecrs_lib.cli.terminal import bar, columns, say, show, show_json, stop

if TYPE_CHECKING:  # imported when the command runs: these need torch
    from pecrs_lib.cli.trained import Ready
    from pecrs_lib.data import Catalogue, Dialogue
    from pecrs_lib.evaluation import Predictions, Targets

CUTS = (1, 10, 50)
PERCENT = ("rouge1", "rouge2", "F-1")
TARGETS: tuple[Targets, ...] = ("all", "novel")


def evaluate(
    test: Annotated[Path, typer.Option("--test", help="Dialogues to evaluate on.")],
    format: FormatOption,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Evaluate the five baselines; needs --train.")
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Evaluate a trained model: the --out of `pecrs train`."),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            "--train", help="What the baselines learn from; beside --checkpoint it adds them."
        ),
    ] = None,
    catalogue: CatalogueOption = None,
    candidates: CandidatesOption = None,
    replies: Annotated[
        bool, typer.Option(help="Generate replies and measure them (the slow part).")
    ] = True,
    always_recommend: Annotated[
        bool,
        typer.Option(
            "--always-recommend",
            help="Measure a second set of replies, each prompted with an item, as the paper does.",
        ),
    ] = False,
    ranks: Annotated[
        Path | None,
        typer.Option("--ranks", help="Where to write the checkpoint's ranks (.npz)."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            help="Ranks that --ranks wrote for another checkpoint, on the same dialogues with the "
            "same catalogue: adds the differences to it, point by point.",
        ),
    ] = None,
    seed: SeedOption = 0,
    backbone: BackboneOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure baselines, a trained model, or both.

    Recall@1, 10 and 50 in percent with 95 % intervals, for all targets and for novel ones. (Where
    none or all of the points hit, the interval is what so many equal points cannot exclude.) A
    point is an item that a recommender mentions; novel is what nobody had mentioned before.
    Ranks are over the whole catalogue. For a checkpoint also perplexity, ROUGE, Dist and F-1.

    Several processes share the work, with the same results:
    `accelerate launch --multi_gpu --num_processes N -m pecrs_lib evaluate --checkpoint …`.

    \b
    JSON:
      {"n_dialogues": …, "n_points": …, "n_novel": …, "n_outside_catalogue": …, "n_items": …,
       "rows": [{"system": …, "targets": "all" or "novel", "n": …, "Unique": …,
                 "R@1": {"value": …, "low": …, "high": …}, "R@10": {…}, "R@50": {…}}, …],
       "text": {"perplexity": …, "rouge1": …, "F-1": …, …},
       "text_always_recommend": {…},
       "differences": [{"targets": …, "k": …, "n": …, "difference": …, "low": …, "high": …,
                        "p_value": …}, …]}
    `text` is there for a checkpoint, `text_always_recommend` and `differences` (of this checkpoint
    minus the other, in percentage points; no interval where k reaches every item) if asked for; a
    value that cannot be computed is null.

    \b
    Examples:
      pecrs evaluate --baselines --format pecrs --train train_data_processed \\
        --test test_data_processed --catalogue movie_db
      pecrs evaluate --checkpoint run --format pecrs --test test_data_processed --json
      pecrs evaluate --checkpoint a --format jsonl --test test.jsonl --ranks a.npz
      pecrs evaluate --checkpoint b --format jsonl --test test.jsonl --against a.npz
    """
    if checkpoint is None and not baselines:
        stop("nothing to evaluate: give --baselines, or --checkpoint DIR, or both")
    if baselines and train is None:
        stop("--baselines learn from training dialogues: give --train FILE")
    if checkpoint is None and (ranks or against):
        stop("--ranks and --against are about a checkpoint: give --checkpoint DIR")
    if ranks is not None and not ranks.absolute().parent.is_dir():
        stop(f"--ranks: there is no folder {ranks.parent}")
    from pecrs_lib.cli.folders import find
    from pecrs_lib.cli.inputs import load_catalogue, load_dialogues

    found = None if checkpoint is None else find(checkpoint, catalogue)
    items = load_catalogue(catalogue) if found is None else found.catalogue
    dialogues = load_dialogues([test], format, items)
    learned = None if train is None else load_dialogues([train], format, items)
    if items is None:
        items = _mentioned([*(learned or []), *dialogues])
    other = None if against is None else _ranks_on(against, dialogues, items)
    from pecrs_lib.evaluation import as_records, recall_table

    predictions: list[Predictions] = []
    more: dict[str, Any] = {}
    if found is not None:
        from pecrs_lib.cli.trained import load_ready
        from pecrs_lib.devices import connect, lost_processes_named, processes_of

        processes = processes_of(connect())
        with lost_processes_named(processes):
            ready = load_ready(found, backbone, cache, processes)
            prediction, more = _model(ready, dialogues, candidates, replies, always_recommend, seed)
        if not processes.first:
            return
        predictions = [prediction]
        if ranks is not None:
            prediction.save(ranks, items)
        if other is not None:
            more["differences"] = _differences(prediction, other, seed, len(items))
    if learned is not None:
        predictions = [*_baselines(learned, dialogues, items, seed), *predictions]
    first = predictions[0]
    facts = {
        "n_dialogues": len(dialogues),
        "n_points": len(first),
        "n_novel": int(first.novel.sum()),
        "n_outside_catalogue": sum(item not in items for item in first.item.tolist()),
        "n_items": len(items),
    }
    rows = as_records(recall_table(predictions, CUTS, seed=seed))
    if as_json:
        show_json({**facts, "rows": rows, **more})
    else:
        _print(facts, rows, more.pop("differences", []), more)


def _mentioned(dialogues: list[Dialogue]) -> Catalogue:
    from pecrs_lib.data import Catalogue

    items = Catalogue.of_mentions(dialogues)
    say(
        f"no --catalogue: ranking over the {len(items):,} items that the files mention, which "
        "contain every target of the test (easier than a real catalogue); their texts are their ids"
    )
    return items


def _ranks_on(path: Path, dialogues: list[Dialogue], items: Catalogue) -> Predictions:
    """The ranks that another evaluation wrote, if it was of the same points and items."""
    from pecrs_lib.data.files import number
    from pecrs_lib.evaluation import Predictions, recommendation_points

    other, points = Predictions.load(path, items), recommendation_points(dialogues)
    here = Predictions.at("these", points, [1] * len(points), [0] * len(points))
    if not here.same_points(other):
        stop(
            f"{path}: its {number(len(other), 'point')} are not the {len(here):,} of --test; "
            "evaluate both checkpoints on the same dialogues"
        )
    return other


def _differences(
    ours: Predictions, other: Predictions, seed: int, items: int
) -> list[dict[str, Any]]:
    """A row per targets and k; without an interval where k reaches every item."""
    from pecrs_lib.evaluation import paired_bootstrap

    none = {"low": None, "high": None, "p_value": None}
    return [
        {"targets": targets}
        | asdict(paired_bootstrap(ours, other, k, targets, seed=seed))
        | (none if k >= items else {})
        for targets in TARGETS
        for k in CUTS
        if len(ours.of(targets))
    ]


def _baselines(
    train: list[Dialogue], test: list[Dialogue], items: Catalogue, seed: int
) -> list[Predictions]:
    from pecrs_lib.baselines import fit_baselines
    from pecrs_lib.evaluation import predict

    systems = fit_baselines(train, items, seed)
    return [predict(system, test, items) for system in bar("baselines")(systems)]


def _model(
    ready: Ready,
    dialogues: list[Dialogue],
    candidates: int | None,
    replies: bool,
    always_recommend: bool,
    seed: int,
) -> tuple[Predictions, dict[str, Any]]:
    """The model's ranks, and its texts measured, by their keys in the JSON document."""
    from pecrs_lib.assessment import converse, predictions_of, rank_dialogues, text_metrics

    model, items, v = ready.model, ready.catalogue, ready.v
    ranked = rank_dialogues(
        model, dialogues, items, v, candidates=candidates, progress=bar("ranking"),
        processes=ready.processes,
    )  # fmt: skip

    def said(always: bool) -> Any:
        return converse(
            model, dialogues, items, v, always_recommend=always, seed=seed, progress=bar("replies"),
            processes=ready.processes,
        )  # fmt: skip

    texts = {"text": text_metrics(ranked, said(False) if replies else None)}
    if always_recommend:
        texts["text_always_recommend"] = said(True).metrics()
    return predictions_of(ranked, dialogues, items), texts


def _print(
    facts: dict[str, int],
    rows: list[dict[str, Any]],
    differences: list[dict[str, Any]],
    texts: dict[str, Any],
) -> None:
    from pecrs_lib.cli.inputs import few_items
    from pecrs_lib.data.files import number

    show(
        f"{number(facts['n_dialogues'], 'dialogue')}, {number(facts['n_points'], 'point')}, "
        f"{number(facts['n_items'], 'item')} in the catalogue; it lacks the target of "
        f"{number(facts['n_outside_catalogue'], 'point')}"
    )
    if few := few_items(facts["n_items"]):
        show(few)
    names = ["system", "targets", "n", *(f"R@{k} [95 %]" for k in CUTS), "Unique"]
    cells = [
        [
            row["system"],
            row["targets"],
            str(row["n"]),
            *(_interval(row[f"R@{k}"]) for k in CUTS),
            str(row["Unique"]),
        ]
        for row in rows
    ]
    show(columns([names, *cells], right=range(2, len(names))))
    if differences:
        show("\nthis checkpoint minus that of --against, in points [95 %]; p of no difference")
        cells = [
            [d["targets"], str(d["n"]), f"R@{d['k']}", f"{d['difference']:+.1f}", *_sureness(d)]
            for d in differences
        ]
        show(columns(cells, right=range(1, 6)))
    for key, metrics in texts.items():
        show(f"\n{key.replace('_', ' ')}")
        cells = [[k, f"{value:.3f}", "%" * (k in PERCENT)] for k, value in metrics.items()]
        show(columns(cells, right=[1]))


def _sureness(difference: dict[str, Any]) -> tuple[str, str]:
    low, high, p = (difference[name] for name in ("low", "high", "p_value"))
    return ("-", "-") if p is None else (f"[{low:+.1f}, {high:+.1f}]", f"p = {p:.3f}")


def _interval(recall: dict[str, float | None]) -> str:
    if recall["value"] is None:
        return "-"
    return f"{recall['value']:.1f} [{recall['low']:.1f}, {recall['high']:.1f}]"
