"""A small real corpus, Python's language reference as a folder of text files; builds of it, killed
and whole, and what they hold."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import psutil
import pyarrow.parquet as pq

from data_pipeline.manifest import Manifest
from dualmask.config.data import DataBuildConfig

BOILERPLATE = "This paragraph stands in every single document of the corpus."


def write_corpus(folder: Path) -> None:
    for name, text in sorted(topics.items()):
        (folder / f"{name}.txt").write_text(f"{text}\n\n{BOILERPLATE}\n", encoding="utf-8")
    original = " ".join(f"Row number {row} of this table holds the name of a town." for row in range(100))
    (folder / "original.txt").write_text(original)
    (folder / "revised.txt").write_text(original.replace("Row number 7 ", "The seventh row "))


def config_for(output: Path, corpus: Path, **changes: object) -> DataBuildConfig:
    values = {
        "output": output,
        "source": {"kind": "text", "paths": [str(corpus)]},
        "split": {"dev": 0.15, "test": 0.15},
        "tokenizer": {"vocab_size": 600},
        "max_length": 32,
        "shards": {"sequences_per_member": 16, "members_per_shard": 8},
        "workers": 2,
    }
    return DataBuildConfig.model_validate(values | changes)


def digests(folder: Path) -> dict[str, str]:
    splits = Manifest.load(folder).splits.values()
    return {shard.file: shard.sha256 for split in splits for shard in split.shards}


def documents_of(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(sorted(folder.glob(".work/documents/*.parquet"))).to_pylist()


def texts_of(folder: Path, split: str) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / f"{split}.jsonl").read_text("utf-8").splitlines()]


def kill_when(process: subprocess.Popen[bytes], output: Path, pattern: str) -> None:
    """kill -9 the build as soon as a file like ``pattern`` is there."""
    wait_for(process, output, pattern)
    kill(process)


def wait_for(process: subprocess.Popen[bytes], output: Path, pattern: str) -> None:
    deadline = time.monotonic() + 240
    while not list(output.glob(pattern)):
        assert process.poll() is None, f"the build ended before {pattern} appeared"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill(process: subprocess.Popen[bytes]) -> None:
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    for child in children:  # Ray's agents would leave by themselves after a minute
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
