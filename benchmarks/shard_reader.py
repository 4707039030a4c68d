"""The reader against plain webdataset, one sequence a member: ``python -m benchmarks.shard_reader --json out.json``.

Both arms make the same int64 batches from the same random sequences, interleaved; the ratio is of tokens a second.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import interleave, median_row, print_rows, ratios
from data_pipeline.endless import Source
from data_pipeline.manifest import Manifest, SplitInfo
from data_pipeline.reader import ShardReader, Share
from data_pipeline.shards import write_shard
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PRED_ID
from dualmask.evaluation.report import write

os.environ["WDS_SECURE"] = "1"
import webdataset

VOCAB, LENGTH, SEQUENCES, PER_MEMBER, BATCH = 8192, 512, 8192, 128, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--repeats", type=int, default=7)
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
    print_rows(write(arguments.json, "shard_reader", rows)["rows"])


def speed(read: Callable[[], int], repeat: int) -> float:
    """Tokens a second of ``read``, which returns the number of sequences; every ``repeat`` is alike."""
    start = time.perf_counter()
    return read() * LENGTH / (time.perf_counter() - start)


def random_sequences() -> np.ndarray:
    rows = np.random.default_rng(0).integers(PRED_ID + 1, VOCAB, (SEQUENCES, LENGTH)).astype(np.uint16)
    rows[:, 0], rows[:, -1] = BOS_ID, EOS_ID
    return rows


def shard_reader(folder: Path, rows: np.ndarray) -> Callable[[], int]:
    folder.mkdir()
    shard = write_shard(folder, "train-000000.tar", np.split(rows, SEQUENCES // PER_MEMBER))
    Manifest(
        source="random",
        config_digest="0" * 64,
        tokenizer_digest="0" * 64,
        vocab_size=VOCAB,
        max_length=LENGTH,
        dtype="uint16",
        splits={"train": SplitInfo(documents=1, tokens=rows.size, rows=SEQUENCES, shards=(shard,))},
    ).save(folder)

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
