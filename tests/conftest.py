"""Shared fixtures. Threads are bounded before torch starts: the suite shares its cores with what it launches."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny exported model with random weights."""
    from tiny_model import make_model_folder

    return make_model_folder(tmp_path_factory.mktemp("model") / "tiny")
