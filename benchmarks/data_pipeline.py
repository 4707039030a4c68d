"""What a data build needs as the corpus grows: ``python -m benchmarks.data_pipeline --json out.json --plot out.svg``.

A corpus of each size is generated (JSON lines of sentences of Zipf words, one document in ten a copy, changed or not,
of an earlier one) and built by a process of its own. While it runs, the resident memory of that process (the driver)
and of all processes together is sampled, where memory that processes share, Ray's object store as well, counts once
(PSS), and so are the CPU seconds of all. Sizes that the result file already holds are kept: one call may measure one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.timing import median_row, print_rows
from data_pipeline.manifest import Manifest
from data_pipeline.report import REPORT_FILE
from dualmask.config.data import DataBuildConfig
from dualmask.evaluation.report import select, write
from dualmask.evaluation.statistics import Row

MEGABYTE = 10**6
FILE_BYTES = 32 * MEGABYTE
PAUSE_SECONDS = 0.25  # between two samples
STEMS, ENDINGS = 4000, ("", "s", "ed", "ing", "er", "ly")
BUILD = (
    "import sys\n"
    "from data_pipeline.build import build\n"
    "from dualmask.config.data import DataBuildConfig\n"
    "build(DataBuildConfig.model_validate_json(sys.argv[1]))\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--plot", type=Path, help="picture of the memory, as PNG or SVG")
    parser.add_argument("--megabytes", type=int, nargs="*", default=[10, 100, 400, 2000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where corpora and builds go while they are needed")
    arguments = parser.parse_args()
    rows = earlier_rows(arguments.json, arguments.megabytes)
    for size in arguments.megabytes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            new = measured(Path(folder), size, arguments.workers)
            print_rows(new)
            rows = sorted([*rows, *new], key=lambda row: row["megabytes"])
            write(arguments.json, "data_pipeline", rows)
    if arguments.plot:
        plot(rows, arguments.plot)


def earlier_rows(path: Path, megabytes: Sequence[int]) -> list[Row]:
    """Of the sizes that are not measured now."""
    if not path.exists():
        return []
    rows: list[Row] = json.loads(path.read_bytes())["rows"]
    return [row for row in rows if row["megabytes"] not in megabytes]


# --- the corpus -------------------------------------------------------------------------------------------------------


def write_corpus(folder: Path, size: int, file_bytes: int = FILE_BYTES) -> int:
    """Files of JSON lines of ``size`` bytes in all; returns the bytes written."""
    folder.mkdir()
    written = number = 0
    documents = texts(np.random.default_rng(0))
    while written < size:
        with (folder / f"{number:05d}.jsonl").open("wb") as file:
            while file.tell() < file_bytes and written + file.tell() < size:
                file.write(json.dumps({"text": next(documents)}).encode() + b"\n")
            written += file.tell()
        number += 1
    return written


def texts(generator: np.random.Generator) -> Iterator[str]:
    stems = ["".join(generator.choice(list("aeioubcdfglmnprst"), 2 + number % 7)) for number in range(STEMS)]
    words = np.array([stem + ending for stem in stems for ending in ENDINGS], dtype=object)
    earlier: list[list[str]] = []
    while True:
        if earlier and generator.random() < 0.1:
            sentences = list(earlier[generator.integers(len(earlier))])
            if generator.random() < 0.5:
                sentences[generator.integers(len(sentences))] = sentence(words, generator)
        else:
            sentences = [sentence(words, generator) for _ in range(int(generator.lognormal(3.0, 0.7)) + 4)]
            earlier = [*earlier[-999:], sentences]
        yield "\n\n".join(" ".join(sentences[at : at + 5]) for at in range(0, len(sentences), 5))


def sentence(words: np.ndarray, generator: np.random.Generator) -> str:
    ranks = (len(words) ** generator.random(int(generator.integers(6, 25)))).astype(np.int64) - 1
    return " ".join(words[ranks]).capitalize() + "."


# --- the build --------------------------------------------------------------------------------------------------------


@dataclass
class Usage:
    """Of a process and all that it started."""

    driver_bytes: int = 0
    all_bytes: int = 0
    cpu_seconds: dict[int, float] = field(default_factory=dict)

    def sample(self, process: psutil.Process) -> None:
        together = 0
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory, times = each.memory_full_info(), each.cpu_times()
                together += memory.pss
                self.cpu_seconds[each.pid] = times.user + times.system
                if each.pid == process.pid:
                    self.driver_bytes = max(self.driver_bytes, memory.rss)
        self.all_bytes = max(self.all_bytes, together)


def watched(command: Sequence[str]) -> Usage:
    """What ``command`` used. Raises SystemExit if it fails."""
    usage, process = Usage(), psutil.Popen(command)
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            usage.sample(process)
        time.sleep(PAUSE_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} ended with {process.returncode}")
    return usage


def measured(folder: Path, megabytes: int, workers: int) -> list[Row]:
    written = write_corpus(folder / "corpus", megabytes * MEGABYTE)
    config = DataBuildConfig.model_validate(
        {
            "output": folder / "built",
            "source": {"kind": "jsonl", "paths": [str(folder / "corpus")]},
            "clean": {"style": "plain"},
            "tokenizer": {"vocab_size": 8192, "sample_megabytes": min(8.0, megabytes / 4)},
            "max_length": 128,
            "workers": workers,
        }
    )
    start = time.monotonic()
    usage = watched([sys.executable, "-c", BUILD, config.model_dump_json()])
    cpu_seconds = sum(usage.cpu_seconds.values())
    counts = json.loads((config.output / REPORT_FILE).read_bytes())["documents"]
    values = (
        usage.driver_bytes / MEGABYTE,
        usage.all_bytes / MEGABYTE,
        cpu_seconds,
        written / MEGABYTE / cpu_seconds,
        time.monotonic() - start,
        counts["documents kept"],
        Manifest.load(config.output).splits["train"].tokens,
    )
    return [median_row(name, [value], megabytes=megabytes) for name, value in zip(METRICS, values, strict=True)]


METRICS = (
    "driver_megabytes",
    "all_megabytes",
    "cpu_seconds",
    "megabytes_per_cpu_second",
    "seconds",
    "documents_kept",
    "train_tokens",
)


# --- the picture ------------------------------------------------------------------------------------------------------


def plot(rows: Sequence[Row], path: Path) -> None:
    """Peak memory of the driver and of all processes, and the bounds that they keep, over the size of the corpus."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    panel = figure.add_subplot()
    for number, (metric, (name, bound)) in enumerate(BOUNDS.items()):
        points = [(row["megabytes"], row["value"]) for row in select(rows, metric=metric)]
        panel.plot(*zip(*points, strict=True), color=f"C{number}", marker="o", markersize=4, label=name)
        panel.axhline(bound, color=f"C{number}", linestyle=":", linewidth=0.8, label=f"bound: {bound:,} MB")
    panel.set(xscale="log", ylim=(0, None), xlabel="corpus, MB", ylabel="peak memory, MB", title="Memory of a build")
    panel.legend(ncols=2, loc="center left")
    figure.savefig(path, dpi=110)


BOUNDS = {"driver_megabytes": ("driver", 600), "all_megabytes": ("all processes", 3000)}

if __name__ == "__main__":
    main()
