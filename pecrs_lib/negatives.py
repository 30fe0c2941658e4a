"""Which items a turn's recommended one has to beat (section 3.6 of the paper).

Comes before the losses. Draws are without replacement over the whole catalogue; a draw that hits a
point's own item does not count for that point (`own_item`).

DEVIATION: the paper draws among the items that no turn of the batch recommends. Popular items are
then hardly ever negatives, the more so the larger the batch, and the model rates them too high.
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw_negatives(
    n_items: int,
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
        group: (P,) equal for points of the same turn; those always share their negatives.
        m: negatives per turn; None takes the whole catalogue.
        share_over_batch: one draw for all turns (the paper's default), or a draw for each.
        weight: (N,) sampling weights, e.g. popularity; uniform when None.

    Raises:
        ValueError: fewer than m items can be drawn.
    """
    odds = torch.ones(n_items) if weight is None else weight.float()
    available = int((odds > 0).sum())
    if m is None:
        return odds.nonzero().T.expand(len(group), -1)
    if m > available:
        raise ValueError(
            f"{m} negatives asked for, but only {available} of {n_items} items can be drawn; "
            "lower the number or take the whole catalogue (None)"
        )
    if share_over_batch:
        return torch.multinomial(odds, m, generator=generator).expand(len(group), -1)
    turns, turn = torch.unique(group, return_inverse=True)
    if not len(turns):
        return torch.empty(0, m, dtype=torch.int64)
    drawn = torch.multinomial(odds.expand(len(turns), -1), m, generator=generator)
    return drawn[turn]


def own_item(candidate: Tensor) -> Tensor:
    """(P, 1 + M) rows, the recommended one in column 0 -> where a draw hit it again."""
    hit = candidate == candidate[:, :1]
    hit[:, 0] = False
    return hit
