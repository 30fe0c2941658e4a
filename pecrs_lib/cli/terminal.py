"""What every command says and how: results to stdout, the rest to stderr, errors in one line.

At the bottom of the command line; knows nothing of models or data, and imports neither, so that
``pecrs --help`` answers at once. Exit status 2 means that the user can do something about it (an
option, a file, a setting, a checkpoint), 130 that the run was interrupted, 1 that the program is
at fault.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

# Raised by the library with a message for people; named, because importing them imports torch.
WHAT_TO_DO = {
    errno.ENOSPC: "; free some space or choose another folder",
    errno.EROFS: "; choose another folder",
    errno.EACCES: "; check its permissions or choose another folder",
}
EXPECTED = (
    "DataError",
    "DownloadError",
    "BackboneError",
    "CheckpointError",
    "ProcessLostError",
    "FloatingPointError",
    "OutOfMemoryError",
)
DEBUG = "--debug"


def first() -> bool:
    """Whether this is the process that speaks, if a launcher started several."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Progress and remarks, to stderr."""
    if first():
        typer.echo(text, err=True)


def show(text: str = "") -> None:
    """Results for people, to stdout."""
    if first():
        typer.echo(text)


def show_piece(text: str) -> None:
    """A part of a line of results, at once."""
    typer.echo(text, nl=False)


def show_json(document: Any) -> None:
    """Results for programs: one JSON document on stdout; NaN and infinity become null."""
    show(json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def bar(description: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A progress bar around an iterable, where somebody looks at stderr."""

    def wrap(steps: Iterable[Any]) -> Iterable[Any]:
        from tqdm.auto import tqdm

        return tqdm(steps, desc=description, leave=False, disable=not watched())

    return wrap


def watched() -> bool:
    return first() and sys.stderr.isatty()


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Cells as aligned text; the columns whose numbers are in `right` are flush right."""
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(w) if k in right else cell.ljust(w)
            for k, (cell, w) in enumerate(zip(row, width, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def advice(error: Exception) -> str | None:
    """The error in one line, or None when it is none that a user should have to understand."""
    if hasattr(error, "format_message"):  # of the command line itself: a wrong option or value
        context = getattr(error, "ctx", None)
        line = " ".join(str(error.format_message()).split())
        return f"{line} (see: {context.command_path} --help)" if context else line
    if type(error).__name__ == "DownloadError":
        first, *reasons = str(error).splitlines()  # what, why, and then a page of help
        return " ".join([first, *(reason.strip() for reason in reasons[:1])])
    if isinstance(error, OSError) and error.strerror:
        line = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return line + WHAT_TO_DO.get(error.errno or 0, "") * ("another folder" not in line)
    known = isinstance(error, ValueError | OSError) or type(error).__name__ in EXPECTED
    return " ".join(str(error).split()) if known and str(error).strip() else None


def stop(line: str, status: int = 2) -> NoReturn:
    """End the command with one line on stderr."""
    complain(line)
    raise typer.Exit(status)


def complain(line: str) -> None:
    """Why the command ends, to stderr; from any process, since the reason may be its alone."""
    typer.echo(f"pecrs: {line}", err=True)


class Commands(TyperGroup):
    """The group of all commands: it turns what they raise into a line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            stop("interrupted", status=130)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        if "RANK" in os.environ:  # torch's remarks on every backward pass of several processes
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        given = list(sys.argv[1:] if args is None else args)
        debug = DEBUG in given
        given = [argument for argument in given if argument != DEBUG]  # it may stand anywhere
        try:
            status = super().main(given, *rest, **(extra | {"standalone_mode": False}))
        except Exception as error:
            if debug:
                traceback.print_exc()
            line = advice(error)
            complain(line or _fault(error))
            status = 2 if line else 1
        sys.exit(status if isinstance(status, int) else 0)


def _fault(error: Exception) -> str:
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"unexpected {what} (a fault of this program; `pecrs {DEBUG} …` shows where)"
