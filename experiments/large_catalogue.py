"""Retrieval in catalogues of up to a million items: exact, by lists, by a graph.

    OMP_NUM_THREADS=1 python -m experiments.large_catalogue [--items 10000 100000 1000000]

MiniReel has too few films, so further item vectors are drawn that are spread like those of the
shipped checkpoint: a real vector drawn towards the mean of all, plus Gaussian noise of their
covariance, so that mean and covariance stay what they are (the smoothed bootstrap with its variance
kept, Silverman 1986). The share of noise is the one of `SHARES` with which as many vectors as there
are films have the nearest neighbours that films have. Queries are real: one turn of every dialogue
of the validation part.

Everything is measured on this machine in one run, exact and approximate beside each other. Times
are medians of processor time, so that what else the machine does is not counted: with one thread it
is the time that passes on an idle machine. (Files are timed by the clock.) `ivf` is
`index.Approximate`; beside it stands faiss's other common index, a graph of neighbours. Writes the
part "search" of data/results/large_catalogue.json; `experiments.encode_catalogue` the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.inspired import RESULTS
from experiments.reel import SHIPPED
from pecrs_lib.assessment import item_vectors
from pecrs_lib.batches import batches_by_length
from pecrs_lib.data import load_minireel
from pecrs_lib.index import BLOCK, Approximate, Exact, Index
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.protocol import encode_windows
from pecrs_lib.ranking import read_trunks
from pecrs_lib.reproduction.runs import machine

RESULT = RESULTS / "large_catalogue.json"
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CUTS = (100, 700)  # M
REPEATS, BATCHES, BATCH = 25, 7, 32
# Of the items, by `index.Approximate`; never fewer than its PER_WANTED × M, which with M = 700 is
# all of 10,000 items and a ninth of 100,000.
SHARES_LOOKED_AT = (1 / 32, 1 / 8)
VIEWS = (1.0, 2.0)  # items a search of the graph keeps in view, as a multiple of M; 200 at least


def real_vectors() -> tuple[Tensor, Tensor]:
    """Item vectors of MiniReel, and a query of one recommending turn of each dialogue, the last."""
    catalogue, splits = load_minireel()
    model = PECRS.from_pretrained(SHIPPED).eval()
    v = item_vectors(model, catalogue)
    query: dict[int, Tensor] = {}
    with torch.inference_mode():
        for part in batches_by_length(encode_windows(splits["valid"], catalogue, model)):
            batch = pack(part)
            trunk = read_trunks(model, batch, v)
            row, column = batch.query_row, batch.query_column
            q = model.f(model.queries(trunk.hidden[row, column], trunk.x, row, column))
            query |= dict(zip(batch.dialogue[batch.point_response].tolist(), q, strict=True))
    return v, torch.stack([query[k] for k in sorted(query)])


class Spread:
    """Draws vectors that are spread like `v`, see the top of this file."""

    def __init__(self, v: Tensor) -> None:
        self.mean, self.centred = v.mean(0), v - v.mean(0)
        tiny = 1e-6 * v.var() * torch.eye(v.shape[1])
        self.root = torch.linalg.cholesky(torch.cov(v.T) + tiny)

    def draw(self, n: int, share: float, seed: int) -> Tensor:
        """(n, D); the noise has `share` of the spread (of the standard deviation)."""
        generator = torch.Generator().manual_seed(seed)
        made = torch.empty(n, len(self.mean))
        for part in made.split(BLOCK):
            which = torch.randint(len(self.centred), (len(part),), generator=generator)
            noise = torch.randn(part.shape, generator=generator) @ self.root.T
            part.copy_(self.mean + (1 - share**2) ** 0.5 * self.centred[which] + share * noise)
        return made


def statistics_of(v: Tensor, q: Tensor) -> dict[str, float]:
    """What real and drawn vectors are compared by; cosines, (quartiles of) the nearest ones."""
    unit, query = F.normalize(v, dim=-1), F.normalize(q, dim=-1)
    between = (unit @ unit.T).fill_diagonal_(-1)
    low, middle, high = between.max(1).values.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    variance = torch.linalg.eigvalsh(torch.cov(unit.T)).clamp_min(0)
    to_items = query @ unit.T
    found = {
        "nearest item, 25 %": low, "nearest item, median": middle, "nearest item, 75 %": high,
        "effective dimensions": float(variance.sum() ** 2 / variance.square().sum()),
        "length of the mean direction": float(unit.mean(0).norm()),
        "spread of query to item": float(to_items.std()),
        "query to nearest item, median": float(to_items.max(1).values.median()),
    }  # fmt: skip
    return {name: round(value, 4) for name, value in found.items()}


def built(make: Callable[[], Any], held: Callable[[Any], int]) -> tuple[Any, dict[str, float]]:
    """What `make` builds, in how many seconds, and the memory it holds."""
    start = time.process_time()
    index = make()
    seconds = time.process_time() - start
    return index, {"build_seconds": round(seconds, 2), "mib": round(held(index) / 2**20, 1)}


def faiss_bytes(index: Any) -> int:
    """A faiss index holds what it writes."""
    return int(faiss.serialize_index(index).nbytes)


def milliseconds(work: Callable[[Tensor], Any], queries: list[Tensor]) -> float:
    """Median over the queries; the first warms up and does not count."""
    times = []
    for q in queries:
        start = time.process_time()
        work(q)
        times.append(1000 * (time.process_time() - start))
    return round(statistics.median(times[1:]), 3)


def latency(nearest: Callable[[Tensor, int], Any], q: Tensor, M: int) -> dict[str, float]:
    """Milliseconds for one query, and per query in a batch."""
    single = list(q[: REPEATS + 1].split(1))
    batches = [q.roll(BATCH * k, 0)[:BATCH] for k in range(BATCHES + 1)]
    search = lambda queries: nearest(queries, M)  # noqa: E731
    return {
        "single_ms": milliseconds(search, single),
        "batch_ms": round(milliseconds(search, batches) / BATCH, 3),
    }


def recall(found: Tensor, rows: Tensor, k: int) -> dict[str, float]:
    """Percent of the k nearest that are among those found: mean over queries, 95 % interval by
    bootstrap over queries.
    """
    share = [100 * np.isin(a[:k], b).mean() for a, b in zip(rows, found, strict=True)]
    rng = np.random.default_rng(0)
    means = rng.choice(share, (2000, len(share))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    numbers = {"value": float(np.mean(share)), "low": float(low), "high": float(high)}
    return {name: round(x, 2) for name, x in numbers.items()} | {"n": len(share)}


def measured(
    nearest: Callable[[Tensor, int], tuple[Tensor, Tensor]], q: Tensor, rows: Tensor
) -> list[dict[str, Any]]:
    """Latency and recall for every M of `CUTS`."""
    made = []
    for M in CUTS:
        found = nearest(q, M)[1]
        made.append({
            "M": M, "recall@10": recall(found, rows, 10), "recall@M": recall(found, rows, M),
            **latency(nearest, q, M),
        })  # fmt: skip
    return made


def floor(N: int, D: int) -> dict[str, float]:
    """Milliseconds a query needs at least when every item is looked at: one reads all vectors, of
    a batch each costs N × D multiply-adds. By rates measured here and now.
    """
    x, w = torch.randn(1024, 1024), torch.randn(1 << 26)  # 256 MiB, more than any cache
    reading = 4 * w.numel() / milliseconds(lambda _: w.max(), [x] * 6)  # bytes per ms
    product = 2 * 1024**3 / milliseconds(lambda _: x @ x, [x] * 6)  # FLOP per ms
    return {
        "bandwidth_gb_s": round(reading / 1e6, 1),
        "gemm_gflop_s": round(product / 1e6, 1),
        "single_ms": round(4 * N * D / reading, 3),
        "batch_ms": round(max(4 * N * D / reading / BATCH, 2 * N * D / product), 3),
    }


def graph(v: Tensor) -> Any:
    """faiss's HNSW with 32 links an item."""
    index = faiss.IndexHNSWFlat(v.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    for part in v.split(BLOCK):
        index.add(F.normalize(part, dim=-1).numpy())
    return index


def of_size(v: Tensor, q: Tensor) -> dict[str, Any]:
    """Everything measured on one catalogue (N, D) with queries (n, D)."""
    N, D = v.shape
    record: dict[str, Any] = {"N": N, "D": D, "floor": floor(N, D)}
    exact, cost = built(lambda: Exact(v), lambda index: index.unit.nbytes)
    rows = exact.nearest(q, max(CUTS))[1]
    record["exact"] = cost | {"at": measured(exact.nearest, q, rows)}
    del exact

    index, cost = built(lambda: Approximate(v), lambda index: faiss_bytes(index.lists))
    for share in SHARES_LOOKED_AT:
        index.look = int(share * N)
        name = f"ivf, 1/{round(1 / share)} of the lists"
        at = measured(index.nearest, q, rows)
        record[name] = cost | {"lists": index.lists.nlist, "at": at}
    record["file"] = saved_and_loaded(index, v)
    del index

    hnsw, cost = built(lambda: graph(v), faiss_bytes)
    for view in VIEWS:

        def nearest(queries: Tensor, M: int, view: float = view) -> tuple[Tensor, Tensor]:
            how = faiss.SearchParametersHNSW(efSearch=max(200, int(view * M)))
            cos, found = hnsw.search(F.normalize(queries, dim=-1).numpy(), M, params=how)
            return torch.from_numpy(cos), torch.from_numpy(found)

        record[f"graph, view {view:g}"] = cost | {"at": measured(nearest, q, rows)}
    return record


def saved_and_loaded(index: Approximate, v: Tensor) -> dict[str, float]:
    """Size of the file, seconds to write it and to read it with its check."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        start = time.perf_counter()
        index.save(path)
        written = time.perf_counter()
        again: Index = Approximate.load(path, v)
        read = time.perf_counter()
        assert len(again) == len(v)
        mib = path.stat().st_size / 2**20
    return {
        "mib": round(mib, 1), "save_seconds": round(written - start, 2),
        "load_seconds": round(read - written, 2),
    }  # fmt: skip


def compare_indexes(sizes: list[int]) -> Iterator[dict[str, Any]]:
    """The record so far, after every size."""
    v, q = real_vectors()
    spread = Spread(v)
    real = statistics_of(v, q)
    key = "nearest item, median"
    drawn = {share: statistics_of(spread.draw(len(v), share, 0), q) for share in SHARES}
    share = min(SHARES, key=lambda s: abs(drawn[s][key] - real[key]))
    record: dict[str, Any] = {
        **machine(), "faiss": faiss.__version__, "films": len(v), "queries": len(q),
        "noise": share, "real": real, "drawn": drawn[share], "batch": BATCH,
        "timed_queries": REPEATS, "timed_batches": BATCHES, "sizes": [],
    }  # fmt: skip
    for n in sizes:
        record["sizes"].append(of_size(spread.draw(n, share, seed=1), q))
        yield record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    faiss.omp_set_num_threads(torch.get_num_threads())
    found = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    for record in compare_indexes(args.items):
        found["search"] = record
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
