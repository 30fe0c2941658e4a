"""From options of ``pecrs train`` to a `Config`: a preset, the named options, then ``--set``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from pecrs_lib.config import PRESETS, Config

ALL = "all"  # on the command line: the whole catalogue


def make_config(preset: str, options: dict[str, Any], assignments: Sequence[str]) -> Config:
    """The preset with some fields changed.

    Args:
        options: fields and values.
        assignments: ``field=value``; they have the last word.

    Raises:
        ValueError: an unknown field, a value of the wrong type, or one that `Config` refuses.
    """
    changes, assigned = dict(options), set()
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set wants field=value, got {assignment!r}")
        changes[name.strip()] = _parsed(name.strip(), value.strip())
        assigned.add(name.strip())
    config = PRESETS[preset].with_(**changes)
    own = config.retrieval_negatives != config.negatives
    if own and config.share_over_tasks and "retrieval_negatives" in assigned:
        raise ValueError(
            "retrieval_negatives needs --set share_over_tasks=False: one draw of "
            f"{config.negatives or ALL} negatives serves both tasks"
        )
    folder = Path(config.backbone)
    # a folder is remembered by its full path: the checkpoint may be used from elsewhere
    return config.with_(backbone=str(folder.resolve())) if folder.is_dir() else config


def parse_negatives(text: str) -> dict[str, int | None]:
    """``--negatives``: a number or ``all``, for both tasks."""
    if text != ALL and not text.isdecimal():
        raise ValueError(f"--negatives wants a number or {ALL!r}, got {text!r}")
    number = None if text == ALL else int(text)
    return {"negatives": number, "retrieval_negatives": number}


def refuse_negatives(config: Config, items: int) -> None:
    """Raises ValueError where more negatives are asked for than a catalogue has."""
    for name in ("negatives", "retrieval_negatives")[: 1 if config.share_over_tasks else 2]:
        wanted = getattr(config, name) or 0
        if wanted >= items:
            raise ValueError(
                f"{name}={wanted}, but the catalogue has only {items} items; lower it, by "
                f"--negatives or --set {name}=…, or say {ALL!r}"
            )


def _parsed(name: str, text: str) -> Any:
    types = get_type_hints(Config)
    if name not in types:
        close = get_close_matches(name, types, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(types)}"
        raise ValueError(f"--set: unknown field {name!r}; {hint}")
    kinds = get_args(types[name]) or (types[name],)
    words = ("none", ALL) if name.endswith("negatives") else ("none",)
    if NoneType in kinds and text.lower() in words:
        return None
    kind = kinds[0]
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError) as error:
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        wanted += " or none" if NoneType in kinds else ""
        raise ValueError(f"--set: {name} must be {wanted}, got {text!r}") from error


def describe_fields() -> str:
    """Names and defaults of every field, and what `tiny` has instead, for the help text."""
    paper = {field.name: field.default for field in fields(Config)}
    tiny = {k: v for k, v in PRESETS["tiny"].to_dict().items() if v != paper[k]}
    named = (", ".join(f"{k}={v}" for k, v in preset.items()) for preset in (paper, tiny))
    return "; tiny differs in: ".join(named)
