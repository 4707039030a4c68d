"""From documents to shards, against sentencepiece alone: ``python -m benchmarks.data_tokens --json out.json``.

Both arms begin with the documents that a build has read, cleaned and written, on processes that have started. ``bare``
reads them and encodes each; its ids are thrown away. ``build`` is what ``dualmask data build`` does from there: it
encodes, shuffles, cuts rows and writes shards with their checksums. Repeats are interleaved; CPU seconds are of all
processes of an arm, those that wait included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from multiprocessing.pool import Pool
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sentencepiece

from benchmarks.data_peers import prepare
from benchmarks.data_pipeline import MEGABYTE
from benchmarks.timing import Seconds, interleave, load, median_row, print_rows, ratios
from data_pipeline import documents, packing, writing
from data_pipeline.cluster import running_ray
from dualmask.config.data import DataBuildConfig
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row

Processes = Callable[[], Sequence[psutil.Process]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where corpus and build go while they are needed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = compared(Path(folder), arguments.megabytes, arguments.workers, arguments.repeats)
    print_rows(write(arguments.json, "data_tokens", rows, load=load())["rows"])


def compared(folder: Path, megabytes: int, workers: int, repeats: int) -> list[Row]:
    prepare(folder, megabytes * MEGABYTE)
    config = configured(folder, workers)
    work, tokenizer = folder / "built" / ".work", folder / "tokenizer.model"
    with running_ray(workers), multiprocessing.get_context("spawn").Pool(workers) as pool:
        documents.extract(config, work, "read")
        documents.tidy(work)
        blocks = documents.selected(work)
        files = [work / documents.FOLDER / f"{block.name}.parquet" for block in blocks]
        arms: dict[str, Callable[[int], Seconds]] = {
            "bare": partial(timed, lambda: of_pool(pool), lambda _: encode(pool, files, tokenizer)),
            "build": partial(timed, lambda: all_but(pool), lambda repeat: shards(config, work, tokenizer, repeat)),
        }
        seconds = interleave(arms, repeats)
    size = sum(pc.sum(pq.read_table(file, columns=["bytes"])["bytes"]).as_py() for file in files) / MEGABYTE
    return judged(seconds, size)


def configured(folder: Path, workers: int) -> DataBuildConfig:
    """All documents are kept, and are training text."""
    config = {
        "output": folder / "built",
        "source": {"kind": "jsonl", "paths": [str(folder / "corpus")]},
        "clean": {"style": "plain"},
        "dedup": {"paragraphs": False, "near_duplicate": None},
        "tokenizer": {"model": folder / "tokenizer.model"},
        "split": {"dev": 0.0, "test": 0.0},
        "max_length": 128,
        "workers": workers,
    }
    return DataBuildConfig.model_validate(config)


def judged(seconds: dict[str, list[Seconds]], size: float) -> list[Row]:
    rows = []
    for clock in ("cpu", "wall"):
        rate = {arm: [size / getattr(one, clock) for one in each] for arm, each in seconds.items()}
        rows += [median_row("megabytes_per_second", rate[arm], arm=arm, clock=clock) for arm in rate]
        rows.append(median_row("over_bare", ratios(rate["build"], rate["bare"]), arm="build", clock=clock))
    return [row | {"megabytes": round(size)} for row in rows]


# --- arms -------------------------------------------------------------------------------------------------------------


def timed(processes: Processes, arm: Callable[[int], None], repeat: int) -> Seconds:
    cpu, wall = cpu_seconds(processes()), time.monotonic()
    arm(repeat)
    return Seconds(time.monotonic() - wall, cpu_seconds(processes()) - cpu)


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def of_pool(pool: Pool) -> list[psutil.Process]:
    """The processes of ``pool`` and this one, which gives them work."""
    workers: list[multiprocessing.Process] = pool._pool  # type: ignore[attr-defined]
    return [psutil.Process(), *(psutil.Process(worker.pid) for worker in workers)]


def all_but(pool: Pool) -> list[psutil.Process]:
    """This process and Ray's."""
    others = {process.pid for process in of_pool(pool)} - {os.getpid()}
    everything = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return [process for process in everything if process.pid not in others]


def encode(pool: Pool, files: Sequence[Path], tokenizer: Path) -> None:
    for _ in pool.imap_unordered(partial(encode_file, tokenizer), files):
        pass


def encode_file(tokenizer: Path, file: Path) -> int:
    """In a process of the pool: the number of ids."""
    import pyarrow.parquet as pq

    model = _model(str(tokenizer))
    return sum(len(model.encode(text)) for text in pq.read_table(file, columns=["text"])["text"].to_pylist())


@lru_cache(maxsize=1)
def _model(file: str) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=file)


def shards(config: DataBuildConfig, work: Path, tokenizer: Path, repeat: int) -> None:
    packing.pack(work, tokenizer, config, f"repeat {repeat}")
    writing.write_shards(config, work, f"repeat {repeat}")


if __name__ == "__main__":
    main()
