"""ILM meets PECRS: item vectors of texts and, beside them, of interactions.

Neither paper has this. PECRS knows an item by its text alone (Eq 1); here its item head reads the
outputs of an item encoder, K tokens aligned with texts in stage 1, as well. Trained by the warm
start, which needs no pass of the language model, so that many seeds can be afforded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pecrs_lib.context import Window
from pecrs_lib.heads import Head, Standardise
from pecrs_lib.items import ItemEncoder, ItemFeatures
from pecrs_lib.model import PECRS
from pecrs_lib.warmstart import named_in, retrieval_of


class TokenHead(nn.Module):
    """h_item over text and tokens: (N, D + F) -> (N, D); starts as the head of texts alone.

    While gradients are taken, a share `hidden` of the items shows no tokens but the mean of all.
    """

    def __init__(self, dim: int, more: int, hidden: float) -> None:
        super().__init__()
        self.head = Head(dim)
        self.tokens = nn.Linear(more, dim, bias=False)
        nn.init.zeros_(self.tokens.weight)
        self.hidden, self.generator = hidden, torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        text, more = x.tensor_split((self.tokens.out_features,), -1)
        if self.hidden and torch.is_grad_enabled():
            shown = torch.rand(len(x), 1, generator=self.generator) >= self.hidden
            more = more * shown.to(x.device)  # standardised: 0 is the mean
        return self.head(text + self.tokens(more))


class ItemsWithTokens(ItemEncoder):
    """v_j = h_item([wᵀ·C_j ; z_j]), both standardised, for the items of one catalogue.

    Concatenating K tokens to the text's and pooling all of them is, with the weights the warm
    start pools by, adding a linear map of the tokens; here the map is learned.

    Args:
        items: of a fresh model.
        tokens: (N, F) what is known of each item beside its text, in the catalogue's order.
        hidden: share of items that show none in a training step, so that items of which nothing
            is known, with the mean of all as their tokens, are nothing new.
    """

    tokens: Tensor

    def __init__(self, items: ItemEncoder, tokens: Tensor, hidden: float = 0.0) -> None:
        dim, more = len(items.w), tokens.shape[1]
        super().__init__(dim, float(items.scale))
        self.standardise = Standardise(dim + more)
        self.h_item = TokenHead(dim, more, hidden)  # type: ignore[assignment]
        self.register_buffer("tokens", tokens)

    @torch.no_grad()
    def pooled(self, features: ItemFeatures, chunk: int = 512) -> Tensor:
        """(N, D + F) pooled texts and tokens, not yet standardised."""
        return torch.cat([super().pooled(features, chunk), self.tokens], 1)

    def forward(self, C: Tensor, mask: Tensor) -> Tensor:
        """Not possible for texts alone: which items they are of would have to be known."""
        raise NotImplementedError("items with tokens are encoded as a catalogue")

    def catalogue(
        self, features: ItemFeatures, chunk: int = 512, out: Tensor | None = None
    ) -> Tensor:
        """(N, D) vectors of the whole catalogue."""
        v = self.scale * self.h_item(self.standardise(self.pooled(features, chunk)))
        return v if out is None else out.copy_(v)


@torch.no_grad()
def retrieval_places(
    model: PECRS, windows: Sequence[Window], v: Tensor, chunk: int = 16
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place of every recommended film among all N by retrieval alone, the LM not read.

    Args:
        v: (N, D) item vectors.

    Returns:
        places from 1, catalogue rows of the films, and dialogues, (P,) each.
    """
    nobody = torch.zeros(2, device=v.device)
    sep = model.backbone.tokenizer.sep
    place, row, dialogue = [], [], []
    for at in range(0, len(windows), chunk):
        part = [w for w in windows[at : at + chunk] if len(named_in(w, sep))]
        many = torch.tensor([len(named_in(w, sep)) for w in part])
        of = torch.tensor([w.dialogue for w in part]).repeat_interleave(many)
        far, own, recommended = retrieval_of(model, part, None, v, nobody)
        place.append((far < far.gather(1, own[:, None])).sum(1)[recommended] + 1)
        row.append(own[recommended])
        dialogue.append(of[recommended])
    return (
        torch.cat(place).numpy(),
        torch.cat(row).numpy(),
        torch.cat(dialogue).numpy(),
    )
