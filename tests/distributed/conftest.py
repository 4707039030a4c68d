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
def references(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, plain.Trained]:
    """The tiny curriculum in one plain torch process, by the rounds of a window: two of four, and all of them."""
    config = tiny.write_config(tmp_path_factory.mktemp("plain"), data)
    return {
        window: plain.train(load_run(config, [f"stages.3.rollout.window={window}"]), tiny.VOCAB) for window in (2, 4)
    }
