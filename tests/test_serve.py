"""Serving: an answer from a batch equals the answer alone, bad input is a 4xx, nothing leaks."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pecrs_lib.data.matching import TitleIndex, normalise
from pecrs_lib.decoding import GREEDY
from pecrs_lib.generation import respond
from pecrs_lib.recommend import recommend
from pecrs_lib.serving.microbatching import Busy, MicroBatcher
from pecrs_lib.transcript import find_items, say_as
from tests.test_cli import complaint, pecrs
from tests.test_one_pass import build
from tests.toys import toy_catalogue

pytest.importorskip("fastapi", reason='needs pip install "pecrs_lib[serve]"')

from fastapi.testclient import TestClient

from pecrs_lib.cli.serve import server_of
from pecrs_lib.data import Dialogue
from pecrs_lib.serving import application
from pecrs_lib.serving.service import (
    EXAMPLE,
    MAX_CHARACTERS,
    MAX_TEXT,
    MAX_TOP,
    MAX_UTTERANCES,
    Answer,
    Question,
    Service,
)
from tests.benchmarks.load_serve import faults, malformed

HELLO = {"role": "seeker", "text": "something scary with robots"}


def asked(*utterances, **more):
    return {"dialogue": {"utterances": list(utterances) or [HELLO]}, **more}


def plain(dialogue, length=None):
    """The first utterances of a dialogue as a client writes them."""
    return [
        {
            "role": u.role, "text": u.text,
            "mentions": [{"item": m.item, "start": m.start, "end": m.end} for m in u.mentions],
        }
        for u in dialogue.utterances[:length]
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny_backbone, catalogue):
    model, features = build(
        tiny_backbone, catalogue, rerank_from_retrieval=True, candidates=12, response_tokens=8
    )
    return model, catalogue, model.encode_catalogue(features)


@pytest.fixture(scope="module")
def client(trained):
    service = Service(*trained)
    with TestClient(
        application.create_app(service, len(trained[1]), batch=8, wait_s=0.2)
    ) as client:
        yield client


def at_once(client, questions):
    """Answers to questions that arrive together, each from a thread of its own."""
    with ThreadPoolExecutor(len(questions)) as pool:
        return list(pool.map(lambda q: client.post("/recommend", json=q), questions))


def counted(client, name):
    """A number of /metrics."""
    (line,) = (x for x in client.get("/metrics").text.splitlines() if x.startswith(f"{name} "))
    return float(line.split()[1])


def check(answer, found, reply=None):
    """Against recommendations of the library, made alone."""
    got = answer["recommendations"]
    assert [r["id"] for r in got] == [r.movie.id for r in found]
    assert [r["place"] for r in got] == list(range(1, len(found) + 1))
    for key in ("score", "distance", "retrieved"):
        assert [r[key] for r in got] == pytest.approx([getattr(r, key) for r in found], abs=1e-5)
    if reply is None:
        assert answer["reply"] is None
    else:
        assert answer["reply"]["text"] == reply.text
        assert answer["reply"]["recommended"] == (reply.recommended and reply.recommended.movie.id)
        assert answer["reply"]["opens_with_rec"] == pytest.approx(reply.opens_with_rec, abs=1e-5)


def test_an_answer_from_a_batch_equals_the_answer_alone(client, trained, dialogues):
    model, catalogue, v = trained
    kinds = [
        {}, {"top": 3}, {"reply": True}, {"reply": True, "always_recommend": True, "top": 1},
        {"exclude_mentioned": True}, {"always_recommend": True},
    ]  # fmt: skip
    histories = [
        Dialogue(d.id, d.utterances[: 1 + k % len(d)]) for k, d in enumerate(dialogues * 3)
    ]
    questions = [
        {"dialogue": {"id": h.id, "utterances": plain(h)}, **kinds[k % len(kinds)]}
        for k, h in enumerate(histories)
    ]
    before = counted(client, "pecrs_batch_requests_count")
    answers = at_once(client, questions)
    assert counted(client, "pecrs_batch_requests_count") - before < len(questions) / 2  # batched
    seen = set()
    for history, question, response in zip(histories, questions, answers, strict=True):
        assert response.status_code == 200, response.text
        answer, new = response.json(), question.get("exclude_mentioned", False)
        top = question.get("top", 10)
        (found,) = recommend(model, [history], catalogue, v, top=top, exclude_mentioned=new)
        reply = None
        if "reply" in question:
            always = question.get("always_recommend", False)
            (reply,) = respond(
                model, [history], catalogue, v, top=MAX_TOP, always_recommend=always, **GREEDY
            )
        check(answer, found, reply)
        assert answer["dialogue"] == history.id
        assert answer["mentioned"] == sorted(history.mentioned_before(len(history)))
        if new:
            assert not set(answer["mentioned"]) & {r["id"] for r in answer["recommendations"]}
        seen.add(tuple(r["score"] for r in answer["recommendations"]))
    assert len(seen) > len(kinds)  # one person's answer would be noticed in another's


def test_a_question_that_wants_few_items_takes_none_from_its_batch(trained):
    service = Service(*trained)
    for more in ({"reply": True, "always_recommend": True}, {}):
        questions = [Question.model_validate(asked(top=top, **more)) for top in (1, 10, 4)]
        few, many, some = service(questions)
        assert [len(a.recommendations) for a in (few, many, some)] == [1, 10, 4]
        assert few.recommendations == many.recommendations[:1]
        assert few.reply == many.reply == some.reply


def test_films_are_recognised_unless_the_client_says_which(client, catalogue):
    film, other = catalogue[3], catalogue[5]
    text = f'I loved "{film.title}".'
    start = text.index(film.title)
    span = {"item": film.id, "start": start, "end": start + len(film.title)}
    found = client.post("/recommend", json=asked({"role": "seeker", "text": text})).json()
    assert found["mentioned"] == [film.id]
    for mentions, named in [([], []), ([span], [film.id]), ([other.id], [other.id])]:
        said = {"role": "seeker", "text": text, "mentions": mentions}
        answer = client.post("/recommend", json=asked(said)).json()
        assert answer["mentioned"] == named
        same = answer["recommendations"] == found["recommendations"]
        assert same == (mentions == [span])
    user = client.post("/recommend", json=asked({"role": "user", "text": text})).json()
    assert user["recommendations"] == found["recommendations"]
    unknown = client.post("/recommend", json=asked({**HELLO, "mentions": ["elsewhere"]})).json()
    assert (unknown["mentioned"], unknown["unknown"]) == ([], ["elsewhere"])
    assert unknown["cut"] == 0
    long = client.post("/recommend", json=asked({"role": "seeker", "text": "scary " * 300})).json()
    assert long["cut"] == 1


@pytest.mark.parametrize("token", ["[REC]", "[ITEM]", "[SEP]", "[REC_END]", "<|endoftext|>"])
def test_special_tokens_in_a_text_stay_text(client, trained, token):
    model, catalogue, v = trained
    tok = model.backbone.tokenizer
    text = f"i like scary {token} robots"
    assert not {*tok.special_ids, tok.eos} & set(tok.encode([text])[0])
    answer = client.post("/recommend", json=asked({"role": "seeker", "text": text})).json()
    (found,) = recommend(model, [Dialogue("", (say_as("seeker", text, catalogue),))], catalogue, v)
    check(answer, found)
    assert answer["mentioned"] == []
    without = client.post(
        "/recommend", json=asked({"role": "seeker", "text": text.replace(token, "")})
    ).json()
    assert without["recommendations"] != answer["recommendations"]  # it was read, as text


UTTERANCE = ["body", "dialogue", "utterances", 0]
REFUSED = {
    "nothing": ({}, ["body", "dialogue"]),
    "no list": ({"dialogue": {"utterances": "hello"}}, UTTERANCE[:3]),
    "no utterance": ({"dialogue": {"utterances": []}}, UTTERANCE[:3]),
    "too many": ({"dialogue": {"utterances": [HELLO] * (MAX_UTTERANCES + 1)}}, UTTERANCE[:3]),
    "unknown field": (asked(tpo=3), ["body", "tpo"]),
    "unknown field inside": (asked({**HELLO, "txt": ""}), [*UTTERANCE, "txt"]),
    "role": (asked({**HELLO, "role": "assistant"}), [*UTTERANCE, "role"]),
    "number for text": (asked({**HELLO, "text": 3}), [*UTTERANCE, "text"]),
    "empty text": (asked({**HELLO, "text": ""}), [*UTTERANCE, "text"]),
    "long text": (asked({**HELLO, "text": "x" * (MAX_CHARACTERS + 1)}), [*UTTERANCE, "text"]),
    "top as text": (asked(top="5"), ["body", "top"]),
    "top as truth": (asked(top=True), ["body", "top"]),
    "top 0": (asked(top=0), ["body", "top"]),
    "top too high": (asked(top=MAX_TOP + 1), ["body", "top"]),
    "reply as number": (asked(reply=1), ["body", "reply"]),
    "span outside": (
        asked({**HELLO, "mentions": [{"item": "m1", "start": 0, "end": 99}]}), UTTERANCE,
    ),
    "span backwards": (
        asked({**HELLO, "mentions": [{"item": "m1", "start": 4, "end": 2}]}), UTTERANCE,
    ),
    "half a span": (asked({**HELLO, "mentions": [{"item": "m1", "start": 4}]}), UTTERANCE),
    "long dialogue": (
        asked(*[{**HELLO, "text": "x" * MAX_CHARACTERS}] * (MAX_TEXT // MAX_CHARACTERS + 1)),
        ["body", "dialogue"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_fields_are_named(client, name):
    question, place = REFUSED[name]
    response = client.post("/recommend", json=question)
    assert response.status_code == 422
    problem = response.json()["detail"][0]
    assert problem["loc"][: len(place)] == place and problem["msg"]
    assert set(problem) == {"loc", "msg", "type"}  # not what stood there


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff", b"[" * 30_000, b'{"top": ' + b"9" * 5000 + b"}", b"null", b"[]",
        b'{"top": 1e999, "dialogue": NaN}', b'{"\\ud800": 1}', b'"\\ud800"',
        b'{"dialogue": {"utterances": [{"role": "seeker", "text": "\\ud800"}]}}',
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(client, body):
    response = client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["detail"]
    assert len(response.content) < 10_000


def test_the_limits_leave_room_for_what_they_allow(client):
    """The longest dialogue in the most wasteful encoding is below the limit of the body."""
    text = "é" * MAX_CHARACTERS  # escaped, six bytes each
    question = asked(*[{**HELLO, "text": text}] * (MAX_TEXT // MAX_CHARACTERS))
    body = json.dumps(question).encode()
    assert MAX_TEXT * 6 < len(body) < application.MAX_BODY
    answer = client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200


def test_bodies_too_long_are_not_read(client):
    assert client.post("/recommend", content=b" " * (application.MAX_BODY + 1)).status_code == 413
    read = []

    def pieces():
        for _ in range(100):
            read.append(1)
            yield b" " * 1024

    assert client.post("/recommend", content=pieces()).status_code == 413
    assert client.get("/recommend").status_code == 405
    assert client.post("/elsewhere", content=b"x").status_code == 404
    counts = client.get("/metrics").text
    assert 'pecrs_http_answers_total{path="other",status="404"}' in counts
    assert "elsewhere" not in counts


def run_app(app, messages, headers=()):
    """Call an ASGI application with these messages, then silence; the messages it sends."""
    sent = []
    left = list(messages)

    async def receive():
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/recommend", "query_string": b"",
        "headers": [(b"content-type", b"application/json"), *headers],
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 10))
    return sent


class Slow:
    """Answers in the place of a model: waits until it is told to go on."""

    def __init__(self):
        self.go, self.asked = threading.Event(), []

    def __call__(self, questions):
        self.asked += [q.dialogue.id for q in questions]
        assert self.go.wait(10)
        if any(q.dialogue.id == "bad" for q in questions):
            raise RuntimeError("text of the seeker")
        nothing = {"mentioned": [], "unknown": [], "cut": 0, "recommendations": [], "reply": None}
        return [Answer(dialogue=q.dialogue.id, **nothing) for q in questions]


def question(name):
    return {"dialogue": {"id": name, "utterances": [HELLO]}}


def until(true, seconds=5):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_body_that_does_not_come_times_out(monkeypatch):
    monkeypatch.setattr(application, "BODY_S", 0.05)
    app = application.create_app(Slow(), 1)
    sent = run_app(app, [{"type": "http.request", "body": b"{", "more_body": True}])
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert run_app(app, [{"type": "http.disconnect"}]) == []


def test_who_hangs_up_is_not_computed_for():
    slow = Slow()
    app = application.create_app(slow, 1, batch=1)
    with TestClient(app) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/recommend", json=question("first"))
        until(lambda: slow.asked)  # the worker is busy
        body = json.dumps(question("gone")).encode()
        messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]
        assert run_app(app, messages) == []
        last = pool.submit(client.post, "/recommend", json=question("last"))
        slow.go.set()
        assert (first.result().status_code, last.result().status_code) == (200, 200)
        assert slow.asked == ["first", "last"]
        assert 'status="499"} 1.0' in client.get("/metrics").text


def test_a_full_queue_says_when_to_come_back():
    slow = Slow()
    app = application.create_app(slow, 1, batch=1, waiting=2)
    with TestClient(app) as client, ThreadPoolExecutor() as pool:
        taken = [pool.submit(client.post, "/recommend", json=question("0"))]
        until(lambda: slow.asked)
        taken += [pool.submit(client.post, "/recommend", json=question(str(k))) for k in (1, 2)]
        until(lambda: client.get("/health").json()["waiting"] == 2)
        full = client.post("/recommend", json=question("3"))
        assert full.status_code == 503 and int(full.headers["retry-after"]) >= 1
        assert counted(client, "pecrs_waiting_requests") == 2
        assert client.get("/health").status_code == 200
        slow.go.set()
        assert [t.result().status_code for t in taken] == [200] * 3
    assert sorted(slow.asked) == ["0", "1", "2"]


def test_one_failure_stays_alone_and_its_text_out_of_the_log(caplog):
    slow = Slow()
    with (
        caplog.at_level(logging.DEBUG),
        TestClient(application.create_app(slow, 1, wait_s=0.2)) as client,
    ):
        slow.go.set()
        answers = at_once(client, [question(name) for name in ("a", "bad", "c")])
        assert [a.status_code for a in answers] == [200, 500, 200]
        assert client.get("/health").json()["status"] == "ok"
        assert client.post("/recommend", json=question("again")).status_code == 200
    assert {"a", "bad", "c"} <= set(slow.asked[:3])  # they were one batch
    assert "RuntimeError in test_serve.py" in caplog.text
    assert "seeker" not in caplog.text + "".join(a.text for a in answers)


def test_a_closed_worker_is_told_by_health():
    slow = Slow()
    slow.go.set()
    app = application.create_app(slow, 1)
    with TestClient(app) as client:
        assert client.get("/health").status_code == 200
    gone = TestClient(app)  # after the end
    assert gone.get("/health").status_code == 503
    assert gone.post("/recommend", json=question("late")).status_code == 503


def test_the_schema_describes_every_field_and_its_example_works(client):
    schema = client.get("/openapi.json").json()
    parts = schema["components"]["schemas"]
    assert parts["Question"]["examples"] == [EXAMPLE]
    assert Question.model_validate(EXAMPLE)
    assert client.post("/recommend", json=EXAMPLE).json()["reply"]["text"]
    assert set(schema["paths"]) == {"/recommend", "/health", "/metrics"}
    assert {"413", "422", "503"} <= set(schema["paths"]["/recommend"]["post"]["responses"])
    fields = parts["Question"]["properties"]
    assert all(f.get("description") or "$ref" in f for f in fields.values())
    assert fields["top"]["maximum"] == MAX_TOP
    assert parts["UtteranceIn"]["properties"]["text"]["maxLength"] == MAX_CHARACTERS


def test_micro_batches_hold_what_waits_and_no_more():
    sizes, release = [], threading.Event()

    def double(requests):
        assert release.wait(10)
        return [2 * r for r in requests]

    batcher = MicroBatcher(double, batch=4, wait_s=0.1, waiting=100, on_batch=sizes.append)
    futures = [batcher.submit(k) for k in range(10)]
    release.set()
    assert [f.result(5) for f in futures] == [2 * k for k in range(10)]
    assert sizes == [4, 4, 2]
    batcher.submit(1)
    batcher.close(5)
    assert sizes[-1] == 1 and not batcher.alive  # what waited was answered
    with pytest.raises(Busy):
        batcher.submit(2)
    with pytest.raises(ValueError, match="at least 1"):
        MicroBatcher(double, batch=0)


def test_titles_are_found_alike_with_an_index_and_caches_stay_bounded(catalogue):
    text = " and ".join(f'"{movie.title}"' for movie in catalogue)
    index = TitleIndex(catalogue)
    assert len(find_items(text, catalogue)) > 10
    assert find_items(text, catalogue, index) == find_items(text, catalogue)
    assert find_items(text, catalogue, TitleIndex(toy_catalogue(0))) == ()  # it is used
    assert normalise.cache_info().maxsize is not None


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_the_command_serves_and_ends(host, warned, monkeypatch, trained):
    import uvicorn

    from pecrs_lib.cli import trained as loading

    model, catalogue, v = trained
    monkeypatch.setattr(loading, "load_ready", lambda *_: loading.Ready(None, model, catalogue, v))

    class Ended(uvicorn.Server):
        def run(self, sockets=None):
            self.config.load()
            assert self.config.access_log is False and self.config.limit_concurrency
            with TestClient(self.config.app) as client:
                assert client.post("/recommend", json=EXAMPLE).status_code == 200
            raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn, "Server", Ended)
    said = pecrs("serve", "--host", host, "--port", "0").stderr.splitlines()
    assert f"listening on http://{host}:" in said[-1]
    assert len(said) == 1 + warned and ("no password" in said[0]) == warned


def test_a_taken_port_and_a_missing_extra_are_said_in_a_line(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in complaint("serve", "--port", port)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 'pip install "pecrs_lib[serve]"' in complaint("serve")


def test_a_real_server_answers_beside_broken_connections_and_ends(caplog):
    slow = Slow()
    slow.go.set()
    server = server_of(application.create_app(slow, 1))
    head = b"POST /recommend?secret HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

    def whole(name):
        body = json.dumps(question(name)).encode()
        return head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def talk(data, read=True, half=False):
        with socket.create_connection(address, 5) as wire:
            wire.sendall(data)
            if half:
                wire.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: wire.recv(65536), b"")) if read else b""

    with socket.socket() as listener, caplog.at_level(logging.DEBUG):
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        until(lambda: server.started)
        assert talk(whole("secret")).startswith(b"HTTP/1.1 200")
        assert talk(b"secret nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
        assert talk(b"GET /" + b"secret" * 20_000 + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 4")
        talk(head + b"Content-Length: 100\r\n\r\n{", read=False)
        talk(head + b"Content-Length: 100\r\n\r\n{", half=True)
        talk(whole("secret"), read=False)
        assert talk(whole("bad")).startswith(b"HTTP/1.1 500")
        assert talk(head + b"Content-Length: 99999\r\nConnection: close\r\n\r\n").startswith(
            b"HTTP/1.1 413"
        )
        assert talk(whole("again")).startswith(b"HTTP/1.1 200")
        for name, (data, right) in malformed().items():
            answer = talk(data)
            assert int(answer.split()[1]) in right, name
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
    assert "RuntimeError in test_serve.py" in caplog.text
    assert "secret" not in caplog.text and "seeker" not in caplog.text
    with pytest.raises(OSError):
        talk(b"")


def test_the_load_test_notices_faults():
    good = {
        "unexpected": {}, "wrong_answers": 0, "memory_mib": {"growth_first_to_last_third": 1.0},
        "burst": {"statuses": {"200": 9, "503": 2}, "with_retry_after": 2},
        "end": {"statuses": {"200": 3}, "exit_status": 0}, "log_lines_with_text": 0,
    }  # fmt: skip
    assert faults(good) == []
    for name, bad in {
        "unexpected": {"top: 500": 1}, "wrong_answers": 1,
        "memory_mib": {"growth_first_to_last_third": 99.0},
        "burst": {"statuses": {"200": 9, "503": 2}, "with_retry_after": 1},
        "end": {"statuses": {"None": 3}, "exit_status": 0}, "log_lines_with_text": 1,
    }.items():  # fmt: skip
        assert len(faults(good | {name: bad})) == 1, name
    assert len(faults(good | {"burst": {"statuses": {"500": 1}, "with_retry_after": 0}})) == 1
