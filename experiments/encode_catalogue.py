"""The memory that encoding a catalogue takes: features held in memory, or streamed to disk.

    OMP_NUM_THREADS=1 python -m experiments.encode_catalogue [--items 3000 15000]

The item texts of MiniReel over and over. The language model is replaced by its table of word
vectors: what is measured is memory, and the features are as many and as large. Each way runs in a
process of its own; its memory is what no file backs (RssAnon, which only Linux tells), looked at
every few milliseconds. Writes the part "encoding" of data/results/large_catalogue.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.large_catalogue import RESULT
from experiments.reel import SHIPPED
from pecrs_lib.data import Catalogue, Movie, load_minireel
from pecrs_lib.item_store import store_vectors, stream_features
from pecrs_lib.model import PECRS
from pecrs_lib.reproduction.runs import machine

WAYS = ("in memory", "on disk")
MIB = 2**20


def memory() -> int:
    """Bytes of this process that no file backs."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(1024 * int(x.split()[1]) for x in status.splitlines() if x.startswith("RssAnon"))


class Peak(threading.Thread):
    """Looks at the memory of the process until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.over = memory(), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.005):
            self.bytes = max(self.bytes, memory())

    def stop(self) -> int:
        self.over.set()
        self.join()
        return max(self.bytes, memory())


def films(n: int) -> Iterator[Movie]:
    catalogue, _ = load_minireel()
    return (replace(catalogue[k % len(catalogue)], id=f"{k}") for k in range(n))


def digest(x: Tensor) -> str:
    """Of the bits, a part at a time."""
    total = hashlib.sha256()
    for part in x.split(65_536):
        total.update(part.numpy().tobytes())
    return total.hexdigest()


def encode(way: str, n: int) -> dict[str, Any]:
    """Features and vectors of n films in one way: the memory it took above what was there before,
    in MiB, and the hashes of both.
    """
    model = PECRS.from_pretrained(SHIPPED).eval()
    words = model.backbone.embed
    model.backbone.item_output = lambda token, mask, adapted=False: words(token, adapted=adapted)
    before, peak = memory(), Peak()
    peak.start()
    with tempfile.TemporaryDirectory() as folder:
        if way == WAYS[0]:
            features = model.item_features(Catalogue(tuple(films(n))))
            v = model.encode_catalogue(features)
        else:
            features = stream_features(model, films(n), Path(folder) / "cache")
            v = store_vectors(model, features, Path(folder) / "vectors")
        most = peak.stop()
        return {
            "N": n, "way": way, "before_mib": round(before / MIB, 1),
            "peak_mib": round((most - before) / MIB, 1),
            "features_mib": round(features.values.nbytes / MIB, 1),
            "vectors_mib": round(v.nbytes / MIB, 1),
            "features": digest(features.values), "vectors": digest(v),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[3_000, 15_000])
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    rows = []
    for n in args.items:
        for way in WAYS:
            own = multiprocessing.get_context("spawn")  # nothing is left of the way before
            with ProcessPoolExecutor(1, mp_context=own) as process:
                rows.append(process.submit(encode, way, n).result())
            print(rows[-1], flush=True)
        for what in ("features", "vectors"):
            same = rows[-2].pop(what) == rows[-1].pop(what)
            rows[-2][f"same {what}"] = rows[-1][f"same {what}"] = same
    found = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    found["encoding"] = machine() | {"rows": rows}
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
