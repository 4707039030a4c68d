from pathlib import Path

import pytest

from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.text import Writer
from dualmask.inference.loading import Loaded, load


@pytest.fixture(scope="session")
def loaded(model_folder: Path) -> Loaded:
    return load(model_folder, "cpu")


@pytest.fixture(scope="session")
def writer(loaded: Loaded) -> Writer:
    return Writer(loaded)


@pytest.fixture(scope="session")
def engine(writer: Writer) -> Engine:
    return writer.engine
