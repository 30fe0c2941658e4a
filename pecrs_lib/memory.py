"""The memory of the process: keep what is freed, and map files that are larger than it.

At the start of the flow. On CPU, page faults can cost as much as arithmetic: glibc returns every
large block to the kernel when a tensor is freed and asks for it again a millisecond later; each
page is then cleared anew. Where training or evaluation allocates the same sizes over and over, that
adds up (`--return-memory` of the benchmark shows the run without).
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from pathlib import Path

import numpy as np

from pecrs_lib.data.storage import allocate

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Ask the C allocator to keep and reuse large blocks; True where it can (Linux with glibc).

    Affects the whole process, for good; peak memory stays what it was, but is held until exit.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return (
        mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
    )


def made(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.memmap:
    """A new file as an array to write to; all of it is reserved on the disk (`allocate`)."""
    allocate(path, math.prod(shape) * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype, "r+", shape=shape)


def mapped(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """A file as an array, larger than memory if need be. What is written to it stays in memory."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    with path.open("rb") as file:
        if sys.platform == "linux":
            # Linux refuses private copies that might not fit in memory, unless told not to reserve
            flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)
            memory = mmap.mmap(file.fileno(), size, flags, mmap.PROT_READ | mmap.PROT_WRITE)
        else:
            memory = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    return np.ndarray(shape, dtype, memory)
