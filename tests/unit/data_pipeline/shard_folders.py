"""Small data folders written straight through the shard writer: no Ray, no tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from data_pipeline.manifest import Manifest, SplitInfo
from data_pipeline.shards import write_shard
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID

VOCAB, LENGTH = 1000, 16


def make_block(first: int, count: int) -> np.ndarray:
    """Rows [count, LENGTH] that name themselves: the ids of row n hold the digits of n; lengths vary with n."""
    block = np.full((count, LENGTH), PAD_ID, np.uint16)
    for row, number in zip(block, range(first, first + count), strict=True):
        length = 10 + number % (LENGTH - 9)
        row[:length] = [BOS_ID, 10 + number // 900, 10 + number % 900, *range(20, 16 + length), EOS_ID]
    return block


def row_number(tokens: np.ndarray) -> int:
    return (int(tokens[1]) - 10) * 900 + int(tokens[2]) - 10


def write_folder(
    folder: Path, rows: int = 150, per_member: int = 8, members: int = 5, split: str = "train", first: int = 0
) -> Path:
    """``rows`` sequences from number ``first`` on, in members of ``per_member``, ``members`` a shard; the last of each
    may be smaller."""
    folder.mkdir(exist_ok=True)
    shards = []
    for number, start in enumerate(range(0, rows, per_member * members)):
        stop = min(start + per_member * members, rows)
        blocks = [make_block(first + at, min(per_member, stop - at)) for at in range(start, stop, per_member)]
        shards.append(write_shard(folder, f"{split}-{number:06d}.tar", blocks))
    Manifest(
        source="test",
        config_digest="0" * 64,
        tokenizer_digest="0" * 64,
        vocab_size=VOCAB,
        max_length=LENGTH,
        dtype="uint16",
        splits={split: SplitInfo(documents=1, tokens=1, rows=rows, shards=tuple(shards))},
    ).save(folder)
    return folder


def as_format_1(folder: Path) -> Path:
    """The folder as earlier versions wrote it: everything in ``manifest.json``."""
    manifest = Manifest.load(folder)
    head = json.loads((folder / "manifest.json").read_text())
    del head["tables"]
    head["format"] = 1
    for name, info in manifest.splits.items():
        head["splits"][name]["shards"] = [shard.model_dump(mode="json") for shard in info.shards]
    (folder / "manifest.json").write_text(json.dumps(head, indent=1))
    (folder / "shards.npy").unlink()
    (folder / "members.npy").unlink()
    return folder
