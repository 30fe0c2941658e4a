"""``pecrs chat``: be the seeker, in the terminal."""

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
    SeedOption,
    TopOption,
)
from pecrs_lib.cli.terminal import say, show

if TYPE_CHECKING:  # imported when the command runs: these need torch
    from pecrs_lib.chat import Answer, Chat

HELP = """/undo         take back your last line and its answer
/restart      forget everything
/save FILE    write the conversation in this package's format (.jsonl)
/quit         leave (so does Ctrl-D)"""


def chat(
    checkpoint: CheckpointOption,
    top: TopOption = 5,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="The likeliest words instead of sampled ones.")
    ] = False,
    always_recommend: Annotated[
        bool, typer.Option("--always-recommend", help="Prompt every reply with an item.")
    ] = False,
    seed: SeedOption = 0,
    catalogue: CatalogueOption = None,
    backbone: BackboneOption = None,
    cache: CacheOption = None,
) -> None:
    """Talk to a trained model in the terminal.

    It answers and shows what it would recommend, with scores. Lines come from the keyboard or a
    pipe; /help lists the commands. Films are recognised by
    year, quotation marks or capitals: Up (2009), "Up", Home Alone.

    Example: pecrs chat --checkpoint run
    """
    from pecrs_lib.chat import Chat
    from pecrs_lib.cli.trained import load_ready
    from pecrs_lib.decoding import GREEDY, TOP_K

    ready = load_ready(checkpoint, catalogue, backbone, cache)
    talk = Chat(
        ready.model, ready.catalogue, ready.v, top=top, seed=seed,
        always_recommend=always_recommend, **(GREEDY if greedy else TOP_K),
    )  # fmt: skip
    typed = sys.stdin.isatty()
    if typed:
        say("/help lists the commands")
    while True:
        try:
            line = input("you: " if typed else "").strip()
        except EOFError:
            return
        if line == "/quit":
            return
        if line.startswith("/"):
            _command(talk, line)
        elif line:
            show(_told(talk.say(line)))


def _command(talk: Chat, line: str) -> None:
    name, _, argument = line.partition(" ")
    if name == "/help":
        show(HELP)
    elif name == "/undo":
        show("taken back" if talk.undo() else "nothing to take back")
    elif name == "/restart":
        talk.restart()
        show("forgotten")
    elif name == "/save":
        _save(talk, argument.strip())
    else:
        show(f"no command {name}; /help lists them")


def _save(talk: Chat, file: str) -> None:
    """Complaints do not end the conversation."""
    if not file:
        show("/save wants a file name")
        return
    try:
        talk.save(Path(file).expanduser())
        show(f"saved in {file}")
    except (OSError, ValueError) as error:
        show(f"not saved: {error}")


def _told(answer: Answer) -> str:
    """The reply, the items that rank first, and what was recognised in the line."""
    from pecrs_lib.cli.recommend import recommendation_table

    lines = []
    if answer.recognised:
        lines.append(f"  (recognised: {'; '.join(movie.name for movie in answer.recognised)})")
    for words, near in answer.unknown.items():
        meant = (
            f"did you mean {' or '.join(m.name for m in near)}?" if near else "not a film I know"
        )
        lines.append(f"  ({words}: {meant})")
    table = recommendation_table(answer.reply.ranked).splitlines()
    return "\n".join([*lines, f"PECRS: {answer.reply.text}", *(f"  {row}" for row in table)])
