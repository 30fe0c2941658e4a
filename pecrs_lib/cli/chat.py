"""``pecrs chat``: be the seeker, in the terminal or in a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pecrs_lib.cli.options import (
    NAMING,
    BackboneOption,
    CacheOption,
    CatalogueOption,
    OwnCheckpointOption,
    RepeatsOption,
    SeedOption,
    TopOption,
)
from pecrs_lib.cli.page import serve
from pecrs_lib.cli.terminal import columns, say, show, show_piece

if TYPE_CHECKING:  # imported when the command runs: these need torch
    from pecrs_lib.chat import Chat, Reaction
    from pecrs_lib.data import Movie

HELP = """/liked N      you liked film N of the last list; also /seen N and /not N (not for me)
/film N       what film N is about
/why N        which words and films said so far speak for film N
/before       the list before re-ranking
/undo         take back your last line and its answer
/restart      forget everything
/save FILE    write the conversation in this package's format (.jsonl)
/quit         leave (so does Ctrl-D)"""
SHORTHAND: dict[str, Reaction] = {"/liked": "liked", "/seen": "seen", "/not": "not for me"}


def chat(
    checkpoint: OwnCheckpointOption = None,
    top: TopOption = 10,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="The likeliest words instead of sampled ones.")
    ] = False,
    beams: Annotated[
        int,
        typer.Option(
            "--beams",
            min=1,
            help="Width of a beam search. A reply of beams comes whole: which of them wins is "
            "known only at its end, so it cannot be shown word by word.",
        ),
    ] = 1,
    always_recommend: Annotated[
        bool, typer.Option("--always-recommend", help="Prompt every reply with an item.")
    ] = False,
    repeats: RepeatsOption = False,
    seed: SeedOption = 0,
    catalogue: CatalogueOption = None,
    backbone: BackboneOption = None,
    cache: CacheOption = None,
    page: Annotated[
        bool,
        typer.Option("--page", help="Talk in a web page instead (needs: pip install voila)."),
    ] = False,
    port: Annotated[int, typer.Option("--port", help="Of the page, on this machine.")] = 8866,
) -> None:
    """Talk to a trained model, in the terminal or in a page.

    It answers, word by word, and lists what it would recommend, with scores and with the places
    before re-ranking. Lines come from the keyboard or a pipe; /help lists the commands. Films are
    recognised by year, quotation marks or capitals: Up (2009), "Up", Home Alone.

    Example: pecrs chat --checkpoint run
    """
    from pecrs_lib.cli.folders import find

    found = find(checkpoint, catalogue)
    asked: dict[str, Any] = {
        "backbone": backbone, "cache": cache, "top": top, "seed": seed, "greedy": greedy,
        "beams": beams, "always_recommend": always_recommend, "exclude_mentioned": not repeats,
    }  # fmt: skip
    if page:
        serve(found, asked, port)
        return
    from pecrs_lib.cli.trained import load_chat

    talk = load_chat(found, **asked)
    talk.on_text = show_piece
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
        try:
            if line.startswith("/"):
                _command(talk, line)
            elif line:
                show_piece("PECRS: ")
                talk.say(line)
                show(_told(talk))
        except KeyboardInterrupt:  # ends the reply, not the conversation
            show("\n(stopped: as if that line had not been said)")


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
    elif name == "/before":
        show(_before(talk))
    elif name in ("/film", "/why", *SHORTHAND):
        _about_film(talk, name, argument.strip())
    else:
        show(f"no command {name}; /help lists them")


def _about_film(talk: Chat, name: str, place: str) -> None:
    """A command that wants the place of a film in the last list."""
    ranked = talk.answers[-1].reply.ranked if talk.answers else []
    if not (place.isdecimal() and 1 <= int(place) <= len(ranked)):
        places = f"from 1 to {len(ranked)}" if ranked else "but nothing is listed yet"
        show(f"{name} wants the place of a film in the last list, {places}")
        return
    movie = ranked[int(place) - 1].movie
    if name == "/film":
        show(_card(movie))
    elif name == "/why":
        show(_why(talk, movie))
    else:
        show_piece("PECRS: ")
        talk.react(movie, SHORTHAND[name])
        show(_told(talk))


def _why(talk: Chat, movie: Movie) -> str:
    """The parts of what was said, from 0 to 100, as numbers and bars."""
    if talk.model.queries.words is None:
        return "  this model cannot tell: it was trained without query_pooling"
    (near,) = talk.why([movie])
    if not near:
        return f"  nothing said speaks for {movie.name}"
    rows = [[thing, f"{part:.0f}", "#" * max(1, round(part / 4))] for thing, part in near]
    lines = [f"what was said that speaks for {movie.name}:", *columns(rows, right=[1]).splitlines()]
    note = "100 would be the word the model heeds most, pointing exactly to this film; 0 is nothing"
    return "\n".join(f"  {line}" for line in [*lines, f"({note})"])


def _card(movie: Movie) -> str:
    rows = [
        ["title", movie.name], ["directed by", ", ".join(movie.directors)],
        ["with", ", ".join(movie.actors)], ["genres", ", ".join(movie.genres)],
        ["plot", movie.plot],
    ]  # fmt: skip
    return "\n".join(f"  {line}" for line in columns([r for r in rows if r[1]]).splitlines())


def _before(talk: Chat) -> str:
    if not talk.answers:
        return "nothing is listed yet"
    rows = [
        [str(r.retrieved), r.movie.name, f"{r.distance:.3f}"] for r in talk.answers[-1].retrieved
    ]
    table = columns([["", "title", "distance"], *rows], right=[0, 2])
    return "\n".join(f"  {line}" for line in table.splitlines())


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


def _told(talk: Chat) -> str:
    """What stands behind a reply: what was recognised in the line, the items that rank first."""
    from pecrs_lib.cli.recommend import SCORES, recommendation_table

    answer, lines = talk.answers[-1], [""]
    if answer.cut:
        lines.append("  (that was long: only the beginning was read)")
    if answer.recognised:
        lines.append(f"  (recognised: {'; '.join(movie.name for movie in answer.recognised)})")
    elif len(talk.answers) == 1:
        lines.append(f"  (no film recognised; {NAMING})")
    for words, near in answer.unknown.items():
        meant = (
            f"did you mean {' or '.join(m.name for m in near)}?" if near else "not a film I know"
        )
        lines.append(f"  ({words}: {meant})")
    table = recommendation_table(answer.reply.ranked).splitlines()
    note = [f"({SCORES})"] if len(talk.answers) == 1 else []
    return "\n".join([*lines, *(f"  {row}" for row in [*table, *note])])
