"""Variants of a run that the paper does not have: what each changes and what it is there to tell.

Comes after `config`, before `runs`, which carries them beside the paper's own. A variant is a name
and the settings that differ from the main run; "share" stands for a share of the training
dialogues.
"""

from __future__ import annotations

from typing import Any

# What the paper leaves open: would more negatives help, and is it worth encoding items anew? The
# catalogue read by the adapted LM costs about six steps of training on INSPIRED (preset cpu), so
# every tenth step makes a run about half as long again.
BEYOND: dict[str, dict[str, Any]] = {
    "whole catalogue as negatives": {"retrieval_negatives": None, "share_over_tasks": False},
    "items with adapters": {"refresh_items": 10},
}
# As many epochs as the main run has, so a tenth of the dialogues is a tenth of the steps. The draws
# of a seed are nested: each share holds the smaller ones.
LEARNING_CURVE: dict[str, dict[str, Any]] = {
    f"{percent} % of training": {"share": percent / 100} for percent in (5, 20, 50)
}
# What the official code does differently from the paper and training can do, too. Its catalogue
# pruned with test labels and its Dist per sentence are matters of measuring.
OFFICIAL: dict[str, dict[str, Any]] = {
    "dot product in training": {"dot_product": True},
    "pooling over padding": {"pool_padding": True},
    "loss weights of the code": {"alpha": 0.8, "beta": 1.0, "gamma": 0.15},
}
COMPAT: dict[str, Any] = {k: v for changes in OFFICIAL.values() for k, v in changes.items()}
AS_OFFICIAL = "as the official code"  # all of them at once
OFFICIAL[AS_OFFICIAL] = COMPAT
