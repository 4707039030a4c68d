"""From a folder to a model that runs: digests checked, safetensors only, one clear line for whatever is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from dualmask import manifest
from dualmask.config.schema import ModelConfig
from dualmask.models.dualmask import DualMask
from dualmask.parallel import mesh
from dualmask.tokenizer import Tokenizer

FORMAT = 1  # of config.json, as dualmask.export writes it

REMEDY = "export it again (dualmask export RUN OUT)"


class ModelFolderError(ValueError):
    """A folder that cannot be used as a model: one line that names it and what to do."""


@dataclass(frozen=True)
class Loaded:
    model: DualMask
    tokenizer: Tokenizer
    config: ModelConfig


def load(folder: str | Path, device: str = "auto") -> Loaded:
    """The model of an exported folder, or of a run's folder that holds an export. Raises ModelFolderError."""
    where = _resolve_device(device)
    path = _exported(Path(folder))
    if trouble := manifest.problem(path):
        raise ModelFolderError(f"model folder {path}: {trouble}; {REMEDY}")
    config, vocab_size = _read_config(path / "config.json")
    tokenizer = Tokenizer(path / "tokenizer.model")
    if tokenizer.vocab_size != vocab_size:
        sizes = f"the tokenizer has {tokenizer.vocab_size} pieces, the model {vocab_size}"
        raise ModelFolderError(f"model folder {path}: {sizes}; {REMEDY}")
    mesh.single_process()
    model = DualMask(config, vocab_size)
    _fill_weights(model, path / "model.safetensors")
    return Loaded(model.to(where).eval().requires_grad_(False), tokenizer, config)


def _resolve_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is not known: give auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: this machine offers no CUDA device; give --device cpu")
    return torch.device(device)


def _exported(folder: Path) -> Path:
    if not folder.exists():
        raise ModelFolderError(f"model folder {folder} does not exist: give an exported folder or a run's folder")
    if not folder.is_dir():
        raise ModelFolderError(f"model folder {folder} is a file: give the folder that holds model.safetensors")
    for candidate in (folder, folder / "export"):
        if (candidate / "model.safetensors").is_file():
            return candidate
    if (folder / "checkpoints").is_dir():
        raise ModelFolderError(f"{folder} is a run without an export: make one with `dualmask export {folder} OUT`")
    raise ModelFolderError(f"{folder} is not a model folder: it holds neither model.safetensors nor export/")


def _read_config(file: Path) -> tuple[ModelConfig, int]:
    try:
        tree: Any = json.loads(file.read_text(encoding="utf-8"))
        if tree["format"] != FORMAT:
            raise ModelFolderError(f"{file} has format {tree['format']!r}, this version reads {FORMAT}: {REMEDY}")
        return ModelConfig.model_validate(tree["model"]), int(tree["vocab_size"])
    except ModelFolderError:
        raise
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelFolderError(f"{file}: model.{key}: {first['msg']}; {REMEDY}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{file} cannot be read ({' '.join(str(error).split())}): {REMEDY}") from None


def _fill_weights(model: DualMask, file: Path) -> None:
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelFolderError(f"{file} cannot be read ({' '.join(str(error).split())}): {REMEDY}") from None
    wanted = dict(model.named_parameters())
    if different := sorted(weights.keys() ^ wanted.keys()):
        state = "unknown" if different[0] in weights else "missing"
        raise ModelFolderError(f"{file}: weight {different[0]} is {state}; {REMEDY}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            if weights[name].shape != parameter.shape:
                shapes = f"{tuple(weights[name].shape)} instead of {tuple(parameter.shape)}"
                raise ModelFolderError(f"{file}: weight {name} has shape {shapes}; {REMEDY}")
            parameter.copy_(weights[name])
