"""Keep freed memory inside the process: on CPU, page faults can cost as much as arithmetic.

glibc returns every large block to the kernel when a tensor is freed and asks for it again a
millisecond later; each page is then cleared anew. Where training or evaluation allocates the same
sizes over and over, that adds up (`--return-memory` of the benchmark shows the run without).
"""

from __future__ import annotations

import ctypes
import sys

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
