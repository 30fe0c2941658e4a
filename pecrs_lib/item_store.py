"""Item features and vectors of a catalogue that does not fit in memory, made and kept on disk.

Beside `model`, whose `item_features` holds every item text in memory, and without a cache every
feature too. Here films come one after the other, e.g. from a file: their token ids go to disk, the
features follow in the same length-sorted batches, and both are memory-mapped. What stays in memory
is a batch, and 8 bytes per item for where it begins. The numbers are the same, bit for bit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
import torch
from torch import Tensor

from pecrs_lib.context import DialogueTokenizer
from pecrs_lib.data.schema import Movie
from pecrs_lib.data.storage import whole_file
from pecrs_lib.encoding import cached_features, lengths
from pecrs_lib.items import ItemFeatures, Progress, tokenize_items
from pecrs_lib.memory import made, mapped
from pecrs_lib.model import PECRS

BLOCK = 4096  # films tokenized together


class StoredTokens(Sequence[np.ndarray]):
    """Token ids of N item texts, one after the other in an array, often a memory-mapped file.

    Attributes:
        ids: (S,) int32, S tokens in all.
        offset: (N + 1,) item j is ``ids[offset[j]:offset[j + 1]]``.
        cut: how many texts were longer than allowed.
    """

    def __init__(self, ids: np.ndarray, offset: np.ndarray, cut: int) -> None:
        self.ids, self.offset, self.cut = ids, offset, cut

    def __len__(self) -> int:
        return len(self.offset) - 1

    @overload
    def __getitem__(self, j: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, j: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, j: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(j, slice):
            return [self[k] for k in range(*j.indices(len(self)))]
        if not 0 <= j < len(self):
            raise IndexError(f"item {j} of {len(self)}")
        return self.ids[self.offset[j] : self.offset[j + 1]]


def store_tokens(
    movies: Iterable[Movie], tok: DialogueTokenizer, file: IO[bytes], **texts: Any
) -> StoredTokens:
    """Tokenize films a block at a time into an empty file, open for reading and writing.

    Args:
        texts: `fields` and `item_tokens` of `items.tokenize_items`.

    Raises:
        ValueError: no films.
    """
    films, ends, cut = iter(movies), [np.zeros(1, np.int64)], 0
    while block := list(islice(films, BLOCK)):
        tokens, longer = tokenize_items(block, tok, **texts)
        file.write(np.concatenate([np.array(t, np.int32) for t in tokens]).tobytes())
        ends.append(ends[-1][-1] + np.cumsum(lengths(tokens)))
        cut += longer
    if len(ends) == 1:
        raise ValueError("there are no films to tokenize")
    file.flush()
    return StoredTokens(np.memmap(file, np.int32, "r"), np.concatenate(ends), cut)


def stream_features(
    model: PECRS,
    movies: Iterable[Movie],
    cache_dir: Path,
    *,
    progress: Progress = iter,
    **texts: Any,
) -> ItemFeatures:
    """LM features of every film, the adapters off: what `PECRS.item_features` gives.

    Args:
        movies: read once, in the order of the catalogue; a generator will do.
        cache_dir: made when missing; holds the features (2 D bytes a token) and for a while the
            ids (4 bytes a token). Features that are there already are not made again.
        texts: `fields` of `items.tokenize_items`.

    Raises:
        ValueError: no films, or see `encoding.encode_items`.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    backbone, config = model.backbone, model.config
    with tempfile.TemporaryFile(dir=cache_dir) as file:
        tokens = store_tokens(
            movies, backbone.tokenizer, file, item_tokens=config.item_tokens, **texts
        )
        return cached_features(
            tokens, backbone.item_output, dim=backbone.dim, device=model.device,
            backbone=f"{backbone.fingerprint}-{config.dtype}", cache_dir=cache_dir,
            progress=progress,
        )  # fmt: skip


@torch.no_grad()
def store_vectors(model: PECRS, features: ItemFeatures, path: Path) -> Tensor:
    """(N, D) item vectors, what `PECRS.encode_catalogue` gives, memory-mapped.

    Args:
        path: of the file, float32; it is there only once it is complete.
    """
    shape = (len(features), model.backbone.dim)
    with whole_file(path) as partial:
        out = made(partial, shape, np.float32)
        model.items.catalogue(features, out=torch.from_numpy(out))
        out.flush()
        del out
    return torch.from_numpy(mapped(path, shape, np.float32))
