"""Which items a turn's recommended one has to beat (section 3.6 of the paper).

Comes before the losses. Draws are without replacement and never hit an item that any turn of the
batch recommends, so no negative is somebody's positive.
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw_negatives(
    n_items: int,
    positive: Tensor,
    group: Tensor,
    m: int | None,
    *,
    generator: torch.Generator,
    share_over_batch: bool = True,
    weight: Tensor | None = None,
) -> Tensor:
    """(P, M) catalogue rows, for one task.

    Args:
        n_items: N, size of the catalogue.
        positive: (P,) recommended rows of the batch.
        group: (P,) equal for points of the same turn; those always share their negatives.
        m: negatives per turn; None takes the whole rest of the catalogue.
        share_over_batch: one draw for all turns (the paper's default), or a draw for each.
        weight: (N,) sampling weights, e.g. popularity; uniform when None.

    Raises:
        ValueError: fewer than m items are left once the batch's positives are set aside.
    """
    odds = torch.ones(n_items) if weight is None else weight.clone().float()
    odds[positive] = 0
    available = int((odds > 0).sum())
    if m is None:
        return odds.nonzero().T.expand(len(positive), -1)
    if m > available:
        raise ValueError(
            f"{m} negatives asked for, but only {available} of {n_items} items can be drawn "
            "besides the batch's own; lower the number or take the whole catalogue (None)"
        )
    if share_over_batch:
        return torch.multinomial(odds, m, generator=generator).expand(len(positive), -1)
    turns, turn = torch.unique(group, return_inverse=True)
    drawn = torch.multinomial(odds.expand(len(turns), -1), m, generator=generator)
    return drawn[turn]
