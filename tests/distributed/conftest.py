from __future__ import annotations

from pathlib import Path

import plain
import pytest
import tiny

from dualmask.config.load import load_run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_data(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="session")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> plain.Trained:
    """The tiny curriculum in one plain torch process."""
    config = tiny.write_config(tmp_path_factory.mktemp("plain"), data)
    return plain.train(load_run(config), tiny.VOCAB)
