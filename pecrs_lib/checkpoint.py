"""What a training run leaves on disk, and how it goes on from there.

Beside `training`. A checkpoint is a folder that replaces its predecessor only once it is complete,
so a run that dies in the middle of writing loses nothing.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError

from pecrs_lib.config import Config
from pecrs_lib.context import Window
from pecrs_lib.data.storage import check_sums, on_disk, write_sums, write_whole
from pecrs_lib.model import PECRS
from pecrs_lib.sharding import like, load_whole_state

STATE = "training.pt"
NONFINITE = "nonfinite.json"  # the dialogues on which a run ended
FREE_TO_CHANGE = ("backbone", "patience")  # settings that may differ on resuming


class CheckpointError(RuntimeError):
    """A checkpoint cannot be resumed: it is damaged, or belongs to other data or settings."""


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint.

    `epoch` and `step` count what is done; `history` has a row per epoch.
    """

    epoch: int = 0
    step: int = 0
    best: float = -math.inf
    best_epoch: int = 0  # counted from 1; 0 before the first
    history: list[dict[str, float]] = field(default_factory=list)
    warm_start: list[float] = field(default_factory=list)  # losses of its epochs
    running: list[float] = field(default_factory=lambda: [0.0] * 4)  # sums of this epoch


def replace_folder(final: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, then put it in the place of `final`.

    Raises:
        CheckpointError: it could not be written, e.g. to a full disk; `final` is as it was.
    """
    new, old = (final.with_name(f"{final.name}{suffix}") for suffix in (".new", ".old"))
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        write(new)
        for file in filter(Path.is_file, new.rglob("*")):
            on_disk(file)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        if not isinstance(error, OSError | RuntimeError | SafetensorError):
            raise
        why = " ".join((getattr(error, "strerror", None) or str(error)).split())
        raise CheckpointError(
            f"{final} cannot be written ({why}); the one before is kept: free some space, then the "
            "same command goes on from there"
        ) from error
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        final.replace(old)
    new.replace(final)
    shutil.rmtree(old, ignore_errors=True)


def refuse_nonfinite(
    value: float,
    what: str,
    step: int,
    batches: Sequence[Sequence[Window]],
    names: Sequence[str],
    out: Path,
) -> None:
    """End a run whose loss or gradient is no number; the ids of its dialogues go to a file.

    Args:
        names: id of each training dialogue.

    Raises:
        FloatingPointError: `value` is NaN or infinite; names the file. Weights are as before.
    """
    if math.isfinite(value):
        return
    ids, path = sorted({names[w.dialogue] for batch in batches for w in batch}), out / NONFINITE
    record = {"what": what, "value": str(value), "step": step, "dialogues": ids}
    write_whole(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    raise FloatingPointError(
        f"the {what} became {value} at step {step} on the dialogues listed in {path} "
        f"({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''}); lower the learning rate"
    )


def write_record(out: Path, history: pd.DataFrame, config: Config, data: str) -> None:
    """``history.csv`` and ``run.json``, for people to read."""
    write_whole(out / "history.csv", history.to_csv(index=False))
    record = {"config": config.to_dict(), "data": data}
    write_whole(out / "run.json", json.dumps(record, indent=2) + "\n")


def save_checkpoint(
    final: Path,
    model: PECRS,
    optimizer: dict[str, Any],
    schedule: Any,
    progress: Progress,
    data: str,
) -> None:
    """Model, optimizer (its `whole_state`), schedule and position, as the folder `final`."""

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        state = {
            "optimizer": optimizer,
            "schedule": schedule.state_dict(),
            "progress": asdict(progress),
            "data": data,
        }
        torch.save(state, folder / STATE)
        write_sums(folder)

    replace_folder(final, write)


def saved_in(final: Path) -> Path | None:
    """Where the checkpoint `final` is, if there is one."""
    # between the two renames of `replace_folder` only the old one has a name
    return next((f for f in (final, final.with_name(f"{final.name}.old")) if f.exists()), None)


def refuse_other_settings(folder: Path, config: Config) -> None:
    """A run goes on with the settings it began with; reads no weights.

    Raises:
        CheckpointError: the checkpoint in `folder` has others than `config`.
    """
    try:
        record = json.loads((folder / "pecrs.json").read_text(encoding="utf-8"))
        saved = Config.from_dict(record["config"]).to_dict()  # a younger setting has its default
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(folder, error) from error
    changed = {
        name: f"{name} was {saved[name]}, is {value}"
        for name, value in config.to_dict().items()
        if name not in FREE_TO_CHANGE and saved[name] != value
    }
    if changed:
        why = ""
        if "epochs" in changed:
            why = "; a run cannot be made longer: its learning rate falls to zero at the last epoch"
        raise CheckpointError(
            f"{folder} was written with other settings ({', '.join(changed.values())}){why}; "
            "choose another folder to start anew"
        )


def _unusable(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{folder} cannot be resumed: {error}; remove the folder to start again")


def load_checkpoint(
    final: Path, model: PECRS, optimizer: Any, schedule: Any, data: str
) -> Progress | None:
    """Bring model, optimizer and schedule to where `save_checkpoint` left them.

    Args:
        data: fingerprint of the training data now.

    Returns:
        the position, or None when there is no checkpoint.

    Raises:
        CheckpointError: it is damaged, or was written with other data or settings.
    """
    folder = saved_in(final)
    if folder is None:
        return None
    try:
        check_sums(folder)  # of all its files, before any is read
        state = torch.load(folder / STATE, weights_only=True, map_location="cpu")
        saved = PECRS.from_pretrained(folder, backbone=model.config.backbone)
    except Exception as error:
        raise _unusable(folder, error) from error
    refuse_other_settings(folder, model.config)
    if state["data"] != data:
        raise CheckpointError(
            f"{folder} was written with other training data; choose another folder to start anew"
        )
    trained = dict(saved.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(like(trained[name], parameter))
        for name, buffer in model.head_buffers().items():
            buffer.copy_(saved.head_buffers()[name])
    load_whole_state(optimizer, state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return Progress(**state["progress"])
