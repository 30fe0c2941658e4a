"""Fixtures: real data when they lie beside the repository, tiny language models, toy dialogues."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pecrs_lib.data import Catalogue, Dialogue, read_redial
from tests.toys import save_tiny_backbone, toy_catalogue, toy_dialogues

LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


class NetworkBlockedError(RuntimeError):
    """A test talked to another machine."""


def block_network() -> None:
    """Refuse, for the rest of the process, every connection but through loopback."""

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto"):
            address = args[1]
            host = address[0] if isinstance(address, tuple) else "localhost"  # a Unix socket
        elif event == "socket.getaddrinfo":
            host = args[0] or "localhost"
        else:
            return
        name = host.decode() if isinstance(host, bytes) else str(host)
        if not name.startswith(LOOPBACK):
            raise NetworkBlockedError(f"{event} to {name!r}")

    sys.addaudithook(refuse)


block_network()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=4, help="how often tests/faults kills a training")


@pytest.fixture
def tried(
    record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> Callable[[str, int, str], None]:
    """Says for `docs/reliability.md` what a test tried, how often, and what happened.

    The area is the constant AREA of the test's module.
    """

    def note(what: str, times: int, happened: str) -> None:
        record_property("tried", json.dumps([request.module.AREA, what, times, happened]))

    return note


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that need it are skipped where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data beside the repository")
    return folder


@pytest.fixture(scope="session")
def redial_dialogues(shared_data: Path) -> list[Dialogue]:
    """ReDial's training dialogues (10,005 of 10,006), in the form with speakers resolved."""
    folder = shared_data / "redial"
    return read_redial(folder / "train.jsonl.gz") + read_redial(folder / "valid.jsonl.gz")


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return toy_catalogue(24)


@pytest.fixture(scope="session")
def dialogues(catalogue: Catalogue) -> list[Dialogue]:
    return toy_dialogues(catalogue, 8, seed=0)


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random GPT-2 of two layers, as a folder."""
    return save_tiny_backbone(tmp_path_factory.mktemp("gpt2"), "gpt2")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
