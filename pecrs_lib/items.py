"""Items as text, and the vector of an item: LM features, learnable pooling, item head (Eq 1).

Comes after `data`, before the model. The backbone is frozen and the paper stops its gradient on
the item side, so with the adapters off the LM's output for an item text never changes: `encoding`
makes it once for the whole catalogue, and training touches pooling and head only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pecrs_lib.context import DialogueTokenizer
from pecrs_lib.data.schema import Movie
from pecrs_lib.heads import Head, Standardise

FIELDS = ("title", "actors", "directors", "genres", "plot")
Progress = Callable[[Iterable[slice]], Iterable[slice]]
BESIDE = 100  # items encoded together where padding counts, about as many as in a training batch


def item_fields(movie: Movie, fields: Sequence[str] = FIELDS) -> list[str]:
    """The texts between the [SEP]s of ``Title [SEP] Actors [SEP] Director(s) [SEP] Genre(s) [SEP]
    Plot`` (section 3.2); an unknown or dropped field leaves its place empty.

    Raises:
        ValueError: a field that items do not have.
    """
    if unknown := set(fields) - set(FIELDS):
        raise ValueError(f"unknown item fields {sorted(unknown)}; there are {FIELDS}")
    text = {
        "title": movie.name,
        "actors": ", ".join(movie.actors),
        "directors": ", ".join(movie.directors),
        "genres": ", ".join(movie.genres),
        "plot": movie.plot,
    }
    return [text[name] if name in fields else "" for name in FIELDS]


def tokenize_items(
    movies: Iterable[Movie],
    tok: DialogueTokenizer,
    *,
    fields: Sequence[str] = FIELDS,
    item_tokens: int = 160,
) -> tuple[list[list[int]], int]:
    """Token ids of every item text, and how many texts were longer than `item_tokens` and cut."""
    texts = [" ".join(part.split()) for movie in movies for part in item_fields(movie, fields)]
    encoded = tok.encode([f" {text}" if text else "" for text in texts])
    step = len(FIELDS)
    items = [_join(encoded[k : k + step], tok.sep) for k in range(0, len(encoded), step)]
    return [item[:item_tokens] for item in items], sum(len(item) > item_tokens for item in items)


def _join(parts: list[list[int]], sep: int) -> list[int]:
    joined = list(parts[0])
    for part in parts[1:]:
        joined += [sep, *part]
    return joined


@dataclass(frozen=True)
class ItemFeatures:
    """The LM's outputs C_j for every token of every item text, one after the other.

    Attributes:
        values: (S, D) float16, S tokens in all; often a memory-mapped file.
        offset: (N + 1,) item j is ``values[offset[j]:offset[j + 1]]``.
    """

    values: Tensor
    offset: Tensor

    def __len__(self) -> int:
        return len(self.offset) - 1

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Features of some items: (n, L, D) float32 with zeros as padding, and mask (n, L)."""
        start, length = self.offset[rows], (self.offset[1:] - self.offset[:-1])[rows]
        step = torch.arange(int(length.max()), device=rows.device)
        mask = step < length[:, None]
        index = torch.where(mask, start[:, None] + step, 0)
        values = self.values[index.reshape(-1)].view(*index.shape, -1).float()
        return values * mask[..., None], mask

    def to(self, device: torch.device | str) -> ItemFeatures:
        return ItemFeatures(self.values.to(device), self.offset.to(device))


def pool(C: Tensor, w: Tensor, mask: Tensor) -> Tensor:
    """The pooling of Eq 1, wᵀ·C_j: a learned weighted mean of an item's tokens.

    DEVIATION: the paper leaves open how one w fits texts of every length. Here w scores each token
    by its features and a softmax over the *real* tokens turns scores into weights, so padding
    changes nothing; w = 0 is the plain mean.

    Args:
        C: (n, L, D) token features.
        w: (D,) learned.
        mask: (n, L) True for real tokens; at least one per item.

    Returns:
        (n, D).
    """
    score = C @ w  # (n, L), in bfloat16 under autocast
    score = score.masked_fill(~mask, torch.finfo(score.dtype).min)
    return (score.softmax(-1)[:, None] @ C)[:, 0]  # (n, 1, L) @ (n, L, D) -> (n, D)


class ItemEncoder(nn.Module):
    """v_j = h_item(wᵀ·C_j), Eq 1.

    DEVIATION: the paper's ablation (Table 5) does not say what stands in place of what it takes
    away. Here it is what training starts from, so that nothing but learning is lost.

    Args:
        dim: D.
        scale: standard deviation of the LM's word embeddings. Item vectors start on that scale,
            because the LM reads them among words.
        pooling: learn w; without, it stays 0, the plain mean.
        head: learn h_item; without, it is the identity.
        padding: pool over padding as well, zeros up to the longest text of a batch, as the official
            code does: the vector of an item then depends on the items beside it.
    """

    w: Tensor
    scale: Tensor

    def __init__(
        self, dim: int, scale: float, *, pooling: bool = True, head: bool = True,
        padding: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        zeros = torch.zeros(dim)
        if pooling:
            self.w = nn.Parameter(zeros)
        else:
            self.register_buffer("w", zeros)
        self.standardise = Standardise(dim)
        self.h_item = Head(dim) if head else nn.Identity()
        self.register_buffer("scale", torch.tensor(scale))
        self.padding = padding

    @torch.no_grad()
    def fit(self, features: ItemFeatures, chunk: int = 512) -> None:
        """Standardise by the pooled features of a catalogue: once, before training."""
        self.standardise.fit(self.pooled(features, chunk))

    def pool(self, C: Tensor, mask: Tensor) -> Tensor:
        """(n, L, D) token features and their mask (n, L) -> (n, D), see `pool`."""
        return pool(C, self.w, torch.ones_like(mask) if self.padding else mask)

    @torch.no_grad()
    def pooled(self, features: ItemFeatures, chunk: int = 512) -> Tensor:
        """(N, D) pooled texts of a catalogue, not yet standardised."""
        rows = torch.arange(len(features), device=features.offset.device)
        beside = BESIDE if self.padding else chunk
        parts = [self.pool(*features.gather(part)) for part in rows.split(beside)]
        return torch.cat(parts)

    def forward(self, C: Tensor, mask: Tensor) -> Tensor:
        """(n, L, D) token features and their mask (n, L) -> (n, D) item vectors."""
        return self.scale * self.h_item(self.standardise(self.pool(C, mask)))

    def catalogue(
        self, features: ItemFeatures, chunk: int = 512, out: Tensor | None = None
    ) -> Tensor:
        """(N, D) vectors of the whole catalogue, a length-sorted chunk of items at a time; with
        `padding` the neighbours matter, and are those in the catalogue.

        Args:
            out: (N, D) to write into, e.g. a memory map; only without gradient.
        """
        if self.padding:
            v = self.scale * self.h_item(self.standardise(self.pooled(features)))
            return v if out is None else out.copy_(v)
        length = features.offset[1:] - features.offset[:-1]
        order = length.argsort()
        if out is not None:
            for rows in order.split(chunk):
                out[rows] = self(*features.gather(rows))
            return out
        parts = [self(*features.gather(rows)) for rows in order.split(chunk)]
        return torch.cat(parts)[order.argsort()]
