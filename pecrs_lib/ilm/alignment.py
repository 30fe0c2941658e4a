"""Stage 1: items and texts into one space, by turns of item-text and item-item steps.

After `losses`, before the language model comes in. What it leaves is an item encoder whose outputs
hold what interactions say of an item, in a form that words can find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pecrs_lib.data.interactions import Interactions
from pecrs_lib.ilm.config import ILMConfig
from pecrs_lib.ilm.losses import (
    contrastive_loss,
    draw_mismatches,
    item_item_scores,
    item_text_scores,
    matching_loss,
    text_nll,
)
from pecrs_lib.ilm.qformer import QFormer

Progress = Callable[[Iterable[int]], Iterable[int]]
ITEM_TURN = 4  # every fourth step is on pairs of items


@dataclass(frozen=True)
class Texts:
    """Item texts in a vocabulary of their own, the pieces of the LM's that occur in them.

    Attributes:
        ids: (N, L) numbers in `pieces`, padded with 0.
        mask: (N, L) True for words.
        pieces: (V,) the LM's ids.
    """

    ids: Tensor
    mask: Tensor
    pieces: Tensor

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Any, length: int) -> Texts:
        """The first `length` pieces of every text.

        Raises:
            ValueError: a text without any.
        """
        ids = [tokenizer(text, add_special_tokens=False).input_ids[:length] for text in texts]
        if not all(ids):
            raise ValueError(f"item {next(j for j, i in enumerate(ids) if not i)} has no text")
        pieces, own = torch.tensor([p for i in ids for p in i]).unique(return_inverse=True)
        rows = own.split([len(i) for i in ids])
        mask = pad_sequence([torch.ones(len(i), dtype=torch.bool) for i in ids], True)
        return cls(pad_sequence(list(rows), True), mask, pieces)

    def __len__(self) -> int:
        return len(self.ids)

    def of_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and mask of some items."""
        return self.ids[rows], self.mask[rows]


def new_qformer(config: ILMConfig, texts: Texts) -> QFormer:
    """A Q-Former for these texts with random weights, made from `config.seed`."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return QFormer(config, len(texts.pieces))


def item_text_loss(
    former: QFormer,
    cf: Tensor,
    texts: Texts,
    rows: Tensor,
    config: ILMConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """ITC of a batch of different items (B,), ITM and ITG of the first `config.grounded` of them.

    The mismatches of ITM are drawn from the whole batch. Each time some words are missing and the
    CF vectors are a little off.
    """
    ids, whole = texts.of_rows(rows)
    text = whole & (torch.rand(whole.shape, generator=generator) >= config.word_dropout)
    noise = torch.randn(len(rows), cf.shape[1], generator=generator)
    own, temperature = cf[rows] + config.cf_noise * noise, config.temperature
    s = item_text_scores(former.item_vectors(former.encode(own)), former.text_vectors(ids, text))
    n = config.grounded
    other_text = draw_mismatches(s, temperature, config.hard, generator)[:n]
    other_item = draw_mismatches(s.T, temperature, config.hard, generator)[:n]
    wrong = former.match_logits(
        torch.cat([own[:n], own[other_item]]),
        torch.cat([ids[other_text], ids[:n]]),
        torch.cat([text[other_text], text[:n]]),
    )
    true = former.match_logits(own[:n], ids[:n], text[:n])
    logits = former.writing_logits(own[:n], ids[:n], whole[:n])
    return {
        "ITC": contrastive_loss(s, temperature, rows, rows),
        "ITM": matching_loss(true, wrong),
        "ITG": text_nll(logits, ids[:n], whole[:n]).mean(),
    }


def item_item_loss(former: QFormer, cf: Tensor, pairs: Tensor, temperature: float) -> Tensor:
    """Contrast of pairs (B, 2) that users took one after the other, in both directions."""
    first, then = pairs.T
    z, y = (former.item_vectors(former.encode(cf[rows])) for rows in (first, then))
    return contrastive_loss(item_item_scores(z, y), temperature, first, then)


def next_pairs(interactions: Interactions, items: Tensor) -> Tensor:
    """(n, 2) items that some user took one after the other, both among `items`."""
    pairs = [p for taken in interactions.users for p in pairwise(taken)]
    found = torch.tensor(pairs).reshape(-1, 2)
    return found[torch.isin(found, items).all(1)]


def align(
    former: QFormer,
    cf: Tensor,
    texts: Texts,
    train: Interactions,
    items: Tensor,
    config: ILMConfig,
    progress: Progress = iter,
) -> list[dict[str, float]]:
    """Stage 1 in place: `config.align_steps` steps, every fourth on pairs of items.

    Args:
        cf: (N, d_cf).
        items: (n,) rows whose texts may be seen; nothing else is trained on.
        progress: wraps the steps, e.g. `tqdm`.

    Returns:
        the losses of every step, in nats.
    """
    generator = torch.Generator().manual_seed(config.seed)
    pairs = next_pairs(train, items)
    optimizer = torch.optim.AdamW(
        former.parameters(), config.align_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    history = []
    for step in progress(range(config.align_steps)):
        if config.item_item and step % ITEM_TURN == ITEM_TURN - 1:
            drawn = torch.randint(len(pairs), (config.align_batch,), generator=generator)
            loss = item_item_loss(former, cf, pairs[drawn], config.item_temperature)
            losses = {"item-item": loss}
        else:
            rows = items[torch.randperm(len(items), generator=generator)[: config.align_batch]]
            losses = item_text_loss(former, cf, texts, rows, config, generator)
            loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({name: each.item() for name, each in losses.items()})
    return history


@torch.no_grad()
def retrieval_ranks(former: QFormer, cf: Tensor, texts: Texts, rows: Tensor) -> dict[str, Tensor]:
    """Places, 1 is best, of n items' own texts among their n texts, and the other way round."""
    z = former.item_vectors(former.encode(cf[rows]))
    s = item_text_scores(z, former.text_vectors(*texts.of_rows(rows)))
    own = s.diagonal()
    return {
        "item to text": (s > own[:, None]).sum(1) + 1,
        "text to item": (s > own).sum(0) + 1,
    }


@torch.no_grad()
def written_nll(former: QFormer, cf: Tensor, texts: Texts, rows: Tensor) -> Tensor:
    """(n,) mean nats a word of each item's text under the vectors cf[rows] (ITG)."""
    ids, text = texts.of_rows(rows)
    return text_nll(former.writing_logits(cf[rows], ids, text), ids, text)


def held_out(interactions: Interactions, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Items somebody took, in two parts: rows to align, and a `share` whose texts are not seen."""
    taken = np.unique([j for items in interactions.users for j in items])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(taken))
    n = round(share * len(order))
    return order[n:].sort().values, order[:n].sort().values
