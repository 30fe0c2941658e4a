"""The heads of retrieval, trained on a frozen LM before the single stage.

Comes after `calibration`, before `training`, which asks for it when `warm_start` is set.

DEVIATION: the paper trains everything in one stage from the start. There each step of retrieval
costs a pass of the whole LM. With the LM frozen and read once, a step costs a hundredth: pooling,
f and h_item learn in a minute what the single stage needs an hour for, and it goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pecrs_lib.batches import epoch_batches
from pecrs_lib.context import Window
from pecrs_lib.items import ItemFeatures
from pecrs_lib.losses import pairwise_angular_distance, retrieval_loss
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.protocol import batches_by_length


@torch.no_grad()
def outputs_at_rec(model: PECRS, windows: Sequence[Window], v: Tensor) -> dict[int, Tensor]:
    """The LM's outputs at the ``[REC]`` of every point of a window, (p, D), by ``id(window)``."""
    rows = torch.arange(len(v), device=v.device)
    found: dict[int, Tensor] = {}
    for part in batches_by_length(windows):
        batch = pack(part).to(v.device)
        hidden = model.read(batch, v, rows)[1]
        d = hidden[batch.query_row, batch.query_column]
        for k, window in enumerate(part):
            found[id(window)] = d[batch.query_row == k]
    return found


def retrieval_of(
    model: PECRS, windows: Sequence[Window], at_rec: dict[int, Tensor], pooled: Tensor
) -> tuple[Tensor, Tensor]:
    """Distances (P, N) of the points of some windows to every item, and their targets (P,).

    Args:
        at_rec: from `outputs_at_rec`.
        pooled: (N, D) what h_item reads: pooled item texts, standardised.
    """
    device = pooled.device
    width = max(len(w.token) for w in windows)
    token = torch.zeros(len(windows), width, dtype=torch.int64)
    item = torch.full((len(windows), width), -1)
    for k, w in enumerate(windows):
        token[k, : len(w.token)] = torch.from_numpy(w.token)
        item[k, : len(w.item)] = torch.from_numpy(w.item)
    points = [(k, t.start, i) for k, w in enumerate(windows) for t in w.turns for i in t.items]
    row, column, target = torch.tensor(points, device=device).T
    item = item.to(device)
    slot = item >= 0
    v = model.items.scale * model.items.h_item(pooled)
    x = model.backbone.embed(token.to(device)).float()
    x = x.masked_scatter(slot[..., None], v[item[slot]])
    d = torch.cat([at_rec[id(w)] for w in windows])
    query = model.f(model.queries(d, x, slot, row, column))
    return pairwise_angular_distance(query, v), target


def warm_start(
    model: PECRS,
    windows: Sequence[Window],
    features: ItemFeatures,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    progress: Callable[[range], Sequence[int]] = lambda epochs: epochs,
) -> list[float]:
    """Train `model.queries`, f and h_item with the retrieval loss over the whole catalogue.

    Args:
        windows: of the training dialogues.
        batch_size: windows a step.
        progress: wraps the epochs, e.g. `tqdm`.

    Returns:
        the mean loss of each epoch, in nats per point.
    """
    model.eval()
    windows = [w for w in windows if any(t.items for t in w.turns)]
    pooled = model.items.standardise(model.items.pooled(features))
    at_rec = outputs_at_rec(model, windows, model.encode_catalogue(features))
    parts = (model.queries, model.f, model.items.h_item)
    weights = [p for part in parts for p in part.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=model.config.weight_decay)
    steps = epochs * -(-len(windows) // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 20) * (1 - step / steps)
    )
    history = []
    for epoch in progress(range(epochs)):
        losses = []
        for part in epoch_batches(windows, batch_size, model.config.seed, epoch):
            distance, target = retrieval_of(model, part, at_rec, pooled)
            own = distance.gather(1, target[:, None])
            others = distance.scatter(1, target[:, None], torch.inf)
            loss = retrieval_loss(
                torch.cat([own, others], 1), model.config.temperature, len(target)
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, model.config.clip)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        history.append(sum(losses) / len(losses))
    return history
