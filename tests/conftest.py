"""Fixtures: real data when they lie beside the repository, tiny language models, toy dialogues."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pecrs_lib.data import Catalogue, Dialogue, read_redial
from tests.toys import save_tiny_backbone, toy_catalogue, toy_dialogues


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
