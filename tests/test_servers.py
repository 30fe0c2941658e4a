"""The client against a real HTTP server in a thread: trouble, retries, cache, and the key."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pecrs_lib.zero_shot.answers import AnswerCache, Question
from pecrs_lib.zero_shot.servers import ServerError, ServerModel

KEY = "sk-not-a-real-key-0123456789"
QUESTIONS = [Question(0, t, (("user", f"question {t}"),)) for t in range(6)]
Reply = tuple[int, dict[str, str], bytes]


def completion(text: str | None) -> Reply:
    return 200, {}, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


class Server:
    """Answers as `respond` says: (number of the request, body) → status, headers, content."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.respond: Callable[[int, dict[str, Any]], Reply] = lambda _, body: completion(
            "answer to " + body["messages"][-1]["content"]
        )
        self.active = self.most_active = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.requests.append((dict(self.headers), body | {"path": self.path}))
                    number = len(outer.requests)
                    outer.active += 1
                    outer.most_active = max(outer.most_active, outer.active)
                status, headers, content = outer.respond(number, body)
                with lock:
                    outer.active -= 1
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that gave up waiting

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def stop(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def waits() -> list[float]:
    return []


def client(server: Server, waits: list[float], **settings: Any) -> ServerModel:
    return ServerModel(server.url, "m", **{"sleep": waits.append, "retries": 3} | settings)


def test_answers_in_the_order_of_the_questions(server: Server, waits: list[float]) -> None:
    model = client(server, waits)
    assert model.answer(QUESTIONS) == [f"answer to question {t}" for t in range(6)]
    headers, body = server.requests[0]
    assert body["path"] == "/v1/chat/completions" and "Authorization" not in headers
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 512)
    assert model.name == "m" and waits == []
    assert model.answer([]) == []


def test_no_more_requests_at_a_time_than_allowed(server: Server, waits: list[float]) -> None:
    def slowly(_: int, body: dict[str, Any]) -> Reply:
        time.sleep(0.05)
        return completion("x")

    server.respond = slowly
    client(server, waits, concurrency=2).answer(QUESTIONS)
    assert server.most_active == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server: Server, waits: list[float], status: int) -> None:
    server.respond = lambda n, _: (status, {}, b"later") if n < 3 else completion("Up")
    assert client(server, waits).answer(QUESTIONS[:1]) == ["Up"]
    assert waits == [1.0, 2.0] and len(server.requests) == 3


def test_retry_after_goes_before_and_is_bounded(server: Server, waits: list[float]) -> None:
    after = {1: "7", 2: "9999", 3: "Wed, 21 Oct 2026 07:28:00 GMT"}
    server.respond = lambda n, _: (
        (429, {"Retry-After": after[n]}, b"") if n < 4 else completion("Up")
    )
    assert client(server, waits).answer(QUESTIONS[:1]) == ["Up"]
    assert waits == [7.0, 60.0, 4.0]


@pytest.mark.parametrize(
    "content",
    [b"<html>not json", b'{"choices": []}', b"[]", b'{"choices": [{"message": null}]}', b"\xff"],
)
def test_what_is_no_completion_is_asked_again_then_raises(
    server: Server, waits: list[float], content: bytes
) -> None:
    server.respond = lambda *_: (200, {}, content)
    with pytest.raises(ServerError, match=r"dialogue 0, turn 0: no chat completion.*, 4 times"):
        client(server, waits).answer(QUESTIONS[:1])
    assert len(server.requests) == 4 and waits == [1.0, 2.0, 4.0]


def test_an_empty_answer_is_an_answer(server: Server, waits: list[float]) -> None:
    server.respond = lambda *_: completion(None)
    assert client(server, waits).answer(QUESTIONS[:1]) == [""]


def test_time_out(server: Server, waits: list[float]) -> None:
    free = threading.Event()

    def hang(number: int, _: dict[str, Any]) -> Reply:
        if number == 1:
            free.wait(5)
        return completion("Up")

    server.respond = hang
    try:
        started = time.monotonic()
        made = client(server, waits, timeout_s=(1.0, 0.2)).answer(QUESTIONS[:1])
        assert made == ["Up"] and waits == [1.0] and time.monotonic() - started < 4
        server.respond = lambda *_: (free.wait(5), completion("x"))[1]
        with pytest.raises(ServerError, match="no answer within"):
            client(server, waits, timeout_s=(1.0, 0.2), retries=0).answer(QUESTIONS[1:2])
    finally:
        free.set()


def test_no_server(waits: list[float], server: Server) -> None:
    model = client(server, waits, retries=1)
    server.http.server_close()
    with pytest.raises(ServerError, match="no connection"):
        model.answer(QUESTIONS[:1])
    assert waits == [1.0]


def test_refusals_are_final(server: Server, waits: list[float]) -> None:
    server.respond = lambda *_: (404, {}, b"no such model" + b"!" * 500)
    with pytest.raises(ServerError, match="status 404: no such model") as caught:
        client(server, waits).answer(QUESTIONS[:1])
    assert len(server.requests) == 1 and len(str(caught.value)) < 400


def test_redirects_are_not_followed(server: Server, waits: list[float]) -> None:
    server.respond = lambda *_: (302, {"Location": "http://127.0.0.1:9/elsewhere"}, b"")
    with pytest.raises(ServerError, match="status 302"):
        client(server, waits).answer(QUESTIONS[:1])


def test_the_cache_answers_without_the_network(
    server: Server, waits: list[float], tmp_path: Path
) -> None:
    path = tmp_path / "answers.jsonl"
    model = client(server, waits, cache=AnswerCache(path))
    first = model.answer(QUESTIONS[:4])
    server.respond = lambda *_: (500, {}, b"down")
    again = client(server, waits, cache=AnswerCache(path), retries=0)
    assert again.answer(QUESTIONS[:4]) == first and len(server.requests) == 4
    with pytest.raises(ServerError):
        again.answer(QUESTIONS)
    assert len(AnswerCache(path)) == 4


def test_what_was_answered_before_a_failure_is_kept(
    server: Server, waits: list[float], tmp_path: Path
) -> None:
    server.respond = lambda n, _: completion("Up") if n < 3 else (400, {}, b"enough")
    cache = AnswerCache(tmp_path / "answers.jsonl")
    with pytest.raises(ServerError, match="400"):
        client(server, waits, cache=cache, concurrency=1).answer(QUESTIONS)
    assert len(cache) == 2
    assert len(server.requests) < len(QUESTIONS)  # the rest was not asked


def test_the_key_is_sent_and_shown_nowhere(
    server: Server,
    waits: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SOME_KEY", KEY)
    path = tmp_path / "answers.jsonl"
    model = client(server, waits, key_variable="SOME_KEY", cache=AnswerCache(path))
    model.answer(QUESTIONS[:2])
    assert server.requests[0][0]["Authorization"] == f"Bearer {KEY}"
    server.respond = lambda *_: (401, {}, f"wrong key {KEY}".encode())
    with pytest.raises(ServerError, match=r"wrong key \[key\]") as caught:
        model.answer(QUESTIONS)
    chain, error = [], caught.value
    while error is not None:
        chain.append(repr(error) + str(error))
        error = error.__cause__ or error.__context__
    everywhere = "".join([*chain, repr(model), str(vars(model)), caplog.text, path.read_text()])
    assert KEY not in everywhere and "not-a-real" not in everywhere


def test_a_missing_key_stops_before_the_first_request(
    server: Server, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ValueError, match="SOME_KEY holds no key"):
        client(server, waits, key_variable="SOME_KEY").answer(QUESTIONS[:1])
    assert server.requests == []


@pytest.mark.parametrize("bad", [f"{KEY}\nX-More: 1", f"{KEY} two", f"{KEY}\u20ac"])
def test_a_key_that_no_header_takes_is_shown_nowhere(
    server: Server, waits: list[float], monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    """The HTTP client would quote such a header, and the key in it, in its own error."""
    monkeypatch.setenv("SOME_KEY", bad)
    with pytest.raises(ValueError, match="SOME_KEY holds") as caught:
        client(server, waits, key_variable="SOME_KEY").answer(QUESTIONS[:1])
    chain = f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}"
    assert "not-a-real" not in chain and server.requests == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://me:secret@host/v1", "no user, password"),
        ("http://host/v1?api-key=secret", "no user, password"),
        ("file:///v1", "file:///v1"),
        ("host/v1", "host/v1"),
    ],
)
def test_addresses_are_checked(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ServerModel(url, "m")
    assert "secret" not in str(caught.value)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="got 0 and"):
        ServerModel("http://host/v1", "m", concurrency=0)
