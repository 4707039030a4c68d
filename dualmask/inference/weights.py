"""How the weights of a model folder are stored: float32, bfloat16, or int8 with a scale a row.

Of an int8 file each matrix ``w`` is stored as ``w`` int8 [rows, columns] and ``w.scale`` float32 [rows], whose products
are the weights (absmax quantisation, Dettmers et al. 2022); vectors stay float32. A model computes in float32 always.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

import torch
from torch import Tensor

from dualmask.inference.folder import Stored

SCALE = ".scale"
_MOST = 127


def encode(name: str, weight: Tensor, stored: Stored) -> Iterator[tuple[str, Tensor]]:
    """The tensors that a file holds of a float32 weight."""
    assert stored in get_args(Stored), stored
    if stored == "int8" and weight.ndim == 2:
        scale = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _MOST
        yield name, (weight / scale[:, None]).round().to(torch.int8)
        yield name + SCALE, scale
    else:
        yield name, weight.to(torch.bfloat16 if stored == "bfloat16" else torch.float32)


def decode(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file, int8 ones as float32."""
    scales = {name: tensors[name + SCALE] for name in tensors if name + SCALE in tensors}
    names = [name for name in tensors if name in scales or name.removesuffix(SCALE) not in scales]
    return {name: tensors[name].float() * scales[name][:, None] if name in scales else tensors[name] for name in names}
