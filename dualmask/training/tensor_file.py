"""A safetensors file written tensor by tensor: the library's own writer wants all of them in memory at once.

The format: the length of the header (8 bytes, little-endian), the header (JSON: dtype, shape and place of each tensor),
then the tensors' bytes one behind the other. https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.int8: "I8",
}
_ALIGNED = 8  # bytes: where the tensors begin


@dataclass(frozen=True)
class Form:
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Tensors:
    """Tensors that come one after the other, and what is known of them beforehand."""

    forms: Mapping[str, Form]
    stream: Iterable[tuple[str, Tensor]]  # in the order of ``forms``

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Tensors:
        """Those that are at hand."""
        return cls({name: Form(tuple(one.shape), one.dtype) for name, one in tensors.items()}, tensors.items())

    def pass_by(self) -> None:
        """Takes all of them and keeps none, not even one beside the next: where another rank writes them, and all ranks
        have to gather them."""
        deque(self.stream, maxlen=0)


def write(path: Path, tensors: Tensors) -> None:
    """Raises ValueError if others come than were announced, OSError."""
    header, end = {}, 0
    for name, form in tensors.forms.items():
        begin, end = end, end + form.bytes
        header[name] = {"dtype": _NAMES[form.dtype], "shape": list(form.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNED)
    expected = iter(tensors.forms.items())
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors.stream:
            if (name, Form(tuple(tensor.shape), tensor.dtype)) != next(expected, None):
                raise ValueError(f"{path}: {name} {tuple(tensor.shape)} {tensor.dtype} is not what was announced")
            file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
            del tensor  # before the next comes
    if (missing := next(expected, None)) is not None:
        raise ValueError(f"{path}: {missing[0]} was announced and did not come")
