"""The statistics that the heads standardise by, taken once before training.

Comes after `model` and `batches`, before `training`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pecrs_lib.batches import make_batch
from pecrs_lib.context import Window
from pecrs_lib.items import ItemFeatures
from pecrs_lib.model import PECRS


@torch.no_grad()
def calibrate(
    model: PECRS, windows: Sequence[Window], features: ItemFeatures, sample: int = 64
) -> None:
    """Set the mean and spread of pooled item texts, of queries d and of read candidates q.

    Args:
        windows: of the training dialogues; the first `sample` that recommend something are read.
        features: of the whole catalogue.
    """
    was_training = model.training
    model.eval()  # adapter dropout would enter the statistics
    model.items.fit(features)
    v = model.encode_catalogue(features)
    rows = torch.arange(len(v), device=v.device)
    config = model.config.with_(negatives=min(8, len(features)))
    generator = torch.Generator().manual_seed(config.seed)
    d, q = [], []
    queries = model.queries
    if queries.words is not None:
        words = torch.arange(model.backbone.tokenizer.item, device=v.device)
        queries.words.fit(model.backbone.embed(words).float())
    for window in [w for w in windows if any(turn.items for turn in w.turns)][:sample]:
        batch = make_batch([window], len(features), config, generator).to(v.device)
        _, hidden = model.read(batch, v, rows)
        d.append(hidden[batch.query_row, batch.query_column])
        q.append(hidden[batch.query_row[:, None], batch.candidate_column].flatten(0, 1))
    queries.standardise.fit(torch.cat(d).float())
    model.standardise_q.fit(torch.cat(q).float())
    model.train(was_training)
