"""Random access to the rows of one split; each bad member is reported once."""

# T tokens of a row, n rows that are asked for

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from data_pipeline.manifest import Manifest, ManifestError
from data_pipeline.order import WINDOW, Indices, Rows
from data_pipeline.remote import DEFAULT_CACHE, Remote, Wanted
from data_pipeline.shards import MEMBER_HEADER, BadMember, Tokens, member_name, read_member, token_dtype
from dualmask.config.address import is_address
from dualmask.core.tokenizer import PAD_ID

log = logging.getLogger(__name__)

Block = tuple[Tokens, NDArray[np.int64]]

_OPEN_FILES = 64


class MemberStore:
    """Rows of ``split`` by the numbers (shard, member, row); ``exclude``d shards count as bad and are never opened.

    A member is read whole and checked once, before the first of its rows is handed out; from then on a row is one read
    of its bytes, so that memory does not grow with what has been read. (Files are read, not mapped: one that is cut
    while it is in use is a bad member, and not the end of the process.)
    """

    def __init__(
        self, folder: str | Path, split: str, exclude: Collection[str] = (), cache_bytes: int = DEFAULT_CACHE
    ) -> None:
        """Raises ManifestError if there is no manifest or no such split."""
        self._remote = Remote(str(folder), cache_bytes) if is_address(folder) else None
        self.manifest = Manifest.load(self._remote.fetch_head() if self._remote else folder)
        self.folder, self.split = folder, split
        self.shards = self.manifest.split(split).shards
        self.max_length, self.vocab_size = self.manifest.max_length, self.manifest.vocab_size
        self.packed = self.manifest.packing == "documents" and split == "train"
        self.excluded = frozenset(exclude)
        self.bad_members: dict[tuple[int, int], str] = {}
        if self._remote is not None and (needed := self._window_bytes()) > cache_bytes:
            raise ManifestError(
                f"{folder}: data.cache_gigabytes={cache_bytes / 1e9:g} is less than the {needed / 1e9:.2g} GB that "
                "rows are shuffled in at a time: raise it"
            )
        self._dtype = token_dtype(self.vocab_size)
        self._checked = np.zeros(len(self.shards.members), np.bool_)
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()

    def member(self, shard: int, member: int) -> Block | None:
        """Rows [R, T] and lengths [R], checked again; None if the member is bad."""
        if (shard, member) in self.bad_members or self.shards.file(shard) in self.excluded:
            return None
        try:
            name = member_name(self.shards.file(shard), member)
            known = self.shards.member(shard, member), self.max_length, self.vocab_size
            block = read_member(self._file(shard), name, *known, packed=self.packed)
        except (BadMember, OSError) as error:
            self._quarantine(shard, member, str(error))
            return None
        self._checked[self.shards.first_members[shard] + member] = True
        return block

    def rows(self, where: Rows) -> Block:
        """Rows [n, T] and their lengths [n]; length 0 where the member is bad."""
        tokens = np.full((len(where.rows), self.max_length), PAD_ID, self._dtype)
        good = np.flatnonzero(self._check(where))
        try:
            tokens[good] = self._read(Rows(*(column[good] for column in where)))
        except (BadMember, OSError):  # they were good when they were checked
            for index in good.tolist():
                tokens[index] = self._read_again(Rows(*(column[[index]] for column in where)))
        return tokens, np.count_nonzero(tokens != PAD_ID, axis=1)

    def expect(self, shards: Collection[int]) -> None:
        """Only these are read for some time, but for replacements: of an object store, they are fetched meanwhile."""
        for shard in self._files.keys() - set(shards):
            self._files.pop(shard).close()
        if self._remote is not None:
            self._remote.expect([self._wanted(shard) for shard in shards if shard not in self._files])

    def close(self) -> None:
        """Ends what is going on in the background; reading may go on."""
        if self._remote is not None:
            self._remote.close()

    def blocks(self) -> Iterator[Block]:
        """The good members of all shards as they are stored."""
        for shard in range(len(self.shards)):
            for member in range(len(self.shards.members_of(shard))):
                if (block := self.member(shard, member)) is not None:
                    yield block

    def _places(self, where: Rows) -> Indices:
        """Among the members of all shards."""
        return self.shards.first_members[where.shards] + where.members

    def _check(self, where: Rows) -> NDArray[np.bool_]:
        """Which of the rows [n] are of good members; members that were never read are read."""
        places = self._places(where)
        fresh = np.flatnonzero(~self._checked[places])
        fresh = fresh[np.unique(places[fresh], return_index=True)[1]]
        for shard, member in zip(where.shards[fresh].tolist(), where.members[fresh].tolist(), strict=True):
            self.member(shard, member)
        return self._checked[places]

    def _read(self, where: Rows) -> Tokens:
        """Raises BadMember where a file has become shorter, or OSError."""
        size = self.max_length * self._dtype.itemsize
        columns = self.shards.members[self._places(where)]
        ends = (columns["offset"] + columns["bytes"]).astype(np.int64) + MEMBER_HEADER
        starts = ends - (columns["rows"].astype(np.int64) - where.rows) * size
        order = np.argsort(where.shards, kind="stable")  # one file after the other: few may be open at a time
        content = b"".join(
            [
                os.pread(self._file(shard).fileno(), size, start)
                for shard, start in zip(where.shards[order].tolist(), starts[order].tolist(), strict=True)
            ]
        )
        if len(content) != len(order) * size:
            raise BadMember("has become shorter since it was checked")
        tokens = np.empty((len(order), self.max_length), self._dtype)
        tokens[order] = np.frombuffer(content, self._dtype).reshape(-1, self.max_length)
        return tokens

    def _read_again(self, where: Rows) -> Tokens | int:
        """A single row, or PAD if it cannot be read any more."""
        if not self._checked[self._places(where)].all():  # another row of the member could not be read
            return PAD_ID
        try:
            return self._read(where)[0]
        except (BadMember, OSError) as error:
            self._quarantine(int(where.shards[0]), int(where.members[0]), str(error))
            return PAD_ID

    def _file(self, shard: int) -> BinaryIO:
        """The open file of a shard; those that were used last stay open."""
        if (file := self._files.get(shard)) is None:
            file = self._files[shard] = self._open(shard)
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        else:
            self._files.move_to_end(shard)
        return file

    def _open(self, shard: int) -> BinaryIO:
        if self._remote is not None:
            return self._remote.open(self._wanted(shard))
        return (Path(self.folder) / self.shards.file(shard)).open("rb")

    def _window_bytes(self) -> int:
        """Of the shards that a window of the order may need."""
        sizes = self.shards.columns["bytes"].astype(np.int64)
        row = sizes.sum() / self.shards.rows.sum()
        return int(min(sizes.sum(), 2 * WINDOW * row + 2 * sizes.max()))

    def _wanted(self, shard: int) -> Wanted:
        return Wanted(self.shards.file(shard), self.shards.size(shard), self.shards.digest(shard))

    def _quarantine(self, shard: int, member: int, reason: str) -> None:
        self.bad_members[shard, member] = reason
        self._checked[self.shards.first_members[shard] + member] = False
        log.warning("quarantined: member %d of %s/%s: %s", member, self.folder, self.shards.file(shard), reason)
