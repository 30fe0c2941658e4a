"""Items as text, and the vector of an item: LM features, learnable pooling, item head (Eq 1).

Comes after `data`, before the model. The backbone is frozen and the paper stops its gradient on
the item side, so with the adapters off the LM's output for an item text never changes: it is
computed once for the whole catalogue and kept on disk, and training touches pooling and head only.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pecrs_lib.context import DialogueTokenizer
from pecrs_lib.data.schema import Movie
from pecrs_lib.heads import Head, Standardise
from pecrs_lib.memory import mapped

FIELDS = ("title", "actors", "directors", "genres", "plot")
BESIDE = 100  # items encoded together where padding counts, about as many as in a training batch
Progress = Callable[[Iterable[slice]], Iterable[slice]]
Tokens = Sequence[Sequence[int]] | Sequence[np.ndarray]  # ids of every item


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
    score = (C @ w).masked_fill(~mask, torch.finfo(C.dtype).min)  # (n, L)
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


def lengths(tokens: Tokens) -> np.ndarray:
    """(N,) how many tokens each item has."""
    return np.fromiter((len(item) for item in tokens), np.int64, len(tokens))


def encode_items(
    tokens: Tokens,
    lm_output: Callable[[Tensor, Tensor], Tensor],
    *,
    dim: int,
    device: torch.device | str = "cpu",
    batch_tokens: int = 4096,
    progress: Progress = iter,
    out: np.ndarray | None = None,
) -> ItemFeatures:
    """The LM's outputs for every item text, in length-sorted batches without the LM head.

    Args:
        tokens: token ids of each item; none may be empty.
        lm_output: (n, L) ids and mask -> (n, L, D); runs without gradient.
        batch_tokens: padded tokens in one forward pass.
        progress: wraps the batches, e.g. `tqdm`.
        out: (S, D) float16 to write into, e.g. a memory map.

    Raises:
        ValueError: an item without text, or a feature that half precision cannot hold.
    """
    length = lengths(tokens)
    if len(length) == 0 or length.min() == 0:
        raise ValueError(f"item {int(length.argmin()) if len(length) else 0} has no text to encode")
    offset = np.concatenate([[0], np.cumsum(length)])
    values = np.empty((offset[-1], dim), np.float16) if out is None else out
    order = np.argsort(-length, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, batch_tokens // int(length[order[start]]))
        batches.append(slice(start, start + size))
        start += size
    for batch in progress(batches):
        rows = order[batch]
        mask = np.arange(length[rows[0]]) < length[rows][:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = np.concatenate([tokens[j] for j in rows])
        with torch.no_grad():
            C = lm_output(
                torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)
            ).float()
        with np.errstate(over="ignore"):  # raised below instead
            flat = C.cpu().numpy()[mask].astype(np.float16)
        if not np.isfinite(flat).all():
            raise ValueError("an item feature exceeds the range of float16")
        where = (offset[:-1][rows][:, None] + np.arange(mask.shape[1]))[mask]
        values[where] = flat
    return ItemFeatures(torch.from_numpy(values), torch.from_numpy(offset))


def cached_features(
    tokens: Tokens,
    lm_output: Callable[[Tensor, Tensor], Tensor],
    *,
    dim: int,
    backbone: str,
    cache_dir: Path,
    device: torch.device | str = "cpu",
    progress: Progress = iter,
) -> ItemFeatures:
    """`encode_items`, kept in a memory-mapped file named after everything it depends on.

    Args:
        backbone: fingerprint of the frozen LM; with the token ids it makes the file's name, so a
            changed text, tokenizer or weight is encoded anew.
        cache_dir: made when missing. A file appears there only once it is complete.
    """
    path = cache_dir / f"items-{_digest(tokens, backbone, dim)[:24]}.f16"
    offset = np.concatenate([[0], np.cumsum(lengths(tokens))])
    shape = (int(offset[-1]), dim)
    if not (path.exists() and path.stat().st_size == shape[0] * dim * 2):
        cache_dir.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")  # its own, if two run at once
        try:
            out = np.memmap(partial, np.float16, "w+", shape=shape)
            encode_items(tokens, lm_output, dim=dim, device=device, progress=progress, out=out)
            out.flush()
            del out
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    values = mapped(path, shape, np.float16)
    return ItemFeatures(torch.from_numpy(values), torch.from_numpy(offset))


def _digest(tokens: Tokens, backbone: str, dim: int) -> str:
    """The hash of the JSON text of ``[backbone, dim, tokens]``, an item at a time."""
    key = hashlib.sha256(json.dumps([backbone, dim])[:-1].encode())
    for k, item in enumerate(tokens):
        key.update((", " if k else ", [").encode() + json.dumps(np.asarray(item).tolist()).encode())
    key.update(b"]]")
    return key.hexdigest()
