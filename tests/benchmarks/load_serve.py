"""Load on `pecrs serve`: well-formed, malformed and broken requests at once, on loopback.

    python -m tests.benchmarks.load_serve [--seconds 60] [--json data/results/serve_load.json]

Starts the server with the shipped MiniReel model in a process of its own and talks to it through
plain sockets. Well-formed requests (MiniReel's validation dialogues; a part of them wants a reply)
are compared with the answers that the same server gave to each of them alone, so one person's
answer in another's is noticed. Malformed ones come at a fixed rate. Broken clients send too much,
too slowly, half, or hang up. At the end a burst fills the queue, and SIGINT ends the server while
clients are waiting. Exit status 1: an unexpected status, a wrong answer, or growing memory.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pecrs_lib.data import load_minireel
from pecrs_lib.reproduction.runs import machine, write_run
from pecrs_lib.serving.application import MAX_BODY
from pecrs_lib.serving.service import MAX_CHARACTERS, MAX_TOP, MAX_UTTERANCES
from tests.benchmarks.bench_one_pass import processor

HEAD = "POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HELLO = {"role": "seeker", "text": "something scary"}
PART = 0.25  # of the well-formed requests that want a reply
CLIENTS = 8  # that ask well-formed questions one after the other
IN_FLIGHT = 100  # malformed requests at a time; below the server's limit of connections
BURST = 200  # questions at once at the end
CLOSE = 1e-3  # scores of equal answers differ by rounding only; those of others by whole numbers
GROWTH_MIB = 32  # of memory from the first third of the load to the last, at most


def posted(body: bytes, *, close: bool = True) -> bytes:
    end = "Connection: close\r\n" if close else ""
    return f"{HEAD}{end}Content-Length: {len(body)}\r\n\r\n".encode() + body


def asked(utterances: Any, **more: Any) -> bytes:
    return json.dumps({"dialogue": {"utterances": utterances}, **more}).encode()


def malformed() -> dict[str, tuple[bytes, set[int]]]:
    """Requests by name, each with the statuses that are right for it."""
    bodies = {
        "empty": b"", "no JSON": b"{", "no UTF-8": b"\xff\xfe", "deep": b"[" * 30_000,
        "long number": b'{"top": ' + b"9" * 5_000 + b"}", "null": b"null",
        "half a surrogate pair": b'{"dialogue": {"utterances": [{"text": "\\ud800"}]}}',
        "surrogate name": b'{"\\ud800": 1}', "infinity": b'{"top": 1e999}',
        "many wrong utterances": asked([1] * 20_000), "unknown field": asked([HELLO], tpo=1),
        "no utterance": asked([]), "too many": asked([HELLO] * (MAX_UTTERANCES + 1)),
        "role": asked([{"role": "assistant", "text": "x"}]), "top": asked([HELLO], top=MAX_TOP + 1),
        "long text": asked([{**HELLO, "text": "x" * (MAX_CHARACTERS + 1)}]),
        "span": asked([{**HELLO, "mentions": [{"item": "1", "start": 3, "end": 99}]}]),
    }  # fmt: skip
    made = {name: (posted(body), {400, 422}) for name, body in bodies.items()}
    right = asked([HELLO])
    return made | {
        "oversize, declared": (posted(b" " * (MAX_BODY + 1)), {413}),
        "oversize, announced only": (posted(b"").replace(b"Length: 0", b"Length: 99999999"), {413}),
        "oversize, in pieces": (
            f"{HEAD}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            + b"8000\r\n" + b" " * 0x8000 + b"\r\n8000\r\n" + b" " * 0x8000 + b"\r\n1\r\n \r\n",
            {413},
        ),
        "no type": (posted(right).replace(b"application/json", b"text/plain"), {422}),
        "wrong path": (posted(right).replace(b"/recommend", b"/admin"), {404}),
        "wrong method": (b"PUT /recommend HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", {405}),
        "garbage": (b"\x16\x03\x01\x00hello\r\n\r\n", {400}),
        "long head": (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", {400, 414, 431}),
        "two lengths": (posted(right).replace(b"Host", b"Content-Length: 1\r\nHost"), {400}),
    }  # fmt: skip


class Log:
    """What came back, by kind of request."""

    def __init__(self) -> None:
        self.statuses: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.unexpected: Counter[str] = Counter()
        self.worst_difference = 0.0
        self.wrong: list[str] = []

    def add(self, kind: str, status: int | None, right: Iterable[int | None], s: float) -> None:
        self.statuses[kind][str(status)] += 1
        self.seconds[kind].append(s)
        if status not in right:
            self.unexpected[f"{kind}: {status}"] += 1


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(lines[0].split()[1]), headers, body


async def once(port: int, data: bytes) -> tuple[int | None, dict[str, str], bytes]:
    """One request on a connection of its own; status None: it was closed without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await asyncio.wait_for(read_answer(reader), 60)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None, {}, b""
    finally:
        writer.close()


class WellFormed:
    """Clients that ask, wait for the answer and ask again, over one connection each."""

    def __init__(self, port: int, bodies: list[bytes], log: Log) -> None:
        self.port, self.bodies, self.log = port, bodies, log
        self.right: list[Any] = []

    async def learn(self) -> None:
        """The answer to each question alone."""
        for body in self.bodies:
            start = time.perf_counter()
            status, _, answer = await once(self.port, posted(body))
            assert status == 200, answer
            self.right.append(json.loads(answer))
            self.log.add(self.kind(-1), status, {200}, time.perf_counter() - start)

    def kind(self, k: int) -> str:
        return "with reply" if self.right[k]["reply"] else "list only"

    async def crowd(self, until: float) -> None:
        """All the clients at once."""
        await asyncio.gather(*(self.client(until, random.Random(k)) for k in range(CLIENTS)))

    async def client(self, until: float, rng: random.Random) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while time.monotonic() < until:
            k = rng.randrange(len(self.bodies))
            start = time.perf_counter()
            writer.write(posted(self.bodies[k], close=False))
            status, _, body = await asyncio.wait_for(read_answer(reader), 60)
            self.log.add(self.kind(k), status, {200}, time.perf_counter() - start)
            if status == 200:
                self.compare(k, json.loads(body))
        writer.close()

    def compare(self, k: int, answer: Any) -> None:
        right = self.right[k]
        want = {r["id"]: r["score"] for r in right["recommendations"]}
        got = {r["id"]: r["score"] for r in answer["recommendations"]}
        same = answer["dialogue"] == right["dialogue"] and want.keys() == got.keys()
        same = same and (answer["reply"] or {}).get("text") == (right["reply"] or {}).get("text")
        gap = max((abs(want[i] - got[i]) for i in want), default=0.0) if same else 0.0
        self.log.worst_difference = max(self.log.worst_difference, gap)
        if not same or gap > CLOSE:
            self.log.wrong.append(right["dialogue"])


async def send_malformed(port: int, rate: float, until: float, log: Log, seed: int) -> None:
    """Malformed requests at `rate` a second, as long as fewer than `IN_FLIGHT` are unanswered."""
    kinds, rng = list(malformed().items()), random.Random(seed)
    running: set[asyncio.Task[None]] = set()

    async def one(name: str, data: bytes, right: set[int]) -> None:
        start = time.perf_counter()
        status, _, _ = await once(port, data)
        log.add(name, status, right, time.perf_counter() - start)

    started, n = time.monotonic(), 0
    while (now := time.monotonic()) < until:
        while n < rate * (now - started) and len(running) < IN_FLIGHT:
            name, (data, right) = rng.choice(kinds)
            task = asyncio.create_task(one(name, data, right))
            running.add(task)
            task.add_done_callback(running.discard)
            n += 1
        await asyncio.sleep(0.005)
    await asyncio.gather(*running)


async def break_connections(port: int, until: float, log: Log, body: bytes) -> None:
    """Clients that hang up, close one side, or send nothing more, some twenty a second."""
    whole = posted(body)
    parts = {
        "connects only": b"", "hangs up in the head": whole[:30], "hangs up at once": whole,
        "hangs up in the body": whole[:-9], "half closed in the body": whole[:-9],
        "half closed": whole,
    }  # fmt: skip
    for name in itertools.cycle(parts):
        if time.monotonic() >= until:
            return
        start = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        status = None
        try:
            writer.write(parts[name])
            if name.startswith("half"):
                writer.write_eof()
                status, _, _ = await read_answer(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
        log.add(name, status, {None, 200}, time.perf_counter() - start)
        await asyncio.sleep(0.05)


async def drip(port: int, until: float, log: Log, body: bytes) -> None:
    """A client that sends a byte a second: first the head at once, then the body so."""
    data = posted(body)
    at = data.index(b"\r\n\r\n") + 4
    while time.monotonic() < until:
        start = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = asyncio.ensure_future(read_answer(reader))
        writer.write(data[:at])
        for byte in data[at:]:
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.wait({answer}, timeout=1)
        status, _, _ = await answer
        writer.close()
        log.add("slow body", status, {408}, time.perf_counter() - start)


async def scraped(port: int) -> dict[str, float]:
    _, _, body = await once(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    lines = (line for line in body.decode().splitlines() if line and line[0] != "#")
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def watch(port: int, until: float, memory: list[float], files: list[float]) -> None:
    while time.monotonic() < until:
        now = await scraped(port)
        memory.append(now["process_resident_memory_bytes"] / 2**20)
        files.append(now["process_open_fds"])
        await asyncio.sleep(1)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    named = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(seconds)}
    return {"n": len(seconds)} | {k: round(1000 * v, 1) for k, v in named.items()}


async def burst(port: int, bodies: list[bytes]) -> dict[str, Any]:
    """More questions at once than the queue holds."""
    got = await asyncio.gather(*(
        once(port, posted(bodies[k % len(bodies)])) for k in range(BURST)
    ))  # fmt: skip
    told = [headers.get("retry-after") for status, headers, _ in got if status == 503]
    return {"sent": BURST, "statuses": dict(Counter(str(status) for status, *_ in got)),
            "with_retry_after": sum(t is not None for t in told)}  # fmt: skip


async def load(port: int, args: argparse.Namespace, bodies: list[bytes]) -> dict[str, Any]:
    memory: list[float] = []
    files: list[float] = []
    good = ("list only", "with reply")
    well = WellFormed(port, bodies, Log())
    await well.learn()
    alone = {k: percentiles(well.log.seconds[k]) for k in good}
    full = await burst(port, bodies)  # the largest batches: what memory they take is taken now
    calm = well.log = Log()
    await well.crowd(time.monotonic() + args.seconds / 3)
    log = well.log = Log()
    before = await scraped(port)
    start = time.monotonic()
    until = start + args.seconds
    await asyncio.gather(
        well.crowd(until),
        send_malformed(port, args.rate, until, log, 0),
        break_connections(port, until, log, bodies[0]),
        *(drip(port, until - 12, log, bodies[0]) for _ in range(4)),
        watch(port, until, memory, files),
    )
    seconds = time.monotonic() - start
    await asyncio.sleep(1)
    after = await scraped(port)
    third = max(1, len(memory) // 3)
    growth = statistics.median(memory[-third:]) - statistics.median(memory[:third])
    bad = [s for kind in malformed() for s in log.seconds[kind]]
    size = {k: after[f"pecrs_batch_requests_{k}"] - before[f"pecrs_batch_requests_{k}"]
            for k in ("sum", "count")}  # fmt: skip
    total = sum(len(times) for times in log.seconds.values())
    quiet = sum(len(calm.seconds[k]) for k in good) / (args.seconds / 3)
    return {
        "alone": {"latency_ms": alone},
        "well_formed_only": {
            "well_formed_per_second": round(quiet, 1),
            "latency_ms": {k: percentiles(calm.seconds[k]) for k in good},
        },
        "seconds": round(seconds, 1),
        "requests": total,
        "requests_per_second": round(total / seconds, 1),
        "well_formed_per_second": round(sum(len(log.seconds[k]) for k in good) / seconds, 1),
        "latency_ms": {k: percentiles(log.seconds[k]) for k in good}
        | {"malformed": percentiles(bad)},
        "batch_mean": round(size["sum"] / size["count"], 2),
        "statuses": {kind: dict(counts) for kind, counts in sorted(log.statuses.items())},
        "unexpected": dict(calm.unexpected + log.unexpected),
        "wrong_answers": len(calm.wrong) + len(log.wrong),
        "largest_score_difference": max(calm.worst_difference, log.worst_difference),
        "memory_mib": {
            "before": round(before["process_resident_memory_bytes"] / 2**20, 1),
            "after": round(after["process_resident_memory_bytes"] / 2**20, 1),
            "most": round(max(memory), 1),
            "growth_first_to_last_third": round(growth, 1),
            "each_second": [round(m) for m in memory],
        },
        "open_files": {
            "before": before["process_open_fds"], "most": max(files),
            "after": after["process_open_fds"],
        },
        "burst": full,
    }  # fmt: skip


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(0)
    bodies = []
    for d in rng.sample(load_minireel()[1]["valid"], 48):
        said = [{"role": u.role, "text": u.text} for u in d.utterances[: rng.randint(1, 8)]]
        bodies.append(json.dumps({
            "dialogue": {"id": d.id, "utterances": said}, "reply": rng.random() < PART,
        }).encode())  # fmt: skip
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pecrs_lib", "serve", "--port", str(args.port), stderr=said
        )
        try:
            while True:  # until it is ready
                try:
                    await once(args.port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                    break
                except ConnectionRefusedError:
                    assert server.returncode is None, "the server did not start"
                    await asyncio.sleep(0.2)
            report = await load(args.port, args, bodies)
            waiting = [asyncio.create_task(once(args.port, posted(b))) for b in bodies[:12]]
            await asyncio.sleep(0.3)
            start = time.monotonic()
            server.send_signal(signal.SIGINT)
            got = await asyncio.gather(*waiting)
            status = await asyncio.wait_for(server.wait(), 30)
        finally:
            if server.returncode is None:
                server.kill()
        said.seek(0)
        lines = said.read().splitlines()
    report["end"] = {
        "exit_status": status, "seconds": round(time.monotonic() - start, 1),
        "waiting": len(waiting), "statuses": dict(Counter(str(s) for s, *_ in got)),
    }  # fmt: skip
    report["log_lines_after_start"] = max(0, len(lines) - 2)
    texts = {u["text"] for body in bodies for u in json.loads(body)["dialogue"]["utterances"]}
    report["log_lines_with_text"] = sum(t in line for line in lines for t in texts if len(t) > 8)
    return report


def faults(report: dict[str, Any]) -> list[str]:
    """What must not happen."""
    growth = report["memory_mib"]["growth_first_to_last_third"]
    found = [f"unexpected {what}, {n} times" for what, n in report["unexpected"].items()]
    found += ["wrong answers"] * (report["wrong_answers"] > 0)
    found += [f"memory grew by {growth} MiB"] * (growth > GROWTH_MIB)
    refused = int(report["burst"]["statuses"].get("503", 0))
    found += ["a 503 without Retry-After"] * (report["burst"]["with_retry_after"] < refused)
    found += ["a burst met neither 200 nor 503"] * bool(
        report["burst"]["statuses"].keys() - {"200", "503"}
    )
    found += ["a waiting request got no answer"] * (report["end"]["statuses"].keys() != {"200"})
    found += ["the server did not end cleanly"] * (report["end"]["exit_status"] != 0)
    return found + ["a log holds what was said"] * (report["log_lines_with_text"] > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="of load; at least 20")
    parser.add_argument("--rate", type=float, default=250, help="malformed requests a second")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--json", type=Path, help="write the report here")
    args = parser.parse_args()
    if args.seconds < 20:
        parser.error("--seconds must be at least 20: a slow body times out after 10")
    settings = {
        "command": f"python -m tests.benchmarks.load_serve --seconds {args.seconds:g}",
        "malformed_per_second": args.rate, "well_formed_clients": CLIENTS,
        "share_with_reply": PART, "model": "checkpoints/minireel", **machine(),
        "processor": processor(), "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],  # work of others beside
    }  # fmt: skip
    report = settings | asyncio.run(measure(args))
    report["faults"] = faults(report)
    if args.json:
        write_run(report, args.json)
    print(json.dumps(report, indent=1))
    sys.exit(bool(report["faults"]))


if __name__ == "__main__":
    main()
