from pathlib import Path

import pytest

from dualmask.inference.engine import Engine
from dualmask.inference.loading import Loaded, load
from dualmask.inference.text import Writer


@pytest.fixture(scope="session")
def loaded(model_folder: Path) -> Loaded:
    return load(model_folder, "cpu")


@pytest.fixture(scope="session")
def writer(loaded: Loaded) -> Writer:
    return Writer(loaded)


@pytest.fixture(scope="session")
def engine(writer: Writer) -> Engine:
    return writer.engine
