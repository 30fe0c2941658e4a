"""A trained model made ready to use from the folder that ``pecrs train`` wrote.

Stands between `model` and the commands that use one: finds the checkpoint and its catalogue,
loads both, and encodes the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pecrs_lib.assessment import item_vectors
from pecrs_lib.backbone import BackboneError
from pecrs_lib.chat import Chat
from pecrs_lib.checkpoint import CheckpointError
from pecrs_lib.cli.terminal import bar, say
from pecrs_lib.data import Catalogue, DataError, bundled, read_catalogue
from pecrs_lib.decoding import GREEDY, TOP_K
from pecrs_lib.memory import keep_freed_memory
from pecrs_lib.model import PECRS
from pecrs_lib.processes import ALONE, Processes

MODEL = "pecrs.json"  # marks a folder as a checkpoint
CATALOGUE = "catalogue.jsonl"  # what `pecrs train` wrote beside it
CACHE = "cache"  # of item features, beside it


@dataclass(frozen=True)
class Ready:
    """A model, the items it can recommend, their vectors (N, D), and who shares the work."""

    folder: Path
    model: PECRS
    catalogue: Catalogue
    v: torch.Tensor
    processes: Processes = ALONE


def load_ready(
    checkpoint: Path | None = None,
    catalogue: Path | None = None,
    backbone: str | None = None,
    cache: Path | None = None,
    processes: Processes = ALONE,
) -> Ready:
    """Load a checkpoint with its catalogue, on a GPU if there is one.

    Args:
        checkpoint: the folder of a run, whose best epoch is taken, or of one checkpoint; by
            default the small model that comes with the package.
        catalogue: a file; by default `catalogue.jsonl` in the checkpoint or the run.
        backbone: where the language model is, if not where it was.
        cache: where item features are kept; by default `cache` of the run, if it has one.
        processes: they share the encoding of the catalogue, and what is then asked of the model.

    Raises:
        CheckpointError: no checkpoint there, a damaged one, or none with a catalogue.
    """
    folder, films = chosen(checkpoint, catalogue)
    items = read_catalogue(films)
    quieten()
    say(f"loading {folder}")
    model = load_model(folder, backbone)
    if torch.cuda.is_available():
        model.to("cuda")
    else:
        keep_freed_memory()
    kept = folder.parent / CACHE
    v = item_vectors(
        model, items, cache_dir=cache or (kept if kept.is_dir() else None), progress=bar("items"),
        processes=processes,
    )  # fmt: skip
    return Ready(folder, model.eval(), items, v, processes)


def load_chat(
    *,
    checkpoint: Path | None = None,
    catalogue: Path | None = None,
    backbone: str | None = None,
    cache: Path | None = None,
    greedy: bool = False,
    beams: int = 1,
    **settings: Any,
) -> Chat:
    """A conversation with a trained model, or with the one that comes with the package.

    Args:
        greedy, beams: the decoding strategy; sampling as in the paper by default.
        settings: of `Chat`.
    """
    ready = load_ready(checkpoint, catalogue, backbone, cache)
    decoding = (GREEDY if greedy else TOP_K) | ({"num_beams": beams} if beams > 1 else {})
    return Chat(ready.model, ready.catalogue, ready.v, **settings, **decoding)


def chosen(checkpoint: Path | None, catalogue: Path | None) -> tuple[Path, Path]:
    """The checkpoint and the catalogue to load, defaults filled in; raises as `load_ready`."""
    if checkpoint is None:
        return bundled("checkpoints/minireel"), catalogue or bundled("minireel") / "films.jsonl"
    folder = find_checkpoint(checkpoint)
    return folder, catalogue or find_catalogue(folder)


def find_checkpoint(folder: Path) -> Path:
    """`folder` itself, or the best epoch of the run that it is."""
    for place in (folder, folder / "best"):
        if (place / MODEL).is_file():
            return place
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such folder; --checkpoint wants one of `pecrs train`")
    if (folder / "last" / MODEL).is_file():
        raise CheckpointError(
            f"{folder} has no finished epoch yet; train on, or take {folder / 'last'}"
        )
    raise CheckpointError(
        f"{folder} is no PECRS checkpoint: neither it nor {folder / 'best'} has a {MODEL}; "
        "--checkpoint wants the --out of `pecrs train`"
    )


def find_catalogue(folder: Path) -> Path:
    for place in (folder / CATALOGUE, folder.parent / CATALOGUE):
        if place.is_file():
            return place
    raise CheckpointError(
        f"no {CATALOGUE} in {folder} or beside it; name one with --catalogue (for the checkpoint "
        "minireel that comes with the package: data/minireel/films.jsonl)"
    )


def load_model(folder: Path, backbone: str | None) -> PECRS:
    try:
        return PECRS.from_pretrained(folder, backbone=backbone)
    except BackboneError as error:
        raise BackboneError(f"{error}; if it has moved: --backbone") from error
    except (DataError, FileNotFoundError):
        raise
    except Exception as error:
        raise CheckpointError(f"{folder} cannot be loaded: {error}") from error


def quieten() -> None:
    """Keep the bars and remarks of `transformers` off stderr; errors still raise."""
    import huggingface_hub
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    huggingface_hub.logging.set_verbosity_error()  # its bars stay: a download takes minutes
