"""Builds of builds.py's corpus that several tests of a module look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import config_for, write_corpus

from data_pipeline.build import build
from data_pipeline.cluster import running_ray


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    """One Ray for all builds of a module in this process."""
    with running_ray(2):
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    output = tmp_path_factory.mktemp("built")
    build(config_for(output, corpus))
    return output
