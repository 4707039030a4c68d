"""Tensors on disk that forget how they were divided: flat pieces in safetensors files, and one index of all of them.

``FOLDER/shards/rank-00003.safetensors`` holds what rank 3 wrote, ``FOLDER/index.json`` says where each element of each
parameter lies, so that any number of ranks, under any ZeRO stage and tensor-parallel degree, finds its own part. No
file is code. Knows nothing of engines and processes.
"""

# a parameter is cut twice: along one axis into the slices of the tensor-parallel ranks, and each slice, flattened, into
# the pieces of the data-parallel ranks

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

INDEX = "index.json"
FOLDER = "shards"
FORMAT = 1
WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam


@dataclass(frozen=True)
class Place:
    """Where a piece belongs: elements ``start`` to ``start + count`` of a tensor-parallel slice, flattened."""

    name: str  # of the parameter
    shape: tuple[int, ...]  # of the slice
    axis: int | None  # along which slices were cut; None: there is one slice, the whole
    tensor_rank: int
    start: int
    count: int


@dataclass(frozen=True)
class Piece:
    """``tensors``: kind → [count]: ``weight``, and the moments of what learns."""

    place: Place
    tensors: Mapping[str, Tensor]


def write_pieces(folder: Path, rank: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """Writes this rank's file and returns its entries of the index. Raises OSError, SafetensorError."""
    file = f"{FOLDER}/rank-{rank:05d}.safetensors"
    if not pieces:
        return []
    tensors = {_key(kind, piece.place.name): value for piece in pieces for kind, value in piece.tensors.items()}
    (folder / FOLDER).mkdir(exist_ok=True)
    save_file(tensors, folder / file)
    return [asdict(piece.place) | {"file": file, "kinds": sorted(piece.tensors)} for piece in pieces]


def write_index(folder: Path, entries: Iterable[Mapping[str, Any]], *, tensor_size: int, updates: int) -> None:
    """``entries``: those of all ranks; ``updates``: that Adam has made, which its bias correction needs."""
    content = {"format": FORMAT, "tensor_size": tensor_size, "updates": updates, "pieces": list(entries)}
    (folder / INDEX).write_text(json.dumps(content), encoding="utf-8")


class ShardFolder:
    """Reads what ``write_pieces`` and ``write_index`` left. Check the folder's digests first.

    Raises ValueError where the index is not of this version.
    """

    def __init__(self, folder: Path) -> None:
        content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"{folder / INDEX} has format {content['format']}, this version reads {FORMAT}")
        self.updates = int(content["updates"])
        self.tensor_size = int(content["tensor_size"])
        self._folder = folder
        self._pieces: dict[str, list[tuple[Place, str, list[str]]]] = {}
        for entry in content["pieces"]:
            file, kinds = entry.pop("file"), entry.pop("kinds")
            place = Place(**{**entry, "shape": tuple(entry["shape"])})
            self._pieces.setdefault(place.name, []).append((place, file, kinds))
        for pieces in self._pieces.values():
            pieces.sort(key=lambda piece: piece[0].start)

    @property
    def names(self) -> list[str]:
        return list(self._pieces)

    def kinds(self, name: str) -> list[str]:
        return self._of(name)[0][2]

    def axis(self, name: str) -> int | None:
        return self._of(name)[0][0].axis

    def whole(self, name: str, kind: str = WEIGHT) -> Tensor:
        """The parameter, joined over all ranks, in the type it was written in."""
        first, ranks = self._of(name)[0][0], 1 if self.axis(name) is None else self.tensor_size
        count = math.prod(first.shape)
        slices = [self._range(name, kind, rank, 0, count).view(first.shape) for rank in range(ranks)]
        return slices[0] if first.axis is None else torch.cat(slices, dim=first.axis)

    def part(self, place: Place, tensor_size: int, kind: str = WEIGHT) -> Tensor:
        """[count], what belongs to ``place`` where ``tensor_size`` ranks share a parameter.

        Reads no more than it needs, unless the tensor-parallel degree has changed: then the whole parameter.
        """
        axis = self.axis(place.name)
        if axis == place.axis and (axis is None or tensor_size == self.tensor_size):
            return self._range(place.name, kind, place.tensor_rank if axis is not None else 0, place.start, place.count)
        own = self.whole(place.name, kind)
        if place.axis is not None:
            own = own.chunk(tensor_size, dim=place.axis)[place.tensor_rank]
        if own.shape != place.shape:
            raise ValueError(f"{self._folder}: {place.name} has slices {tuple(own.shape)}, here {place.shape}")
        return own.flatten()[place.start : place.start + place.count].clone()

    def _range(self, name: str, kind: str, rank: int, start: int, count: int) -> Tensor:
        """Elements ``start`` … of a slice, from all pieces that hold some of them."""
        found, parts = 0, []
        for place, file, kinds in self._of(name):
            low, high = max(start, place.start), min(start + count, place.start + place.count)
            if place.tensor_rank != rank or kind not in kinds or low >= high:
                continue
            with safe_open(self._folder / file, framework="pt") as tensors:
                parts.append(tensors.get_slice(_key(kind, name))[low - place.start : high - place.start])
            found += high - low
        if found != count:
            raise ValueError(f"{self._folder}: {found} of {count} elements of {kind} of {name} are there")
        return torch.cat(parts) if parts else torch.empty(0)

    def _of(self, name: str) -> list[tuple[Place, str, list[str]]]:
        if name not in self._pieces:
            raise ValueError(f"{self._folder} holds no {name}: it was made by another model or another stage")
        return self._pieces[name]


def merge(source: ShardFolder) -> Iterator[Piece]:
    """Every parameter as one piece, as a single process without ZeRO would write it."""
    for name in source.names:
        tensors = {kind: source.whole(name, kind) for kind in source.kinds(name)}
        shape = tuple(tensors[WEIGHT].shape)
        flat = {kind: value.flatten() for kind, value in tensors.items()}
        yield Piece(Place(name, shape, None, 0, 0, math.prod(shape)), flat)


def _key(kind: str, name: str) -> str:
    return f"{kind}/{name}"
