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
    from pecrs_lib.cli.trained import Ready
    from pecrs_lib.data import Dialogue, Utterance
    from pecrs_lib.generation import Reply

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
    from pecrs_lib.cli.trained import load_ready

    ready = load_ready(checkpoint, catalogue, backbone, cache)
    talk = Talk(ready, top=top, seed=seed, greedy=greedy, always_recommend=always_recommend)
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
            show(talk.answer(line))


def _command(talk: Talk, line: str) -> None:
    name, _, argument = line.partition(" ")
    if name == "/help":
        show(HELP)
    elif name == "/undo":
        show("taken back" if talk.undo() else "nothing to take back")
    elif name == "/restart":
        talk.utterances.clear()
        show("forgotten")
    elif name == "/save":
        _save(talk, argument.strip())
    else:
        show(f"no command {name}; /help lists them")


def _save(talk: Talk, file: str) -> None:
    """Complaints do not end the conversation."""
    from pecrs_lib.data import write_jsonl

    if not file or not talk.utterances:
        show("/save wants a file name" if not file else "nothing to save")
        return
    try:
        write_jsonl([talk.dialogue], Path(file).expanduser())
        show(f"saved in {file}")
    except (OSError, ValueError) as error:
        show(f"not saved: {error}")


class Talk:
    """A conversation with a model.

    Attributes:
        utterances: what was said, the seeker first.
    """

    def __init__(
        self, ready: Ready, *, top: int, seed: int, greedy: bool, always_recommend: bool
    ) -> None:
        self.ready = ready
        self.top = top
        self.seed = seed
        self.greedy = greedy
        self.always_recommend = always_recommend
        self.utterances: list[Utterance] = []

    @property
    def dialogue(self) -> Dialogue:
        from pecrs_lib.data import Dialogue

        return Dialogue("chat", tuple(self.utterances))

    def undo(self) -> bool:
        """Take back the last exchange; False if there is none."""
        done = bool(self.utterances)
        del self.utterances[-2:]
        return done

    def answer(self, line: str) -> str:
        """The reply, the items that rank first, and what was recognised in `line`."""
        from pecrs_lib.cli.recommend import recommendation_table
        from pecrs_lib.cli.transcript import say_as
        from pecrs_lib.data import Dialogue
        from pecrs_lib.decoding import GREEDY, TOP_K
        from pecrs_lib.generation import respond

        ready = self.ready
        heard = say_as("seeker", line, ready.catalogue)
        history = Dialogue("chat", (*self.utterances, heard))
        [reply] = respond(
            ready.model, [history], ready.catalogue, ready.v, top=self.top,
            always_recommend=self.always_recommend, seed=self.seed + len(history),
            **(GREEDY if self.greedy else TOP_K),
        )  # fmt: skip
        self.utterances += [heard, _utterance(reply)]
        named = "; ".join(ready.catalogue[ready.catalogue.row[item]].name for item in heard.items)
        lines = [f"PECRS: {reply.text}", *_indented(recommendation_table(reply.ranked))]
        return "\n".join([f"  (recognised: {named})", *lines] if named else lines)


def _utterance(reply: Reply) -> Utterance:
    """What was said, with the recommended item where its name stands in the text."""
    from pecrs_lib.data import Mention, Utterance

    if reply.recommended is None:
        return Utterance("recommender", reply.text)
    movie = reply.recommended.movie
    mentions, end = [], 0
    while (start := reply.text.find(movie.name, end)) >= 0:
        end = start + len(movie.name)
        mentions.append(Mention(movie.id, start, end))
    return Utterance("recommender", reply.text, tuple(mentions) or (Mention(movie.id),))


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]
