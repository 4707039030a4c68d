"""Files that are not cut, packed ones and csv with quotes: their size is not the memory that they take."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from data_pipeline.document import UNIT_BYTES

MEGABYTES = 80  # above those of a unit
GROWTH_MEGABYTES = 48  # beside what a small file takes: buffers, and the documents of a moment
READ = """
import sys
from pathlib import Path
from data_pipeline import sources
from dualmask.config.data import SourceConfig

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024

def read(path):
    source = SourceConfig(kind=sys.argv[1], paths=[path])
    units = sources.units(source)
    return len(units), sum(len(document.text) for unit in units for document in sources.read(unit, source))

read(sys.argv[2])
before = peak()
print(*read(sys.argv[3]), peak() - before)
"""

LINE = "word " * 200


def csv_row(number: int) -> str:
    return f'{number},"{LINE}\n{number} ""quoted"" {LINE}"\n'


def csv_file(path: Path, rows: int) -> int:
    """Writes texts with line breaks and quotes in them; returns their characters."""
    with path.open("w") as file:
        file.write("id,text\n" + "".join(csv_row(number) for number in range(rows)))
    return sum(2 * len(LINE) + len(str(number)) + len('\n "quoted" ') for number in range(rows))


def packed_jsonl(path: Path, rows: int) -> int:
    """The same for packed JSON lines."""
    opened = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".zst": zst_open}[path.suffix]
    options = {".gz": {"compresslevel": 1}, ".xz": {"preset": 0}, ".bz2": {"compresslevel": 1}, ".zst": {}}[path.suffix]
    with opened(path, "wb", **options) as file:
        for number in range(rows):
            file.write(json.dumps({"id": str(number), "text": f"{number} {2 * LINE}"}).encode() + b"\n")
    return sum(2 * len(LINE) + len(str(number)) + 1 for number in range(rows))


def zst_open(path: Path, mode: str) -> pa.CompressedOutputStream:
    return pa.CompressedOutputStream(str(path), "zstd")


@pytest.mark.parametrize(
    ("kind", "suffix", "write"),
    [("csv", ".csv", csv_file), ("jsonl", ".jsonl.gz", packed_jsonl), ("jsonl", ".jsonl.zst", packed_jsonl)]
    + [pytest.param("jsonl", suffix, packed_jsonl, marks=pytest.mark.slow) for suffix in (".jsonl.xz", ".jsonl.bz2")],
)
def test_memory_does_not_grow_with_a_file_that_is_one_unit(
    kind: str, suffix: str, write: Callable[[Path, int], int], tmp_path: Path
) -> None:
    rows = MEGABYTES * 2**20 // (2 * len(LINE))
    write(tmp_path / f"small{suffix}", 1000)
    characters = write(tmp_path / f"large{suffix}", rows)
    done = subprocess.run(
        [sys.executable, "-c", READ, kind, str(tmp_path / f"small{suffix}"), str(tmp_path / f"large{suffix}")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    units, read, grown = map(int, done.stdout.split())
    assert (units, read) == (1, characters)
    assert characters > UNIT_BYTES
    assert grown < GROWTH_MEGABYTES
