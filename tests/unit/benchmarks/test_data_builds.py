"""The parts of the benchmarks of data builds that do not build."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.data_peers import LENGTH, Rows, cleaned
from benchmarks.data_pipeline import METRICS, earlier_rows, plot, watched, write_corpus
from benchmarks.data_tokens import encode_file, timed
from benchmarks.data_with_datasets import BANDS, VALUES, first_ones
from benchmarks.timing import median_row
from data_pipeline import vocabulary
from dualmask.core.tokenizer import BOS_ID, EOS_ID, Tokenizer
from dualmask.evaluation.report import write

TEXTS = [f"The number {number} stands here, and {number * 7} there." for number in range(300)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(vocabulary.train(iter(TEXTS), 330))
    return path


def test_a_corpus_has_the_size_and_the_files_that_are_asked_for(tmp_path: Path) -> None:
    written = write_corpus(tmp_path / "corpus", 200_000, 50_000)
    files = sorted((tmp_path / "corpus").iterdir())
    assert len(files) == 4
    assert 200_000 <= written == sum(file.stat().st_size for file in files) < 230_000
    assert all(json.loads(line)["text"] for file in files for line in file.open())


def test_sizes_that_were_measured_are_kept_and_drawn(tmp_path: Path) -> None:
    rows = [median_row(metric, [size], megabytes=size) for size in (10, 100) for metric in METRICS]
    write(tmp_path / "out.json", "data_pipeline", rows)
    assert earlier_rows(tmp_path / "none.json", [10]) == []
    kept = earlier_rows(tmp_path / "out.json", [10])
    assert {row["megabytes"] for row in kept} == {100}
    plot(rows, tmp_path / "out.svg")
    assert "</svg>" in (tmp_path / "out.svg").read_text()


def test_what_a_command_and_its_children_use_is_seen() -> None:
    child = (
        "import time; held = b'x' * 80_000_000; end = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    usage = watched([sys.executable, "-c", code])
    assert usage.driver_bytes < 60_000_000 < usage.all_bytes
    assert len(usage.cpu_seconds) == 2
    with pytest.raises(SystemExit, match="ended with 3"):
        watched([sys.executable, "-c", "raise SystemExit(3)"])


def test_cpu_seconds_are_of_the_named_processes() -> None:
    seconds = timed(lambda: [psutil.Process()], lambda repeat: sum(range(10_000_000 * repeat)), 1)
    assert 0 < seconds.cpu <= seconds.wall + 0.1
    assert timed(list, lambda repeat: None, 1).cpu == 0


def test_rows_of_the_other_arms(tokenizer: Path) -> None:
    rows = Rows(tokenizer).of(iter(TEXTS))
    assert rows.shape[1] == LENGTH
    assert (rows[:, 0] == BOS_ID).all()
    assert (rows[:, -1] == EOS_ID).all()
    text = Tokenizer(tokenizer).decode(rows[:, 1:-1].ravel().tolist())
    assert "\n".join(TEXTS).startswith(text)


def test_short_texts_are_left_out() -> None:
    assert cleaned("Too short.\n\n\n") == ""
    assert cleaned("word \n\n\n" * 20) == "\n\n".join(["word"] * 20)


def test_bare_sentencepiece_encodes_all_texts(tokenizer: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "block.parquet")
    assert encode_file(tokenizer, tmp_path / "block.parquet") == sum(map(len, map(Tokenizer(tokenizer).encode, TEXTS)))


def test_first_of_similar_signatures() -> None:
    signatures = np.random.default_rng(0).integers(0, 2**32, (4, BANDS * VALUES))
    signatures[2, : int(0.9 * BANDS * VALUES)] = signatures[0, : int(0.9 * BANDS * VALUES)]
    signatures[3, :VALUES] = signatures[1, :VALUES]  # a band in common, and little else
    assert first_ones(signatures) == [0, 1, 3]
