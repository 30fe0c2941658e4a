"""How many cases: profile ``ci`` in every run, ``nightly`` with --hypothesis-profile nightly."""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
COMMON: Any = {"deadline": None, "suppress_health_check": SLOW, "print_blob": True}
settings.register_profile("ci", max_examples=24, derandomize=True, database=None, **COMMON)
settings.register_profile("nightly", max_examples=600, **COMMON)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the file of a case; the next case writes over it."""
    return tmp_path_factory.mktemp("cases")


@pytest.fixture(autouse=True)
def _counted(request: pytest.FixtureRequest, tried: Any) -> Iterator[None]:
    """Counts the cases that hypothesis makes, for the table of `docs/reliability.md`."""
    handle = getattr(request.function, "hypothesis", None)
    if handle is None:
        yield
        return
    inner, cases = handle.inner_test, 0

    @wraps(inner)
    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal cases
        cases += 1
        return inner(*args, **kwargs)

    handle.inner_test = counting
    yield
    handle.inner_test = inner
    tried(request.function.__doc__.split(": ")[0], cases, request.function.__doc__.split(": ")[1])
