"""A server that speaks OpenAI's chat-completions protocol, as a source of answers.

Beside `language_models.py`, with the same interface (`answers.AnswerSource`): vLLM, Ollama,
llama.cpp and most commercial services serve it. Requests have time-outs, are tried again when the
server is busy or broken, and run a few at a time; answers are kept on disk. A key is read from an
environment variable at the moment it is sent, so it stands in no object, file, log or message.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from pecrs_lib.zero_shot.answers import AnswerCache, Question

BUSY = (408, 409, 425, 429, 500, 502, 503, 504)  # worth another try
LONGEST_WAIT_S = 60.0
_SHOWN = 200  # characters of a server's error text


class ServerError(RuntimeError):
    """The server refused, kept failing, or sent something that is no chat completion."""


class _Bearer(requests.auth.AuthBase):
    """Sends the key of a variable, if one is named; so `requests` looks into no .netrc either."""

    def __init__(self, variable: str | None) -> None:
        self.variable = variable

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.variable is not None:
            request.headers["Authorization"] = f"Bearer {_key(self.variable)}"
        return request


@dataclass
class ServerModel:
    """Greedy answers of a model behind an OpenAI-compatible server.

    Attributes:
        base_url: up to and with ``/v1``, such as ``http://localhost:11434/v1`` (Ollama).
        model: as the server calls it; also the name in tables.
        key_variable: environment variable that holds the key; None sends no key.
        cache: answers it has are not asked again; None asks always.
        concurrency: requests at a time.
        timeout_s: to connect, and between two pieces of the answer.
        retries: further tries when the server is busy, broken or silent.
        backoff_s: wait before the first of them, doubled each time, a minute at most; a server's
            ``Retry-After`` in seconds goes before.
        sleep: does the waiting.
    """

    base_url: str
    model: str
    key_variable: str | None = None
    cache: AnswerCache | None = None
    concurrency: int = 4
    timeout_s: tuple[float, float] = (10.0, 120.0)
    retries: int = 5
    backoff_s: float = 1.0
    max_tokens: int = 512
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        address = urlsplit(self.base_url)
        if address.username or address.password or address.query:
            raise ValueError("base_url must hold no user, password or query: name a key_variable")
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"base_url must be an http or https address, got {self.base_url!r}")
        if self.concurrency < 1 or self.retries < 0:
            raise ValueError(
                f"concurrency is at least 1 and retries at least 0, got {self.concurrency} and "
                f"{self.retries}"
            )

    @property
    def name(self) -> str:
        return self.model

    def answer(self, questions: Sequence[Question]) -> list[str | None]:
        """One answer per question. The first that fails for good raises `ServerError`.

        What was answered until then is in the cache, so the next call goes on from there.
        """
        settings = {"url": self.base_url, "model": self.model, "max_tokens": self.max_tokens}
        keys = [AnswerCache.key(question, settings) for question in questions]
        known = {key: self.cache.get(key) if self.cache is not None else None for key in keys}
        pending = {k: q for k, q in zip(keys, questions, strict=True) if known[k] is None}
        if pending and self.key_variable is not None:
            _key(self.key_variable)  # before the first request
        with ThreadPoolExecutor(self.concurrency) as pool:
            jobs = {key: pool.submit(self._ask, key, q) for key, q in pending.items()}
            try:
                known |= {key: job.result() for key, job in jobs.items()}
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [known[key] for key in keys]

    def _ask(self, key: str, question: Question) -> str:
        body: dict[str, Any] = {
            "model": self.model, "messages": question.chat, "temperature": 0,
            "max_tokens": self.max_tokens,
        }  # fmt: skip
        place = f"dialogue {question.dialogue}, turn {question.turn}"
        trouble = ""
        for attempt in range(self.retries + 1):
            wait = min(self.backoff_s * 2**attempt, LONGEST_WAIT_S)
            try:
                response = requests.post(
                    self.base_url.rstrip("/") + "/chat/completions", json=body,
                    timeout=self.timeout_s, auth=_Bearer(self.key_variable), allow_redirects=False,
                )  # fmt: skip
            except requests.Timeout:
                trouble = f"no answer within {self.timeout_s} s"
            except requests.RequestException as error:
                trouble = f"no connection, or it broke off ({type(error).__name__})"
            else:
                if response.status_code == 200:
                    answer = _content(response)
                    if answer is not None:
                        if self.cache is not None:
                            self.cache.put(key, answer)
                        return answer
                    trouble = f"no chat completion: {self._shown(response)}"
                else:
                    trouble = f"status {response.status_code}: {self._shown(response)}"
                    if response.status_code not in BUSY:
                        raise ServerError(f"{self.model} at {self.base_url}, {place}: {trouble}")
                    wait = _asked_wait(response, wait)
            if attempt < self.retries:
                self.sleep(wait)
        raise ServerError(
            f"{self.model} at {self.base_url}, {place}: {trouble}, {self.retries + 1} times"
        )

    def _shown(self, response: requests.Response) -> str:
        """The start of what the server said, without the key, which some servers repeat."""
        text = " ".join(response.text.split())
        if self.key_variable is not None:
            text = text.replace(_key(self.key_variable), "[key]")
        return text[:_SHOWN]


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"the environment variable {variable} holds no key")
    if not (key.isascii() and key.isprintable()) or " " in key:
        # the HTTP client would refuse it with an error that quotes it
        raise ValueError(f"the environment variable {variable} holds what no header takes")
    return key


def _content(response: requests.Response) -> str | None:
    """The text of a chat completion, None if it is none; no text at all is an empty answer."""
    try:
        message: Any = response.json()["choices"][0]["message"]
        content = message["content"]
    except (requests.JSONDecodeError, KeyError, IndexError, TypeError):
        return None
    return "" if content is None else str(content)


def _asked_wait(response: requests.Response, otherwise: float) -> float:
    """``Retry-After`` in seconds, a minute at most; its other form, a date, is not read."""
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_WAIT_S) if asked.isdecimal() else otherwise
