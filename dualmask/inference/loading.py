"""From a model folder to a model that runs: safetensors only, one clear line for whatever is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from dualmask.config.schema import Family, ModelConfig
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.build import build
from dualmask.families.edit.model import DualMask
from dualmask.families.lm.model import Autoregressive, MaskedDiffusion
from dualmask.families.span.model import SpanFusion
from dualmask.inference.folder import REMEDY, ModelFolderError, open_folder
from dualmask.nn.parallel import mesh

AnyModel = TypeVar("AnyModel", bound=nn.Module)


@dataclass(frozen=True)
class Loaded(Generic[AnyModel]):
    model: AnyModel
    tokenizer: Tokenizer
    config: ModelConfig


def load(folder: str | Path, device: str = "auto") -> Loaded[DualMask]:
    """The model of an exported folder, or of a run's folder that holds an export, on auto, cpu or cuda.

    Raises ModelFolderError, also for a model of another family, or ValueError for the device.
    """
    return cast(Loaded[DualMask], _load(folder, device, "dualmask"))


def load_span_fusion(folder: str | Path, device: str = "auto") -> Loaded[SpanFusion]:
    """``load`` for SpanFusionLM."""
    return cast(Loaded[SpanFusion], _load(folder, device, "spanfusion"))


def load_autoregressive(folder: str | Path, device: str = "auto") -> Loaded[Autoregressive]:
    """``load`` for the autoregressive language model."""
    return cast(Loaded[Autoregressive], _load(folder, device, "autoregressive"))


def load_diffusion(folder: str | Path, device: str = "auto") -> Loaded[MaskedDiffusion]:
    """``load`` for the masked-diffusion language model."""
    return cast(Loaded[MaskedDiffusion], _load(folder, device, "diffusion"))


def _load(folder: str | Path, device: str, family: Family) -> Loaded[nn.Module]:
    where = _resolve_device(device)
    found = open_folder(folder, family)
    tokenizer = Tokenizer(found.path / "tokenizer.model")
    if tokenizer.vocab_size != found.vocab_size:
        sizes = f"the tokenizer has {tokenizer.vocab_size} pieces, the model {found.vocab_size}"
        raise ModelFolderError(f"model folder {found.path}: {sizes}; {REMEDY}")
    mesh.single_process()
    model = build(found.config, found.vocab_size)
    _fill_weights(model, found.path / "model.safetensors")
    return Loaded(model.to(where).eval().requires_grad_(False), tokenizer, found.config)


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
