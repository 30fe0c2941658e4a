"""The nearest items of a large catalogue, without all distances at once (section 3.6).

Comes after `losses`; `ranking` retrieves through an index where it is given one. `Exact` looks at
every item, a block at a time. `Approximate` looks at the items in lists near the query (faiss's
IVF); what it misses is measured by `experiments.large_catalogue`, where it was better than a graph
of neighbours (HNSW). Both take new items at any time, and give the same kind of answer: equal
distances stand in the order of the catalogue.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import uuid
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pecrs_lib.losses import chord

BLOCK = 16_384  # items looked at together
FORMAT = b"pecrs index 1\n"
PER_LIST = 40  # items at least in a list, and in the sample for each
PER_WANTED = 16  # items looked at for each that is wanted, at least
ROW = 0xFFFFFFFF  # the lower half of a key, see `_keys`


class Index(Protocol):
    """Item vectors of a catalogue that can be searched."""

    def __len__(self) -> int:
        """N."""

    def append(self, v: Tensor) -> None:
        """Add the vectors (n, D) of new items; their rows follow those that are there."""

    def nearest(self, queries: Tensor, M: int) -> tuple[Tensor, Tensor]:
        """(Q, M) angular distances of the M nearest items to queries (Q, D), nearest first, and
        (Q, M) their rows; all N items where M is more.
        """


class Exact:
    """Every item is looked at: what `ranking.retrieval_order` of all distances gives.

    Memory per call is of the order Q × (block + M), never Q × N.

    Args:
        v: (N, D) item vectors; a copy, normalised to length 1, is kept.
        block: items in one matrix product.
    """

    def __init__(self, v: Tensor, *, block: int = BLOCK) -> None:
        self.unit = F.normalize(v.detach().float(), dim=-1)
        self.block = block

    def __len__(self) -> int:
        return len(self.unit)

    def append(self, v: Tensor) -> None:
        """See `Index`."""
        self.unit = torch.cat([self.unit, F.normalize(v.detach().float(), dim=-1)])

    def nearest(self, queries: Tensor, M: int) -> tuple[Tensor, Tensor]:
        """See `Index`.

        Raises:
            ValueError: M below 1.
        """
        M = _wanted(M, len(self))
        query = F.normalize(queries.float(), dim=-1)
        rows = torch.arange(len(self), device=query.device)
        best = torch.empty(len(query), 0, dtype=torch.int64, device=query.device)
        for v, row in zip(self.unit.split(self.block), rows.split(self.block), strict=True):
            distance, row = chord(query @ v.T), row.expand(len(query), -1)  # (Q, ≤ block)
            if best.shape[1] == M:  # a block has few that are nearer than the M best so far
                nearer = distance < _distance(best[:, -1:])
                most = int(nearer.sum(1, dtype=torch.int32).max()) if len(query) else 0
                distance, place = distance.topk(most, largest=False, sorted=False)
                row = row.gather(1, place)
            keys = torch.cat([best, _keys(distance, row)], 1)
            best = keys.topk(min(M, keys.shape[1]), largest=False).values
        return _distance(best), best & ROW


class Approximate:
    """Items in lists, each around a centre; a query looks into the lists of the nearest centres.

    The centres are learned from a sample (k-means), the items go to the nearest centre. Items that
    are appended later do not move the centres: build anew once a catalogue has grown to twice its
    size. A normalised copy of the vectors is kept.

    Args:
        v: (N, D) item vectors; may be memory-mapped.
        look: items that a query looks at, about; with more, more are found, and it takes longer. At
            least `PER_WANTED` for each that is wanted.
        seed: of the sample and the first centres.

    Raises:
        RuntimeError: faiss is not installed.
        ValueError: no items.
    """

    def __init__(self, v: Tensor, *, look: int = 32_768, seed: int = 0) -> None:
        if not len(v):
            raise ValueError("the lists need items to be made of")
        faiss = _faiss()
        N, D = v.shape
        number = max(1, min(int(4 * N**0.5), N // PER_LIST))
        centres = faiss.IndexFlatIP(D)
        self.lists: Any = faiss.IndexIVFFlat(centres, D, number, faiss.METRIC_INNER_PRODUCT)
        self.lists.cp.spherical, self.lists.cp.seed, self.lists.cp.niter = True, seed, 10
        self.lists.cp.min_points_per_centroid = 1
        sample = np.random.default_rng(seed).permutation(N)[: PER_LIST * number]
        self.lists.train(_unit(v[torch.from_numpy(sample)]))
        self.look = look
        self._sum = hashlib.sha256()
        self.append(v)

    def __len__(self) -> int:
        return int(self.lists.ntotal)

    def append(self, v: Tensor) -> None:
        """See `Index`."""
        for part in v.split(BLOCK):
            self._sum.update(_bytes(part))
            self.lists.add(_unit(part))

    def nearest(self, queries: Tensor, M: int) -> tuple[Tensor, Tensor]:
        """See `Index`; some of the M may be farther than items it did not find.

        Raises:
            ValueError: M below 1.
        """
        M = _wanted(M, len(self))
        query = _unit(queries)
        share = max(self.look, PER_WANTED * M) / len(self)
        cos, rows = self._search(query, M, min(1.0, share))
        short = (rows < 0).any(1)  # fewer than M stand in those lists
        if short.any():
            cos[short], rows[short] = self._search(query[short], M, 1.0)
        return smallest(
            chord(torch.from_numpy(cos)).to(queries.device),
            torch.from_numpy(rows).to(queries.device), M,
        )  # fmt: skip

    def _search(self, query: np.ndarray, M: int, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and rows, (Q, M) each, -1 where there are too few, of this share of the lists."""
        how = _faiss().SearchParametersIVF(nprobe=math.ceil(share * self.lists.nlist))
        return self.lists.search(query, M, params=how)

    def save(self, path: Path) -> None:
        """One file, there only once it is complete; vectors included."""
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        faiss = _faiss()
        try:
            with partial.open("wb") as file:
                file.write(FORMAT + self._sum.hexdigest().encode() + b"\n")
                faiss.write_index(self.lists, faiss.PyCallbackIOWriter(file.write))
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path, v: Tensor, *, look: int = 32_768) -> Approximate:
        """Read what `save` wrote, of files you trust: faiss does not guard against forged ones.

        Args:
            v: (N, D) the item vectors that it must have been built of.

        Raises:
            FileNotFoundError: no such file.
            RuntimeError: faiss is not installed.
            ValueError: no such file of this version, or one of other vectors.
        """
        index = cls.__new__(cls)
        index.look, index._sum = look, hashlib.sha256()
        for part in v.split(BLOCK):
            index._sum.update(_bytes(part))
        faiss = _faiss()
        with path.open("rb") as file:
            if file.read(len(FORMAT)) != FORMAT:
                raise ValueError(f"{path} is no index of this version; build it again")
            if file.readline().strip() != index._sum.hexdigest().encode():
                raise ValueError(f"{path} is the index of other item vectors; build it again")
            try:
                index.lists = faiss.read_index(faiss.PyCallbackIOReader(file.read))
            except RuntimeError:
                raise ValueError(f"{path} is damaged; build it again") from None
        return index


def smallest(distance: Tensor, rows: Tensor, M: int) -> tuple[Tensor, Tensor]:
    """The M smallest of distances (Q, n), smallest first, and their rows (Q, n); equal distances
    in the order of the rows: (Q, M) each.
    """
    best = _keys(distance, rows).topk(M, largest=False).values
    return _distance(best), best & ROW


def _keys(distance: Tensor, rows: Tensor) -> Tensor:
    """Whole numbers that are ordered as (distance, row): float32 bits above, the row below.

    `torch.topk` says nothing of the order of equal numbers; no two keys are equal.
    """
    bits = (distance + 0.0).contiguous().view(torch.int32).long()  # + 0.0: no negative zero
    return _mirrored(bits) << 32 | rows


def _distance(keys: Tensor) -> Tensor:
    return _mirrored(keys >> 32).int().view(torch.float32)


def _mirrored(bits: Tensor) -> Tensor:
    """The bits of negative floats fall as the floats rise; turned round, and back, by this."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _unit(v: Tensor) -> np.ndarray:
    """(n, D) each of length 1, as faiss takes them."""
    return F.normalize(v.detach().float(), dim=-1).cpu().contiguous().numpy()


def _bytes(v: Tensor) -> bytes:
    """As they were given: what is computed of them may differ in the last bit elsewhere."""
    return v.detach().float().cpu().contiguous().numpy().tobytes()


def _wanted(M: int, N: int) -> int:
    if M < 1:
        raise ValueError(f"M must be at least 1, got {M}")
    return min(M, N)


def _faiss() -> Any:
    """faiss, loaded when it is needed."""
    try:
        return importlib.import_module("faiss")
    except ImportError:
        raise RuntimeError('Approximate needs faiss: pip install "pecrs_lib[scale]"') from None
