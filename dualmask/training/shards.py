"""Tensors on disk that can be read under any partitioning: flat pieces in safetensors files, and an index of them.

``FOLDER/shards/rank-00003.safetensors`` holds what rank 3 wrote, ``FOLDER/index.json`` says where each element of each
parameter lies, so that any number of ranks, under any ZeRO stage and tensor-parallel degree, finds its own part. No
file contains code. This module does not depend on engines or processes.
"""

# a parameter is split twice: along one axis into the slices of the tensor-parallel ranks, and each slice, flattened,
# into the pieces of the data-parallel ranks

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from dualmask.nn.slices import Slice
from dualmask.training import tensor_file
from dualmask.training.tensor_file import Form, Tensors

INDEX = "index.json"
FOLDER = "shards"
FORMAT = 1
WEIGHT = "weight"
MODEL = "model."  # what names of the model's own parameters begin with: those of its task have other names
MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam
MOMENTUM = "momentum_buffer"  # of Muon
AVERAGE = "average"  # of the weight over the steps of a stage


@dataclass(frozen=True)
class FlatRange:
    """Elements ``start`` to ``start + count`` of a flattened tensor-parallel slice of a parameter."""

    name: str  # of the parameter
    shape: tuple[int, ...]  # of the slice
    axis: int | None  # along which the parameter is sliced; None: there is one slice, the whole parameter
    tensor_rank: int
    start: int
    count: int

    def slice(self, tensor_size: int) -> Slice:
        """The whole slice, one of as many as there are tensor-parallel ranks."""
        return Slice(self.shape, self.axis, self.tensor_rank, tensor_size)


@dataclass(frozen=True)
class Piece:
    """``tensors``: kind → [count]: ``weight``; if it is trained, what the optimizer keeps, its average."""

    flat_range: FlatRange
    tensors: Mapping[str, Tensor]


def write_pieces(folder: Path, rank: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """Writes this rank's file and returns its entries of the index. Raises OSError."""
    file = f"{FOLDER}/rank-{rank:05d}.safetensors"
    if not pieces:
        return []
    tensors = {_key(kind, piece.flat_range.name): value for piece in pieces for kind, value in piece.tensors.items()}
    (folder / FOLDER).mkdir(exist_ok=True)
    tensor_file.write(folder / file, Tensors.of(tensors))
    return [asdict(piece.flat_range) | {"file": file, "kinds": sorted(piece.tensors)} for piece in pieces]


def write_index(folder: Path, entries: Iterable[Mapping[str, Any]], *, tensor_size: int, updates: int) -> None:
    """``entries``: those of all ranks; ``updates``: number of updates, which Adam's bias correction needs."""
    content = {"format": FORMAT, "tensor_size": tensor_size, "updates": updates, "pieces": list(entries)}
    (folder / INDEX).write_text(json.dumps(content), encoding="utf-8")


class ShardFolder:
    """Reads what ``write_pieces`` and ``write_index`` wrote; the caller has checked the folder's digests.

    Raises ValueError if the index has another format.
    """

    def __init__(self, folder: Path) -> None:
        content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"{folder / INDEX} has format {content['format']}, this version reads {FORMAT}")
        self.updates = int(content["updates"])
        self.tensor_size = int(content["tensor_size"])
        self._folder = folder
        self._pieces: dict[str, list[tuple[FlatRange, str, list[str]]]] = {}
        for entry in content["pieces"]:
            file, kinds = entry.pop("file"), entry.pop("kinds")
            flat_range = FlatRange(**{**entry, "shape": tuple(entry["shape"])})
            self._pieces.setdefault(flat_range.name, []).append((flat_range, file, kinds))
        for pieces in self._pieces.values():
            pieces.sort(key=lambda piece: piece[0].start)

    @property
    def names(self) -> list[str]:
        return list(self._pieces)

    def kinds(self, name: str) -> list[str]:
        return self._of(name)[0][2]

    def axis(self, name: str) -> int | None:
        return self._of(name)[0][0].axis

    def form(self, name: str, kind: str = WEIGHT) -> Form:
        """Of the parameter, merged over all ranks."""
        flat_range, file, _ = next(entry for entry in self._of(name) if kind in entry[2])
        with safe_open(self._folder / file, framework="pt") as tensors:
            dtype = tensors.get_slice(_key(kind, name))[:0].dtype
        return Form(flat_range.slice(self.tensor_size).whole, dtype)

    def whole(self, name: str, kind: str = WEIGHT) -> Tensor:
        """The parameter, merged over all ranks, in the dtype in which it was written."""
        first, ranks = self._of(name)[0][0], 1 if self.axis(name) is None else self.tensor_size
        count = math.prod(first.shape)
        slices = [self._range(name, kind, rank, 0, count).view(first.shape) for rank in range(ranks)]
        return slices[0] if first.axis is None else torch.cat(slices, dim=first.axis)

    def part(self, flat_range: FlatRange, tensor_size: int, kind: str = WEIGHT) -> Tensor:
        """[count], the elements of ``flat_range`` for a tensor-parallel degree of ``tensor_size``.

        Reads only these elements if the degree is that of the writer, otherwise the whole parameter.
        """
        axis = self.axis(flat_range.name)
        if axis == flat_range.axis and (axis is None or tensor_size == self.tensor_size):
            return self._range(
                flat_range.name,
                kind,
                flat_range.tensor_rank if axis is not None else 0,
                flat_range.start,
                flat_range.count,
            )
        own = self.whole(flat_range.name, kind)
        if flat_range.axis is not None:
            own = own.chunk(tensor_size, dim=flat_range.axis)[flat_range.tensor_rank]
        if own.shape != flat_range.shape:
            raise ValueError(
                f"{self._folder}: {flat_range.name} has slices {tuple(own.shape)}, here {flat_range.shape}"
            )
        return own.flatten()[flat_range.start : flat_range.start + flat_range.count].clone()

    def _range(self, name: str, kind: str, rank: int, start: int, count: int) -> Tensor:
        """[count] elements of a slice from ``start`` on, from all pieces that hold some of them."""
        covered, parts = 0, []
        for flat_range, file, kinds in self._of(name):
            low, high = max(start, flat_range.start), min(start + count, flat_range.start + flat_range.count)
            if flat_range.tensor_rank != rank or kind not in kinds or low >= high:
                continue
            with safe_open(self._folder / file, framework="pt") as tensors:
                parts.append(tensors.get_slice(_key(kind, name))[low - flat_range.start : high - flat_range.start])
            covered += high - low
        if covered != count:
            raise ValueError(f"{self._folder}: holds only {covered} of {count} elements of {kind} of {name}")
        return torch.cat(parts) if parts else torch.empty(0)

    def _of(self, name: str) -> list[tuple[FlatRange, str, list[str]]]:
        if name not in self._pieces:
            raise ValueError(f"{self._folder} holds no {name}: it was written by another model or another stage")
        return self._pieces[name]


def write_merged(source: ShardFolder, folder: Path) -> None:
    """Writes every parameter as one piece, as a single process without ZeRO would, and the index; one at a time."""
    keys = [(name, kind) for name in source.names for kind in source.kinds(name)]
    forms = {_key(kind, name): source.form(name, kind) for name, kind in keys}
    flat = {key: Form((math.prod(form.shape),), form.dtype) for key, form in forms.items()}
    file = f"{FOLDER}/rank-00000.safetensors"
    (folder / FOLDER).mkdir()
    wholes = ((_key(kind, name), source.whole(name, kind).flatten()) for name, kind in keys)
    tensor_file.write(folder / file, Tensors(flat, wholes))
    entries = []
    for name in source.names:
        shape = forms[_key(WEIGHT, name)].shape
        whole = FlatRange(name, shape, None, 0, 0, math.prod(shape))
        entries.append(asdict(whole) | {"file": file, "kinds": sorted(source.kinds(name))})
    write_index(folder, entries, tensor_size=1, updates=source.updates)


def _key(kind: str, name: str) -> str:
    return f"{kind}/{name}"
