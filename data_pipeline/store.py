"""Random access to the members of one split; each bad member is reported once."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.manifest import Manifest
from data_pipeline.shards import BadMember, Tokens, member_name, read_member

log = logging.getLogger(__name__)

Block = tuple[Tokens, NDArray[np.int64]]

_CACHED_MEMBERS = 4


class MemberStore:
    """Blocks of ``split`` by the numbers (shard, member); ``exclude``d shards count as bad and are never opened."""

    def __init__(self, folder: str | Path, split: str, exclude: Collection[str] = ()) -> None:
        """Raises ManifestError if there is no manifest or no such split."""
        manifest = Manifest.load(folder)
        self.folder, self.split = Path(folder), split
        self.shards = manifest.split(split).shards
        self.rows = sum(shard.rows for shard in self.shards)
        self.max_length, self.vocab_size = manifest.max_length, manifest.vocab_size
        self.packed = manifest.packing == "documents" and split == "train"
        self.excluded = frozenset(exclude)
        self.bad_members: dict[tuple[int, int], str] = {}
        self._cache: OrderedDict[tuple[int, int], Block] = OrderedDict()

    def read(self, shard: int, member: int) -> Block | None:
        """Rows [R, T] and lengths [R]; None if the member is bad."""
        key = (shard, member)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        info = self.shards[shard]
        if key in self.bad_members or info.file in self.excluded:
            return None
        try:
            with (self.folder / info.file).open("rb") as file:
                name = member_name(info.file, member)
                known = info.members[member], self.max_length, self.vocab_size
                block = read_member(file, name, *known, packed=self.packed)
        except (BadMember, OSError) as error:
            self.bad_members[key] = str(error)
            log.warning("quarantined: member %d of %s/%s: %s", member, self.folder, info.file, error)
            return None
        self._cache[key] = block
        if len(self._cache) > _CACHED_MEMBERS:
            self._cache.popitem(last=False)
        return block
