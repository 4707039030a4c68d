"""``mixture.json``: which folders beside it a run reads, and by which weights. The build writes it; ``data.path`` may
name the folder that holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from dualmask.config.address import is_address
from dualmask.config.data import Ingredient
from dualmask.config.schema import DataConfig, DataSource
from dualmask.config.section import Section
from dualmask.config.tree import ConfigError

MIXTURE_FILE = "mixture.json"


class Mixture(Section):
    format: Literal[1] = 1
    sources: Annotated[tuple[Ingredient, ...], Field(min_length=1)]


def read_mixture(folder: Path) -> Mixture | None:
    """None where ``folder`` holds no mixture. Raises ConfigError."""
    path = folder / MIXTURE_FILE
    try:
        return Mixture.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise ConfigError(f"{path} is damaged ({problem}): run dualmask data build again") from None


def with_sources(data: DataConfig) -> DataConfig:
    """``data`` with the sources of the mixture in its ``path``, or as it is. Raises ConfigError."""
    if data.path is None or is_address(data.path):
        return data
    mixture = read_mixture(data.path)
    if mixture is None:
        return data
    sources = tuple(
        DataSource(path=data.path / each.name, weight=each.weight, epochs=each.epochs) for each in mixture.sources
    )
    return data.model_copy(update={"path": None, "sources": sources})
