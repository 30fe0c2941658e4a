"""The folder that ``pecrs train`` wrote: where its checkpoint and its catalogue are.

Stands before `trained`, which loads what is found here. It takes seconds to load a model, so a
wrong folder or catalogue is refused before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pecrs_lib.cli.terminal import stop
from pecrs_lib.data import Catalogue, DataError, bundled, read_catalogue

if TYPE_CHECKING:
    from pecrs_lib.config import Config

MODEL = "pecrs.json"  # marks a folder as a checkpoint
CATALOGUE = "catalogue.jsonl"  # what `pecrs train` wrote beside it
CACHE = "cache"  # of item features, beside it
ANEW = "or start anew here with --no-resume"


@dataclass(frozen=True)
class Found:
    """A checkpoint and the items it can recommend, from the file `items`."""

    folder: Path
    items: Path
    catalogue: Catalogue


def find(checkpoint: Path | None = None, items: Path | None = None) -> Found:
    """What to load, read as far as it is cheap.

    Args:
        checkpoint: the folder of a run, whose best epoch is taken, or of one checkpoint; by
            default the small model that comes with the package.
        items: the catalogue; by default `catalogue.jsonl` in the checkpoint or the run.

    Raises:
        DataError: no checkpoint there, none with a catalogue, or what `read_catalogue` raises.
    """
    if checkpoint is None:
        folder, own = bundled("checkpoints/minireel"), bundled("minireel") / "films.jsonl"
    else:
        folder = _checkpoint_in(checkpoint)
        own = folder / CATALOGUE if (folder / CATALOGUE).is_file() else folder.parent / CATALOGUE
    items = items or own
    if items == own and not own.is_file():
        raise DataError(
            f"no {CATALOGUE} in it or beside it; name one with --catalogue (for the checkpoint "
            "minireel that comes with the package: data/minireel/films.jsonl)",
            path=folder,
        )
    return Found(folder, items, read_catalogue(items))


def _checkpoint_in(folder: Path) -> Path:
    """`folder` itself, or the best epoch of the run that it is."""
    for place in (folder, folder / "best"):
        if (place / MODEL).is_file():
            return place
    if not folder.exists():
        problem = "no such folder; --checkpoint wants one of `pecrs train`"
    elif (folder / "last" / MODEL).is_file():
        problem = f"it has no finished epoch yet; train on, or take {folder / 'last'}"
    else:
        problem = (
            f"no PECRS checkpoint: neither it nor {folder / 'best'} has a {MODEL}; --checkpoint "
            "wants the --out of `pecrs train`"
        )
    raise DataError(problem, path=folder)


@contextmanager
def folder_of_run(out: Path) -> Iterator[None]:
    """The folder for what is made ready inside; a new one goes again if that is refused."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if new:
            with suppress(OSError):  # something is in it
                out.rmdir()
        raise


def refuse_another_run(out: Path, config: Config, items: Catalogue) -> None:
    """What can be told of a run that is to go on before anything is loaded."""
    from pecrs_lib.checkpoint import refuse_other_settings, saved_in

    last = saved_in(out / "last")
    if last is None:
        return
    with way_out():
        refuse_other_settings(last, config)
    if (out / CATALOGUE).exists() and read_catalogue(out / CATALOGUE) != items:
        stop(f"{out} was trained with other items than --catalogue has; {ANEW}")


@contextmanager
def way_out() -> Iterator[None]:
    """Whoever cannot go on hears how to start anew."""
    from pecrs_lib.checkpoint import CheckpointError

    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {ANEW}") from error
