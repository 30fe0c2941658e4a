"""LM outputs of item texts, made in batches and kept in a file (C_j of Eq 1).

Comes after `items`, which pools them into vectors, and before `model`. The backbone is frozen, so
this happens once per catalogue.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pecrs_lib.data.storage import cannot_write, sha256
from pecrs_lib.items import ItemFeatures, Progress
from pecrs_lib.memory import made, mapped
from pecrs_lib.processes import ALONE, Processes

DIGEST = 32  # bytes of a SHA-256
BLOCK = 1 << 20  # bytes read at a time

Tokens = Sequence[Sequence[int]] | Sequence[np.ndarray]  # ids of every item


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
    processes: Processes = ALONE,
) -> ItemFeatures:
    """The LM's outputs for every item text, in length-sorted batches without the LM head.

    Args:
        tokens: token ids of each item; none may be empty.
        lm_output: (n, L) ids and mask -> (n, L, D); runs without gradient.
        batch_tokens: padded tokens in one forward pass.
        progress: wraps the batches, e.g. `tqdm`.
        out: (S, D) float16 to write into, e.g. a memory map.
        processes: they share the batches, which are the same for any number of them. Without
            `out` each gets the whole; with it, each writes its part.

    Raises:
        ValueError: an item without text, or a feature that half precision cannot hold.
    """
    length = lengths(tokens)
    if len(length) == 0 or length.min() == 0:
        raise ValueError(f"item {int(length.argmin()) if len(length) else 0} has no text to encode")
    offset = np.concatenate([[0], np.cumsum(length)])
    values = np.zeros((offset[-1], dim), np.float16) if out is None else out
    order = np.argsort(-length, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, batch_tokens // int(length[order[start]]))
        batches.append(slice(start, start + size))
        start += size
    for batch in progress(processes.share(batches)):
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
    whole = torch.from_numpy(values)
    if out is None:
        whole = processes.sum(whole)  # a row is 0 but in the process that encoded it
    return ItemFeatures(whole, torch.from_numpy(offset))


def cached_features(
    tokens: Tokens,
    lm_output: Callable[[Tensor, Tensor], Tensor],
    *,
    dim: int,
    backbone: str,
    cache_dir: Path,
    device: torch.device | str = "cpu",
    progress: Progress = iter,
    processes: Processes = ALONE,
) -> ItemFeatures:
    """`encode_items`, kept in a memory-mapped file named after everything it depends on.

    Args:
        backbone: fingerprint of the frozen LM; with the token ids it makes the file's name, so a
            changed text, tokenizer or weight is encoded anew.
        cache_dir: made when missing. A file appears there only once it is complete, and one that
            is no more what was written is made anew.
        processes: all write into the one file.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; names the file.
        FileNotFoundError: a process does not see the file that the first one made.
    """
    path = cache_dir / f"items-{_digest(tokens, backbone, dim)[:24]}.f16"
    offset = np.concatenate([[0], np.cumsum(lengths(tokens))])
    shape = (int(offset[-1]), dim)
    if not processes.agree(_is_whole(path, shape[0] * dim * 2)):
        cache_dir.mkdir(parents=True, exist_ok=True)
        name = processes.agree(f"{path.name}.{uuid.uuid4().hex}")  # its own, if two run at once
        partial = path.with_name(name)
        try:
            if processes.first:
                made(partial, shape, np.float16)
            processes.wait()
            out = np.memmap(processes.shared(partial), np.float16, "r+", shape=shape)
            encode_items(
                tokens, lm_output, dim=dim, device=device, progress=progress, out=out,
                processes=processes,
            )  # fmt: skip
            out.flush()
            del out
            processes.wait()
            if processes.first:
                with partial.open("ab") as file:
                    file.write(bytes.fromhex(sha256(partial)))
                partial.replace(path)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno:
                raise cannot_write(error, path) from error
            raise
        processes.wait()
    values = mapped(processes.shared(path), shape, np.float16)
    return ItemFeatures(torch.from_numpy(values), torch.from_numpy(offset))


def _is_whole(path: Path, size: int) -> bool:
    """Whether a file has `size` bytes and behind them their SHA-256; a damaged one is made anew."""
    if not path.exists() or path.stat().st_size != size + DIGEST:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for start in range(0, size, BLOCK):
            digest.update(file.read(min(BLOCK, size - start)))
        return digest.digest() == file.read()


def _digest(tokens: Tokens, backbone: str, dim: int) -> str:
    """The hash of the JSON text of ``[backbone, dim, tokens]``, an item at a time."""
    key = hashlib.sha256(json.dumps([backbone, dim])[:-1].encode())
    for k, item in enumerate(tokens):
        key.update((", " if k else ", [").encode() + json.dumps(np.asarray(item).tolist()).encode())
    key.update(b"]]")
    return key.hexdigest()
