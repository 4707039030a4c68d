"""From a model folder to a model that runs: safetensors only, one clear line for whatever is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from dualmask.config.model import ModelConfig
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.registry import DEFAULT
from dualmask.families.task import build
from dualmask.inference.folder import REMEDY, WEIGHTS, ModelFolderError, open_folder
from dualmask.inference.weights import decode
from dualmask.nn.parallel import mesh
from dualmask.nn.parallel.linear import store_by_columns

AnyModel = TypeVar("AnyModel", bound=nn.Module)


@dataclass(frozen=True)
class Loaded(Generic[AnyModel]):
    model: AnyModel
    tokenizer: Tokenizer
    config: ModelConfig
    folder: Path | None = None  # the exported folder that it lies in; None: it was made by hand


def load(folder: str | Path, device: str = "auto", *, family: str = DEFAULT) -> Loaded[Any]:
    """The model of an exported folder, or of a run's folder that holds an export, on auto, cpu or cuda.

    Raises ModelFolderError, also for a model of another family, or ValueError for the device.
    """
    where = _resolve_device(device)
    opened = open_folder(folder, family)
    tokenizer = Tokenizer(opened.path / "tokenizer.model")
    if tokenizer.vocab_size != opened.vocab_size:
        sizes = f"the tokenizer has {tokenizer.vocab_size} pieces, the model {opened.vocab_size}"
        raise ModelFolderError(f"model folder {opened.path}: {sizes}; {REMEDY}")
    mesh.single_process()
    model = build(opened.config, opened.vocab_size)
    _fill_weights(model, opened.path / WEIGHTS)
    if where.type == "cpu":
        store_by_columns(model)
    return Loaded(model.to(where).eval().requires_grad_(False), tokenizer, opened.config, opened.path)


def _resolve_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is not known: give auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: this machine offers no CUDA device; give --device cpu")
    return torch.device(device)


def _fill_weights(model: nn.Module, file: Path) -> None:
    try:
        weights = decode(load_file(file))
    except (OSError, SafetensorError) as error:
        raise ModelFolderError(f"{file} cannot be read ({' '.join(str(error).split())}): {REMEDY}") from None
    parameters = dict(model.named_parameters())
    if different := sorted(weights.keys() ^ parameters.keys()):
        state = "unknown" if different[0] in weights else "missing"
        raise ModelFolderError(f"{file}: weight {different[0]} is {state}; {REMEDY}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if weights[name].shape != parameter.shape:
                shapes = f"{tuple(weights[name].shape)} instead of {tuple(parameter.shape)}"
                raise ModelFolderError(f"{file}: weight {name} has shape {shapes}; {REMEDY}")
            parameter.copy_(weights[name])
