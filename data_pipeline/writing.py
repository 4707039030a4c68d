"""Stage 4: from packed rows to the files of a data folder: the shards of each bucket, and dev and test as text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline import lineage, packing
from data_pipeline.files import replacing
from data_pipeline.manifest import SPLITS, TOKENIZER_FILE, ShardInfo, SplitInfo
from data_pipeline.packed import Packed, blocks, row_ids
from data_pipeline.packing import Bucket
from data_pipeline.shards import write_shard
from data_pipeline.steps import Result, Step
from dualmask.config.data import DataBuildConfig
from dualmask.core.tokenizer import Tokenizer

TEXTS = "texts"
_SHARDS = "shards"


@dataclass(frozen=True)
class Layout:
    """Of all shards of a build."""

    output: Path
    rows: Path  # folder of the buckets
    rows_per_member: int
    max_length: int
    with_lineage: bool

    @classmethod
    def of(cls, config: DataBuildConfig, work: Path, output: Path) -> Layout:
        shards, rows = config.shards, work / packing.FOLDER
        return cls(output, rows, shards.sequences_per_member, config.max_length, shards.lineage)


def write_shards(config: DataBuildConfig, work: Path, made_from: str) -> dict[str, SplitInfo]:
    """Writes the shards that do not yet exist for these rows, with a running Ray; the description of all splits."""
    step = Step(work / _SHARDS, made_from)
    buckets = packing.buckets(work)
    tasks = _tasks_of_splits(buckets, config)
    together = {file: task for part in tasks.values() for file, task in part.items()}
    for file in together:
        if not _is_whole(config.output / file, step, config.shards.lineage):
            step.record(file).unlink(missing_ok=True)
    layout = Layout.of(config, work, config.output.absolute())
    made = map(ShardInfo.model_validate, step.run(make_shard, together, layout=layout))
    described = {info.file: info for info in made}
    return {
        split: SplitInfo(
            documents=sum(part.documents for part in buckets if part.split == split),
            tokens=sum(part.tokens for part in buckets if part.split == split),
            rows=sum(part.rows for part in buckets if part.split == split),
            shards=tuple(described[file] for file in tasks[split]),
        )
        for split in SPLITS
    }


def write_again(files: Collection[str], config: DataBuildConfig, work: Path, target: Path, made_from: str) -> None:
    """Writes some of the shards into the folder ``target``, with a running Ray."""
    step = Step(target, made_from)
    tasks = _tasks_of_splits(packing.buckets(work), config)
    wanted = {file: task for part in tasks.values() for file, task in part.items() if file in files}
    step.run(make_shard, wanted, layout=Layout.of(config, work, target))


def _tasks_of_splits(buckets: list[Bucket], config: DataBuildConfig) -> dict[str, dict[str, dict[str, Any]]]:
    return {split: dict(_tasks([part for part in buckets if part.split == split], config)) for split in SPLITS}


def _tasks(buckets: list[Bucket], config: DataBuildConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of each shard; shards are numbered through the buckets of a split."""
    rows_per_shard = config.shards.sequences_per_member * config.shards.members_per_shard
    places = ((bucket, first) for bucket in buckets for first in range(0, bucket.rows, rows_per_shard))
    for number, (bucket, first) in enumerate(places):
        stop = min(first + rows_per_shard, bucket.rows)
        yield f"{bucket.split}-{number:06d}.tar", {"bucket": bucket.name, "first": first, "stop": stop}


def _is_whole(shard: Path, step: Step, with_lineage: bool) -> bool:
    """Whether the finished ``shard`` is still there, by its size, and its lineage."""
    if with_lineage and not (shard.parent / lineage.file_of(shard.name)).exists():
        return False
    try:
        return bool(shard.stat().st_size == step.result(shard.name)["bytes"])
    except OSError:
        return False


def make_shard(folder: Path, key: str, bucket: str, first: int, stop: int, layout: Layout) -> Result:
    """Runs in Ray's processes: rows ``first`` … ``stop`` - 1 of a bucket as shard ``key``."""
    packed = Packed.of(layout.rows, bucket)
    if layout.with_lineage:
        lineage.write(layout.output, key, packed.pairs, packed.origins, first, stop)
    rows = blocks(packed, first, stop, layout.rows_per_member, layout.max_length)
    return write_shard(layout.output, key, rows).model_dump(mode="json")


def write_texts(output: Path, work: Path, made_from: str) -> None:
    """Writes the rows of dev and test, one ``{"id", "text"}`` per line, in the order of the shards."""
    step = Step(work / TEXTS, made_from)
    for split in ("dev", "test"):
        tasks, first = {}, 0
        for bucket in packing.buckets(work):
            if bucket.split == split:
                tasks[bucket.name] = {"split": split, "first": first}
                first += bucket.rows
        shared = {"tokenizer_file": output.absolute() / TOKENIZER_FILE, "rows_folder": work / packing.FOLDER}
        step.run(make_texts, tasks, **shared)
        with replacing(output / f"{split}.jsonl") as temporary, temporary.open("wb") as target:
            for name in tasks:
                with (step.folder / f"{name}.jsonl").open("rb") as source:
                    shutil.copyfileobj(source, target)


def make_texts(folder: Path, key: str, split: str, first: int, tokenizer_file: Path, rows_folder: Path) -> Result:
    """Runs in Ray's processes: the texts of one bucket. ``first``: the number of its first row in the split."""
    tokenizer = Tokenizer(tokenizer_file)
    with replacing(folder / f"{key}.jsonl") as temporary, temporary.open("wb") as file:
        for number, ids in enumerate(row_ids(Packed.of(rows_folder, key)), first):
            line = json.dumps({"id": f"{split}-{number:06d}", "text": tokenizer.decode(ids)}, ensure_ascii=False)
            file.write(f"{line}\n".encode())
    return {}
