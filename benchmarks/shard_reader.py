"""The reader against plain webdataset, one sequence a member: ``python -m benchmarks.shard_reader --json out.json``.

Both arms make the same int64 batches from the same random sequences, interleaved; the ratio is of tokens a second.
Beside that: rows a CPU second of a larger corpus of short rows, the share of pairs in a batch that share one again in
the next epoch, and what it takes to open a data folder of 10^9 rows (its manifest only).
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import interleave, median_row, print_rows, ratios
from data_pipeline.endless import Source
from data_pipeline.manifest import Manifest, SplitInfo
from data_pipeline.order import EpochOrder
from data_pipeline.reader import ShardReader, Share
from data_pipeline.shards import write_shard
from data_pipeline.tables import MEMBER_COLUMNS, SHARD_COLUMNS, Shards
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PRED_ID
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row

os.environ["WDS_SECURE"] = "1"
import webdataset

VOCAB, LENGTH, SEQUENCES, PER_MEMBER, BATCH = 8192, 512, 8192, 128, 64
SHORT, GIGAROW = 64, 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rows", type=int, default=2**20, help="of the corpus of short rows")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sequences = random_sequences()
        readers = {
            "reader": shard_reader(Path(folder, "shards"), sequences),
            "webdataset": plain_webdataset(Path(folder), sequences),
        }
        speeds = interleave({name: partial(speed, read) for name, read in readers.items()}, arguments.repeats)
    figures = {f"tokens_per_second_{name}": values for name, values in speeds.items()}
    figures["ratio_vs_webdataset"] = ratios(speeds["reader"], speeds["webdataset"])
    rows = [median_row(name, values, length=LENGTH) for name, values in figures.items()]
    rows += corpus_of_short_rows(arguments.rows, arguments.repeats)
    rows += [median_row(name, values, rows=GIGAROW) for name, values in opening(arguments.repeats).items()]
    print_rows(write(arguments.json, "shard_reader", rows)["rows"])


def corpus_of_short_rows(number: int, repeats: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), random_sequences(number, SHORT))
        reader = ShardReader(folder, Share(BATCH))
        speeds = [rows_a_second(reader, number) for _ in range(repeats + 1)]  # the first epoch checks the members
        reader.close()
        shards = Manifest.load(folder).split("train").shards
        shares = [repeat_share(*(EpochOrder(shards, 0, epoch) for epoch in (first, first + 1))) for first in range(3)]
    known: dict[str, Any] = {"length": SHORT, "rows": number}
    return [
        median_row("rows_per_cpu_second_first_epoch", speeds[:1], **known),
        median_row("rows_per_cpu_second", speeds[1:], **known),
        median_row("repeat_share", shares, **known),
    ]


def rows_a_second(reader: ShardReader, number: int) -> float:
    """Of the process, whose threads are those of torch and the reader."""
    start = time.process_time()
    count = sum(len(batch.tokens) for batch in islice(reader, number // BATCH))
    return count / (time.process_time() - start)


def repeat_share(first: EpochOrder, second: EpochOrder) -> float:
    """Of the pairs of rows in a batch of one epoch, those that share a batch in the other."""
    rows, others = (np.stack(order.rows(0, order.size), 1) for order in (first, second))
    sizes = others.max(0) + 1
    batch_of = np.empty(sizes, np.int64)
    batch_of[tuple(others.T)] = np.arange(len(others)) // BATCH
    again = batch_of[tuple(rows.T)][: len(rows) // BATCH * BATCH].reshape(-1, BATCH)
    again.sort(1)
    pairs = sum(int((again[:, step:] == again[:, :-step]).sum()) for step in range(1, BATCH))
    return pairs / (len(again) * BATCH * (BATCH - 1) / 2)


OPEN = """
import re, sys, time
from data_pipeline.endless import EndlessSource, Place, Source
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
before, start = peak(), time.process_time()
EndlessSource(Source(sys.argv[1]), 0).first_rows(Place(), 64)
print(time.process_time() - start, peak() - before)
"""


def opening(repeats: int) -> dict[str, list[float]]:
    """CPU seconds, and MB by which the peak of resident memory grows, until the first batch of 10^9 rows is found."""
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), random_sequences(BATCH, SHORT))
        manifest = Manifest.load(folder)
        shards, members = np.zeros(GIGAROW // 2**13, SHARD_COLUMNS), np.zeros(GIGAROW // PER_MEMBER, MEMBER_COLUMNS)
        shards["number"], shards["members"], shards["rows"] = np.arange(len(shards)), 2**13 // PER_MEMBER, 2**13
        members["rows"] = PER_MEMBER
        split = manifest.split("train").model_copy(update={"rows": GIGAROW, "shards": Shards("train", shards, members)})
        manifest.model_copy(update={"splits": {"train": split}}).save(Path(folder))
        del shards, members, split, manifest
        found = [subprocess.check_output([sys.executable, "-c", OPEN, folder], text=True) for _ in range(repeats)]
    seconds, megabytes = zip(*(map(float, line.split()) for line in found), strict=True)
    return {"open_cpu_seconds": list(seconds), "open_megabytes": list(megabytes)}


def speed(read: Callable[[], int], repeat: int) -> float:
    """Tokens a second of ``read``, which returns the number of sequences; every ``repeat`` is alike."""
    start = time.perf_counter()
    return read() * LENGTH / (time.perf_counter() - start)


def random_sequences(number: int = SEQUENCES, length: int = LENGTH) -> np.ndarray:
    rows = np.random.default_rng(0).integers(PRED_ID + 1, VOCAB, (number, length), np.uint16)
    rows[:, 0], rows[:, -1] = BOS_ID, EOS_ID
    return rows


def write_folder(folder: Path, rows: np.ndarray) -> None:
    """As a build leaves it: 64 members a shard."""
    folder.mkdir(exist_ok=True)
    shards = []
    for number, start in enumerate(range(0, len(rows), 2**13)):
        part = rows[start : start + 2**13]
        blocks = np.split(part, range(PER_MEMBER, len(part), PER_MEMBER))
        shards.append(write_shard(folder, f"train-{number:06d}.tar", blocks))
    Manifest(
        source="random",
        config_digest="0" * 64,
        tokenizer_digest="0" * 64,
        vocab_size=VOCAB,
        max_length=rows.shape[1],
        dtype="uint16",
        splits={"train": SplitInfo(documents=1, tokens=rows.size, rows=len(rows), shards=shards)},
    ).save(folder)


def shard_reader(folder: Path, rows: np.ndarray) -> Callable[[], int]:
    write_folder(folder, rows)

    def run() -> int:
        reader = ShardReader(Source(folder, epochs=1), Share(BATCH))
        return sum(len(batch.tokens) for batch in reader)

    return run


def plain_webdataset(folder: Path, rows: np.ndarray) -> Callable[[], int]:
    path = folder / "single.tar"
    with tarfile.open(path, "w") as tar:
        for number, row in enumerate(rows):
            content = io.BytesIO()
            np.save(content, row, allow_pickle=False)
            entry = tarfile.TarInfo(f"{number:06d}.tokens.npy")
            entry.size = content.tell()
            content.seek(0)
            tar.addfile(entry, content)

    def batches() -> Iterator[torch.Tensor]:
        samples = iter(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
        while part := list(islice(samples, BATCH)):
            arrays = [np.load(io.BytesIO(sample["tokens.npy"]), allow_pickle=False) for sample in part]
            yield torch.from_numpy(np.stack(arrays).astype(np.int64))

    return lambda: sum(len(tokens) for tokens in batches())


if __name__ == "__main__":
    main()
