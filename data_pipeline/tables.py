"""The shards and members of a split as columns: those of 10^9 rows are two files that are mapped instead of parsed."""

# S shards, M members

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from data_pipeline.files import sha256

Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Columns = NDArray[np.void]

# a shard has a number instead of a name, so that no table can lead out of the folder
SHARD_COLUMNS = np.dtype(
    [("number", "<u4"), ("members", "<u4"), ("bytes", "<u8"), ("rows", "<u8"), ("sha256", "u1", (32,))]
)
MEMBER_COLUMNS = np.dtype([("offset", "<u8"), ("bytes", "<u8"), ("crc32", "<u4"), ("rows", "<u4")])


class Member(NamedTuple):
    """One block of sequences inside a shard."""

    offset: Count  # of its tar header in the shard file, bytes
    bytes: Count  # of its .npy content
    crc32: Count  # of its .npy content
    rows: Count


class ShardInfo(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Annotated[str, Field(pattern=r"^(train|dev|test)-\d{6,}\.tar$")]  # a bare name: never leads out of the folder
    bytes: Count
    sha256: Digest
    members: tuple[Member, ...]

    @property
    def rows(self) -> int:
        return sum(member.rows for member in self.members)


class Shards(Sequence[ShardInfo]):
    """The shards of a split; each ``ShardInfo`` is made when it is asked for."""

    def __init__(self, split: str, shards: Columns, members: Columns) -> None:
        """Raises ValueError where the numbers of members contradict each other."""
        self._split, self.columns, self.members = split, shards, members
        counts = shards["members"].astype(np.int64)
        self.first_members = np.cumsum(counts) - counts  # of each shard, the place among ``members``, [S]
        if len(members) != counts.sum():
            raise ValueError(f"{len(members)} members, the shards have {counts.sum()}")

    @classmethod
    def of(cls, infos: Iterable[ShardInfo]) -> Shards:
        """Raises ValueError for a shard whose name is not SPLIT-NNNNNN.tar of one split."""
        infos = tuple(infos)
        split = infos[0].file.partition("-")[0] if infos else ""
        numbers = [int(info.file.rpartition("-")[2].removesuffix(".tar")) for info in infos]
        for number, info in zip(numbers, infos, strict=True):
            if info.file != shard_file(split, number):
                raise ValueError(f"{info.file} stands where {shard_file(split, number)} should")
        shards = np.zeros(len(infos), SHARD_COLUMNS)
        shards["number"] = numbers
        shards["members"] = [len(info.members) for info in infos]
        shards["bytes"] = [info.bytes for info in infos]
        shards["rows"] = [info.rows for info in infos]
        shards["sha256"] = np.frombuffer(bytes.fromhex("".join(info.sha256 for info in infos)), np.uint8).reshape(
            -1, 32
        )
        return cls(split, shards, np.array([member for info in infos for member in info.members], MEMBER_COLUMNS))

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Of each shard, [S]."""
        return self.columns["rows"].astype(np.int64)

    def file(self, shard: int) -> str:
        return shard_file(self._split, int(self.columns["number"][shard]))

    def find(self, file: str) -> int | None:
        """The shard that is called so."""
        split, _, number = file.removesuffix(".tar").rpartition("-")
        if split != self._split or not number.isdecimal():
            return None
        places = np.flatnonzero(self.columns["number"] == int(number))
        return int(places[0]) if len(places) else None

    def size(self, shard: int) -> int:
        """Bytes."""
        return int(self.columns["bytes"][shard])

    def digest(self, shard: int) -> str:
        return self.columns["sha256"][shard].tobytes().hex()

    def members_of(self, shard: int) -> Columns:
        first = int(self.first_members[shard])
        return self.members[first : first + int(self.columns["members"][shard])]

    def member_rows(self, shard: int) -> NDArray[np.int64]:
        """Of each member of a shard. Raises ValueError where they are not the shard's rows."""
        rows = self.members_of(shard)["rows"].astype(np.int64)
        if rows.sum() != self.rows[shard]:
            raise ValueError(f"{self.file(shard)}: its members have {rows.sum()} rows, not {self.rows[shard]}")
        return rows

    def member(self, shard: int, number: int) -> Member:
        return Member(*self.members_of(shard)[number].tolist())

    def __len__(self) -> int:
        return len(self.columns)

    @overload
    def __getitem__(self, index: int) -> ShardInfo: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ShardInfo, ...]: ...
    def __getitem__(self, index: int | slice) -> ShardInfo | tuple[ShardInfo, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = range(len(self))[index]  # raises IndexError
        members = tuple(Member(*member) for member in self.members_of(number).tolist())
        return ShardInfo(file=self.file(number), bytes=self.size(number), sha256=self.digest(number), members=members)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Shards):
            return NotImplemented
        same_split = self._split == other._split or not len(self)
        return (
            same_split and np.array_equal(self.columns, other.columns) and np.array_equal(self.members, other.members)
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A field of this type takes any sequence of ``ShardInfo``."""

        def in_columns(value: Any, check: Callable[[Any], tuple[ShardInfo, ...]]) -> Shards:
            return value if isinstance(value, Shards) else cls.of(check(value))

        infos = handler.generate_schema(tuple[ShardInfo, ...])
        return core_schema.no_info_wrap_validator_function(in_columns, infos)


def shard_file(split: str, number: int) -> str:
    return f"{split}-{number:06d}.tar"


def joined(splits: Iterable[Shards]) -> tuple[Columns, Columns]:
    """The shards and the members of all ``splits``, one split behind the other."""
    splits = tuple(splits)
    shards = [np.zeros(0, SHARD_COLUMNS), *(split.columns for split in splits)]
    members = [np.zeros(0, MEMBER_COLUMNS), *(split.members for split in splits)]
    return np.concatenate(shards), np.concatenate(members)


def parted(counts: dict[str, int], shards: Columns, members: Columns) -> Iterator[tuple[str, Shards]]:
    """What ``joined`` has joined, given the number of shards in each split. Raises ValueError where they do not fit."""
    if sum(counts.values()) != len(shards):
        raise ValueError(f"{len(shards)} shards, the splits have {sum(counts.values())}")
    rest, first = iter(np.split(shards, np.cumsum(list(counts.values())))), 0
    for name, part in zip(counts, islice(rest, len(counts)), strict=True):
        number = int(part["members"].sum(dtype=np.int64))
        yield name, Shards(name, part, members[first : first + number])
        first += number


def table_bytes(table: Columns) -> tuple[bytes, str]:
    """A ``.npy`` file of the table, and its SHA-256."""
    content = io.BytesIO()
    np.lib.format.write_array(content, table, version=(1, 0), allow_pickle=False)
    return content.getvalue(), hashlib.sha256(content.getbuffer()).hexdigest()


def map_table(path: Path, digest: str, columns: np.dtype[np.void]) -> Columns:
    """The table in file ``path``, of which only what is looked at comes into memory. Raises ValueError or OSError.

    Tables are replaced by renaming and never changed, so a mapped one stays as it was when its digest was taken.
    """
    if sha256(path) != digest:
        raise ValueError("its SHA-256 differs from the manifest's")
    table = np.lib.format.open_memmap(path, mode="r").view(np.ndarray)  # refuses objects
    if table.dtype != columns or table.ndim != 1:
        raise ValueError("its columns are not those of this format")
    return table
