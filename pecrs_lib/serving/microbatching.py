"""Requests that arrive within a few milliseconds of each other, answered in one batched call.

Beside the flow, before `application`: knows nothing of models or HTTP. One worker thread takes what
waits in a bounded queue and answers it together, so a model is never called by two threads.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Busy(RuntimeError):
    """The queue is full, or the worker has been closed."""


class MicroBatcher(Generic[Q, A]):
    """A worker thread behind a queue.

    Args:
        answer: the batched call, one answer per request in their order. It runs in the worker.
        batch: most requests in one call.
        wait_s: how long, in seconds, the first request of a batch waits for others.
        waiting: most requests in the queue; those in the call are not counted.
        on_batch: told the size of each batch, in the worker.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A]],
        *,
        batch: int = 16,
        wait_s: float = 0.005,
        waiting: int = 64,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        if batch < 1 or waiting < 1 or wait_s < 0:
            raise ValueError(
                f"batch and waiting are at least 1 and wait_s at least 0, got {batch}, {waiting}, "
                f"{wait_s}"
            )
        self._answer, self._on_batch = answer, on_batch
        self._batch, self._wait_s, self._most = batch, wait_s, waiting
        self._queue: queue.SimpleQueue[tuple[Q, Future[A]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._worker = threading.Thread(target=self._run, name="micro-batches", daemon=True)
        self._worker.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._queue.qsize()

    @property
    def alive(self) -> bool:
        return self._worker.is_alive() and not self._closed

    def submit(self, request: Q) -> Future[A]:
        """The answer to come. A future that is cancelled while it waits is not computed.

        Raises:
            Busy: the queue is full or closed.
        """
        with self._lock:
            if self._closed:
                raise Busy("closed")
            if self._queue.qsize() >= self._most:
                raise Busy(f"{self._most} requests are waiting")
            future: Future[A] = Future()
            self._queue.put((request, future))
        return future

    def close(self, timeout_s: float | None = None) -> None:
        """Answer what waits, then end the worker; further requests raise `Busy`."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._worker.join(timeout_s)

    def _run(self) -> None:
        ended = False
        while not ended:
            jobs, ended = self._gather()
            jobs = [job for job in jobs if job[1].set_running_or_notify_cancel()]
            if jobs:
                self._on_batch(len(jobs))
                self._settle(jobs)
            del jobs  # what was asked is not held while nothing is asked

    def _gather(self) -> tuple[list[tuple[Q, Future[A]]], bool]:
        """The next batch, and whether the queue has ended with it."""
        job = self._queue.get()
        jobs: list[tuple[Q, Future[A]]] = []
        until = time.monotonic() + self._wait_s
        while job is not None:
            jobs.append(job)
            if len(jobs) == self._batch:
                return jobs, False
            try:
                job = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _settle(self, jobs: Sequence[tuple[Q, Future[A]]]) -> None:
        try:
            answers = self._answer([request for request, _ in jobs])
            pairs = list(zip(jobs, answers, strict=True))
        except Exception as error:
            if len(jobs) == 1:
                jobs[0][1].set_exception(error)
                return
            for job in jobs:  # so that one bad request fails alone
                self._settle([job])
        else:
            for (_, future), answer in pairs:
                future.set_result(answer)
