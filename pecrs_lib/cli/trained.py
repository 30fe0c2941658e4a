"""A trained model made ready to use from the folder that ``pecrs train`` wrote.

Stands between `folders` and the commands that use a model: loads what was found there.
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
from pecrs_lib.cli.folders import CACHE, Found
from pecrs_lib.cli.terminal import bar, say
from pecrs_lib.data import Catalogue, DataError
from pecrs_lib.decoding import GREEDY, TOP_K
from pecrs_lib.memory import keep_freed_memory
from pecrs_lib.model import PECRS
from pecrs_lib.processes import ALONE, Processes


@dataclass(frozen=True)
class Ready:
    """A model, the items it can recommend, their vectors (N, D), and who shares the work."""

    folder: Path
    model: PECRS
    catalogue: Catalogue
    v: torch.Tensor
    processes: Processes = ALONE


def load_ready(
    found: Found,
    backbone: str | None = None,
    cache: Path | None = None,
    processes: Processes = ALONE,
) -> Ready:
    """Load a checkpoint and encode its catalogue, on a GPU if there is one.

    Args:
        backbone: where the language model is, if not where it was.
        cache: where item features are kept; by default `cache` of the run, if it has one.
        processes: they share the encoding of the catalogue, and what is then asked of the model.

    Raises:
        BackboneError, CheckpointError, DataError: it is damaged, or its language model is missing.
    """
    folder, items = found.folder, found.catalogue
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
    found: Found,
    *,
    backbone: str | None = None,
    cache: Path | None = None,
    greedy: bool = False,
    beams: int = 1,
    **settings: Any,
) -> Chat:
    """A conversation with a trained model.

    Args:
        greedy, beams: the decoding strategy; sampling as in the paper by default.
        settings: of `Chat`.
    """
    ready = load_ready(found, backbone, cache)
    decoding = (GREEDY if greedy else TOP_K) | ({"num_beams": beams} if beams > 1 else {})
    return Chat(ready.model, ready.catalogue, ready.v, **settings, **decoding)


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
