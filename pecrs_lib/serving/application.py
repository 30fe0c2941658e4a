"""A trained model behind HTTP: FastAPI over `microbatching` and `service`.

Beside `chat`: both put a trained model into use. Needs the extra ``serve``.

Bad input is a 4xx that names the field; a full queue is a 503 that says when to come back. What
people write stands in no log: of an error its type and its place are logged, never its message.
Meant for this machine, or to stand behind a reverse proxy, which adds TLS, passwords and a limit
on the time that a client takes for its headers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pecrs_lib import __version__
from pecrs_lib.serving.microbatching import Busy, MicroBatcher
from pecrs_lib.serving.service import Answer, Question

MAX_BODY = 64 * 1024  # bytes; holds the longest text allowed with every letter escaped
BODY_S = 10.0  # seconds that a client may take to send its body
RETRY_S = 1  # a full queue is empty after a few seconds; a place in it is free sooner
SHOWN_ERRORS, SHOWN_NAME = 20, 100  # of a refusal: errors, and characters of a field's name
PATHS = ("/recommend", "/health", "/metrics", "/openapi.json")
HUNG_UP = 499  # nginx's number for a client that did not wait; stands in the metrics only
FAULT = "a fault of the server; its log says where"
log = logging.getLogger(__name__)


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


class FieldProblem(BaseModel):
    """What is wrong with one field: where it stands, in words, and the kind of error."""

    loc: list[str | int]
    msg: str
    type: str


class Refusal(BaseModel):
    """What is wrong with a request, field by field."""

    detail: list[FieldProblem]


class Health(BaseModel):
    """`items` can be recommended; `waiting` requests are in the queue."""

    status: str
    version: str
    items: int
    waiting: int


class Metrics:
    """Counts and times for Prometheus, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, processor time, open files
        self.answers = Counter(
            "pecrs_http_answers", "Answers by path and status.", ["path", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "pecrs_recommend_seconds", "From a whole, valid request for items to its answer.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25), registry=self.registry,
        )  # fmt: skip
        self.batch = Histogram(
            "pecrs_batch_requests", "Requests answered in one call of the model.",
            buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry,
        )  # fmt: skip
        self.waiting = Gauge(
            "pecrs_waiting_requests", "Requests in the queue.", registry=self.registry
        )


class Guard:
    """ASGI middleware: bodies of bounded size and time, no answer for whoever hung up, counts."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # start and end of the server
            await self.app(scope, receive, send)
            return
        status = HUNG_UP

        async def counted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            body = await read_body(scope, receive)
            if body is not None:
                await self._answer(scope, body, receive, counted)
        except HTTPException as error:
            refusal = JSONResponse({"detail": error.detail}, error.status_code, error.headers)
            await refusal(scope, receive, counted)
        except Exception as error:
            log.error("no answer: %s", place_of(error))
            if status == HUNG_UP:  # nothing was sent yet
                await JSONResponse({"detail": FAULT}, 500)(scope, receive, counted)
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.metrics.answers.labels(path, str(status)).inc()

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(receive())  # all that a client can still tell
        bodies = iter([body])

        async def replay() -> Message:
            for content in bodies:
                return {"type": "http.request", "body": content, "more_body": False}
            return await asyncio.shield(gone)

        answer = asyncio.ensure_future(self.app(scope, replay, send))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            answer.cancel()  # no effect on one that is done
        (problem,) = await asyncio.gather(answer, return_exceptions=True)
        if isinstance(problem, Exception):
            raise problem


async def read_body(scope: Scope, receive: Receive) -> bytes | None:
    """The body of a request; None when the client hangs up before its end.

    Raises:
        HTTPException: 413 for more than `MAX_BODY` bytes, 408 after `BODY_S` seconds.
    """
    too_long = HTTPException(413, f"a body has at most {MAX_BODY} bytes")
    declared = Headers(scope=scope).get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                if len(body) > MAX_BODY:
                    raise too_long
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise HTTPException(
            408, f"the body took longer than {BODY_S:g} s", {"Connection": "close"}
        ) from None


def place_of(error: BaseException) -> str:
    """Type and place of an error: its message may hold what somebody wrote."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{at}"


async def refuse(request: Request, error: Exception) -> Response:
    """422 with the names of the fields, and without what stood in them."""
    assert isinstance(error, RequestValidationError)
    detail = [
        {
            "loc": [p if isinstance(p, int) else p[:SHOWN_NAME] for p in e["loc"]],
            "msg": e["msg"],
            "type": e["type"],
        }
        for e in error.errors()[:SHOWN_ERRORS]
    ]
    # ASCII: the name of a field may be half a surrogate pair, which is no UTF-8
    return Response(json.dumps({"detail": detail}), 422, media_type="application/json")


def create_app(
    answer: Callable[[Sequence[Question]], Sequence[Answer]],
    items: int,
    *,
    batch: int = 16,
    wait_s: float = 0.005,
    waiting: int = 64,
) -> FastAPI:
    """The application.

    Args:
        answer: a `service.Service`.
        items: size of its catalogue.
        batch, wait_s, waiting: see `microbatching.MicroBatcher`.
    """
    metrics = Metrics()
    batcher: MicroBatcher[Question, Answer] = MicroBatcher(
        answer, batch=batch, wait_s=wait_s, waiting=waiting, on_batch=metrics.batch.observe
    )
    metrics.waiting.set_function(lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(
        title="PECRS",
        version=__version__,
        description="Items to recommend next in a dialogue, and the recommender's reply.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere; /openapi.json says it all
        redoc_url=None,
    )
    app.add_middleware(Guard, metrics=metrics)
    app.add_exception_handler(RequestValidationError, refuse)
    problems: dict[int | str, dict[str, object]] = {
        400: {"model": Problem, "description": "The body is no JSON."},
        408: {"model": Problem, "description": f"The body took longer than {BODY_S:g} s."},
        413: {"model": Problem, "description": f"The body has more than {MAX_BODY} bytes."},
        422: {"model": Refusal, "description": "A field is missing, unknown or wrong."},
        500: {"model": Problem, "description": "A fault of the server."},
        503: {"model": Problem, "description": "Too many requests wait; see Retry-After."},
    }

    @app.post("/recommend", responses=problems)
    async def recommend(question: Question) -> Answer:
        """The items to recommend next in a dialogue, best first, and the reply if asked for."""
        began = time.perf_counter()
        try:
            found = await asyncio.wrap_future(batcher.submit(question))
        except Busy:
            raise HTTPException(
                503, "too many requests wait", {"Retry-After": str(RETRY_S)}
            ) from None
        except Exception as error:
            log.error("no answer: %s", place_of(error))
            raise HTTPException(500, FAULT) from None
        metrics.seconds.observe(time.perf_counter() - began)
        return found

    @app.get("/health", responses={503: {"model": Health, "description": "Not able to answer."}})
    async def health(response: Response) -> Health:
        """Whether the server can answer."""
        response.status_code = 200 if batcher.alive else 503
        return Health(
            status="ok" if batcher.alive else "down", version=__version__, items=items,
            waiting=batcher.waiting,
        )  # fmt: skip

    @app.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """Counts, times and memory, as Prometheus reads them."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app
