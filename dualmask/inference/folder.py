"""What a model folder holds: found, checked against its digests, and read, without starting torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from dualmask.config.model import ModelConfig
from dualmask.core import manifest
from dualmask.families import registry

FORMAT = 2  # of config.json, as dualmask.training.export writes it; 1 also had the keys of other families
PRETRAINED = Path(__file__).parents[1] / "pretrained" / "english"  # the model that comes with the package
WEIGHTS = "model.safetensors"
Stored = Literal["float32", "bfloat16", "int8"]  # how they may be stored there (``inference.weights``)
REMEDY = "export it again (dualmask export RUN OUT)"


class ModelFolderError(ValueError):
    """A folder that cannot be used as a model: one line that names it and what to do."""


@dataclass(frozen=True)
class ModelFolder:
    """An exported folder whose files are those that were written."""

    path: Path
    config: ModelConfig
    vocab_size: int


def open_folder(folder: str | Path, family: str = registry.DEFAULT) -> ModelFolder:
    """An exported folder, or a run's folder that holds an export, of a model of ``family``. Raises ModelFolderError."""
    path = _exported(Path(folder))
    if trouble := manifest.problem(path):
        raise ModelFolderError(f"model folder {path}: {trouble}; {REMEDY}")
    config, vocab_size = _read_config(path / "config.json")
    if config.family != family:
        families = f"holds a model of the family {config.family}; give one of the family {family}"
        raise ModelFolderError(f"model folder {path}: {families}")
    return ModelFolder(path, config, vocab_size)


def family_of(folder: str | Path) -> str:
    """What family of model a folder claims to hold; ``open_folder`` checks its files. Raises ModelFolderError."""
    return _read_config(_exported(Path(folder)) / "config.json")[0].family


def weights_digest(folder: str | Path, family: str) -> str:
    """SHA-256 of the weights of a model folder. Raises ModelFolderError."""
    return manifest.digest(open_folder(folder, family).path / WEIGHTS)


def _exported(folder: Path) -> Path:
    if not folder.exists():
        raise ModelFolderError(f"model folder {folder} does not exist: give an exported folder or a run's folder")
    if not folder.is_dir():
        raise ModelFolderError(f"model folder {folder} is a file: give the folder that holds model.safetensors")
    for candidate in (folder, folder / "export"):
        if (candidate / WEIGHTS).is_file():
            return candidate
    if (folder / "checkpoints").is_dir():
        raise ModelFolderError(f"{folder} is a run without an export: make one with `dualmask export {folder} OUT`")
    raise ModelFolderError(f"{folder} is not a model folder: it holds neither model.safetensors nor export/")


def _read_config(file: Path) -> tuple[ModelConfig, int]:
    try:
        tree: Any = json.loads(file.read_text(encoding="utf-8"))
        if tree["format"] not in (1, FORMAT):
            raise ModelFolderError(f"{file} has format {tree['format']!r}, this version reads 1 and {FORMAT}: {REMEDY}")
        model = registry.find(tree["model"].get("family", registry.DEFAULT)).model
        section = tree["model"]
        if tree["format"] == 1:
            section = {key: value for key, value in section.items() if key in model.model_fields}
        return model.model_validate(section), int(tree["vocab_size"])
    except ModelFolderError:
        raise
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelFolderError(f"{file}: model.{key}: {first['msg']}; {REMEDY}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{file} cannot be read ({' '.join(str(error).split())}): {REMEDY}") from None
