"""From a sequence back to the documents that it holds parts of, by the files of lineage.py."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from data_pipeline import lineage
from data_pipeline.manifest import Manifest, ManifestError


class Origin(NamedTuple):
    """The place of a document in its (decompressed) file: bytes, or row numbers."""

    file: str
    start: int
    stop: int


def trace(place: str) -> list[Origin]:
    """Where the sequence at ``place``, ``FOLDER/SHARD.tar:ROW``, comes from. Raises ManifestError."""
    name, _, row = place.rpartition(":")
    shard = Path(name)
    if not row.isdecimal():
        raise ManifestError(f"{place}: give a shard and a row, such as data/mine/train-000003.tar:17")
    shards = Manifest.load(shard.parent).split(shard.name.partition("-")[0]).shards
    if (number := shards.find(shard.name)) is None:
        raise ManifestError(f"{shard} is no shard of {shard.parent}: give one that its manifest names")
    if int(row) >= (rows := int(shards.rows[number])):
        raise ManifestError(f"{place}: {shard.name} has the rows 0 to {rows - 1}: give one of them")
    return _read(shard.parent / lineage.file_of(shard.name), int(row))


def _read(path: Path, row: int) -> list[Origin]:
    import pyarrow
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["row", *Origin._fields], filters=[("row", "=", row)])
    except FileNotFoundError:
        raise ManifestError(f"{path} is missing: the data was built without lineage, build it again") from None
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:100]
        raise ManifestError(f"{path} is damaged ({reason}): run dualmask data build again") from None
    return [Origin(record["file"], record["start"], record["stop"]) for record in table.to_pylist()]
