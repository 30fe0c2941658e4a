"""``pecrs rate``: which of two systems' replies do people prefer? The paper's Table 4 as a tool."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pecrs_lib.cli.options import (
    BackboneOption,
    CacheOption,
    CatalogueOption,
    CheckpointOption,
    FormatOption,
    SeedOption,
)
from pecrs_lib.cli.rate_report import report
from pecrs_lib.cli.terminal import bar, say, show, stop

if TYPE_CHECKING:  # imported when the command runs, as in the other commands
    from pecrs_lib.rating.judgements import Question

DEFAULT = "top-k"  # k = 50 without beams, as the other commands decode

app = typer.Typer(
    help="""Let people compare two systems' replies, blind.

    \b
    The whole way:
      pecrs rate reply --checkpoint run --system PECRS --format redial \\
        --test test_data.jsonl --out pecrs.jsonl
      pecrs rate pair pecrs.jsonl other.jsonl --n 100 --out study.jsonl
      pecrs rate ask study.jsonl --rater ann --out ann.csv
      pecrs rate report ann.csv bob.csv eve.csv""",
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _rate(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        show(context.get_help())


@app.command()
def reply(
    checkpoint: CheckpointOption,
    test: Annotated[Path, typer.Option("--test", help="Dialogues to answer.")],
    format: FormatOption,
    system: Annotated[str, typer.Option("--system", help="What the report calls this system.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the replies (.jsonl).")],
    decoding: Annotated[
        str,
        typer.Option("--decoding", help="greedy, beam search, or another row of Table 8."),
    ] = DEFAULT,
    always_recommend: Annotated[
        bool, typer.Option("--always-recommend", help="Prompt every reply with an item.")
    ] = False,
    seed: SeedOption = 0,
    catalogue: CatalogueOption = None,
    backbone: BackboneOption = None,
    cache: CacheOption = None,
) -> None:
    """Answer every recommender turn of some dialogues with a trained model.

    Replies of another system take the same format, one JSON object a line:

    \b
      {"dialogue": "d1", "turn": 3, "history": [{"role": "seeker", "text": "I liked Up"}],
       "replies": {"MESE": "Then see Brave!"}}

    `turn` counts the utterances of the dialogue from 0; `history` is what was said before.

    Example: pecrs rate reply --checkpoint run --system PECRS --format jsonl --test test.jsonl
    --out pecrs.jsonl
    """
    from pecrs_lib.rating.replies import one_line

    one_line(system, "the name of a system")
    from pecrs_lib.cli.folders import find
    from pecrs_lib.cli.inputs import load_dialogues
    from pecrs_lib.decoding import STRATEGIES, TOP_K
    from pecrs_lib.rating.replies import replies_of, write_replies

    ways = {DEFAULT: TOP_K} | STRATEGIES
    if decoding not in ways:
        stop(f"--decoding {decoding!r}: there are {'; '.join(ways)}")
    found = find(checkpoint, catalogue)
    dialogues = load_dialogues([test], format, found.catalogue)
    from pecrs_lib.assessment import converse
    from pecrs_lib.cli.trained import load_ready

    ready = load_ready(found, backbone, cache)
    said = converse(
        ready.model, dialogues, ready.catalogue, ready.v, always_recommend=always_recommend,
        seed=seed, progress=bar("replies"), **ways[decoding],
    )  # fmt: skip
    write_replies(replies_of(said, dialogues, system), out)
    show(f"{out}: {len(said.replies):,} replies of {system}")


@app.command()
def pair(
    first: Annotated[Path, typer.Argument(help="Replies of one system.")],
    second: Annotated[Path, typer.Argument(help="Replies of another to the same contexts.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the study (.jsonl).")],
    n: Annotated[int, typer.Option("--n", help="Contexts to draw; the paper has 100.")] = 100,
    seed: SeedOption = 0,
) -> None:
    """Draw the contexts that raters will see: one file for all of them.

    Example: pecrs rate pair pecrs.jsonl mese.jsonl --n 100 --out study.jsonl
    """
    from pecrs_lib.rating.replies import fingerprint, read_replies, write_replies
    from pecrs_lib.rating.replies import pair as draw

    if out.resolve() in (first.resolve(), second.resolve()):
        stop(f"--out would overwrite the replies in {out}")
    study = draw(read_replies(first), read_replies(second), n, seed)
    write_replies(study, out)
    show(f"{out}: study {fingerprint(study)}, {n} contexts")


@app.command()
def ask(
    study: Annotated[Path, typer.Argument(help="What `pecrs rate pair` wrote.")],
    rater: Annotated[str, typer.Option("--rater", help="Who answers; decides order and sides.")],
    out: Annotated[Path, typer.Option("--out", help="The rater's own file (.csv).")],
) -> None:
    """Ask one rater: which reply is more fluent, which more relevant?

    Keys, each with Enter: l left, r right, t tie, u undo the last answer, q quit. Every answer is
    saved at once; the same command goes on where it was left. Which system said what is not shown.

    Example: pecrs rate ask study.jsonl --rater ann --out ann.csv
    """
    from pecrs_lib.rating.judgements import CHOICES, CRITERIA, Sheet
    from pecrs_lib.rating.replies import read_replies

    sheet = Sheet(read_replies(study), rater, out)
    if sheet.dropped:
        say(f"{out}: the last line was half-written; its question is asked again")
    prompt = "l, r, t, u or q: " if sys.stdin.isatty() else ""  # a pipe needs none
    keys = {key: choice for choice in CHOICES for key in (choice, choice[0])}
    shown = 0
    while True:
        question = sheet.question
        if question is None:
            shown = 0
            show("\nall is answered; u takes the last answer back, q ends")
        else:
            if question.number != shown:
                show(_context(question))
            shown = question.number
            show(f"\n{question.criterion}: {CRITERIA[question.criterion]}")
        try:
            typed = input(prompt).strip().lower()
        except EOFError:
            typed = "q"
        if typed in ("q", "quit"):
            break
        if typed in ("u", "undo"):
            show("taken back" if sheet.undo() else "nothing to take back")
        elif typed in keys and question:
            sheet.answer(keys[typed])
        else:
            show("l is left, r right, t tie, u takes the last answer back, q quits")
    if question:
        say(f"stopped at {question.number} of {question.of}; the same command goes on")
    else:
        say(f"complete: {out}")


def _context(question: Question) -> str:
    """What was said, and both replies; line breaks in a text would look like another speaker."""
    lines = [f"\n{question.number} of {question.of}\n"]
    lines += [f"  {said.role}: {_flat(said.text)}" for said in question.history]
    lines += ["  (the conversation begins)"] * (not question.history)
    lines += ["", f"left:  {_flat(question.left)}", f"right: {_flat(question.right)}"]
    return "\n".join(lines)


def _flat(text: str) -> str:
    return " ".join(text.split()) or "(says nothing)"


app.command()(report)
