"""Shared fixtures. Threads are bounded before torch starts: the suite shares its cores with what it launches."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")  # tests ask no hub but their own

from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from dualmask.core.tokenizer import Tokenizer

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults", "tests/faults")
    group.addoption("--chaos", type=int, default=11, metavar="SEED", help="kill at moments drawn from this (11)")
    group.addoption("--chaos-count", type=int, metavar="N", help="kill so many times")
    group.addoption("--faults-report", type=Path, metavar="FILE", help="write the counts of faults survived, as JSON")


@pytest.fixture
def hub_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Points the Hugging Face hub's client to an address, with an empty cache."""
    from huggingface_hub import constants

    def point(address: str) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    return point


@pytest.fixture(scope="session")
def english_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> "Tokenizer":
    """Of 2,500 pieces, trained on Python's language reference."""
    from data_pipeline.vocabulary import train
    from dualmask.core.tokenizer import Tokenizer

    lines = (" ".join(line.split()) for topic in topics.values() for line in topic.split("\n\n"))
    path = tmp_path_factory.mktemp("english") / "tokenizer.model"
    path.write_bytes(train(lines, 2500))
    return Tokenizer(path)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny exported model with random weights."""
    from tiny_model import make_model_folder

    return make_model_folder(tmp_path_factory.mktemp("model") / "tiny")
