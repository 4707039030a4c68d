"""A run that begins with the weights of another one instead of random ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dualmask.config.tree import ConfigError
from dualmask.nn.parallel import mesh
from dualmask.training.partition import split_axis


def begin_with(model: nn.Module, given: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """This rank's slices of the weights that ``model`` begins with, and the modules that keep its own, fresh ones.

    given: whole matrices by name, as an export holds them; modules that it lacks stay fresh. Raises ConfigError for a
    weight that does not fit.
    """
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    known = {_module(name) for name in given}
    for name, parameter in model.named_parameters():
        if _module(name) not in known:
            continue
        if name not in given:
            raise ConfigError(f"init: the weights lack {name}; begin with an export of this version")
        part = _own_part(given[name], split_axis(parameter))
        if part.shape != parameter.shape:
            shapes = f"{tuple(part.shape)} instead of {tuple(parameter.shape)}"
            raise ConfigError(f"init: {name} has shape {shapes}; begin with an export of the same model section")
        weights[name] = part
    return weights, sorted({_module(name) for name in weights} - known)


def _module(name: str) -> str:
    return name.split(".", 1)[0]


def _own_part(whole: Tensor, axis: int | None) -> Tensor:
    """What ``engine.join`` makes whole again."""
    if axis is None:
        return whole
    return torch.chunk(whole, mesh.tensor_size(), dim=axis)[mesh.tensor_rank()]
