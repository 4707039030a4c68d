"""A whole build against datatrove and Hugging Face datasets: ``python -m benchmarks.data_peers --json out.json``.

Each arm reads the same JSON lines, cleans them (by the same function), drops documents of less than 20 words and those
whose MinHash says that they are similar to another by 0.8, encodes the rest with the same sentencepiece model and
writes rows of 128 ids, on two processes. The others do less: they shuffle nothing, and go on from no kill. Measured are
CPU seconds of all processes of an arm, its start included; repeats are interleaved. An arm whose library is not
installed is left out; datasets has no MinHash of its own, and takes that of datasketch or rensa.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.data_pipeline import MEGABYTE, watched, write_corpus
from benchmarks.timing import interleave, load, median_row, print_rows
from data_pipeline import clean, vocabulary
from data_pipeline.build import build
from data_pipeline.manifest import Manifest
from data_pipeline.report import REPORT_FILE
from dualmask.config.data import DataBuildConfig
from dualmask.core.tokenizer import BOS_ID, EOS_ID, Tokenizer
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row

WORKERS, FILES, SAMPLE_TEXTS = 2, 4, 2000
MIN_WORDS, SIMILAR, LENGTH, VOCABULARY = 20, 0.8, 128, 8192
NEEDED: dict[str, tuple[str, ...]] = {
    "dualmask": (),
    "datatrove": ("datatrove", "orjson", "xxhash"),
    "datasets-datasketch": ("datasets", "datasketch"),
    "datasets-rensa": ("datasets", "rensa"),
}


@dataclass(frozen=True)
class Work:
    corpus: Path  # folder of JSON lines
    tokenizer: Path
    output: Path


@dataclass(frozen=True)
class Built:
    documents: int  # kept
    tokens: int  # in rows, BOS and EOS excluded


Result = tuple[float, Built]  # CPU seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arm", choices=NEEDED, help="one build of this arm of the files in --folder, not timed")
    parser.add_argument("--folder", type=Path, help="where corpus and builds go while they are needed")
    arguments = parser.parse_args()
    if arguments.arm:
        run(arguments.arm, arguments.folder, arguments.json)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        written = prepare(Path(folder), arguments.megabytes * MEGABYTE)
        arms = {name: partial(timed, name, Path(folder)) for name in NEEDED if installed(name)}
        results: dict[str, list[Result]] = {name: [] for name in arms}
        for _ in range(arguments.repeats):
            for name, (result,) in interleave(arms, 1).items():
                results[name].append(result)
            save(arguments.json, results, written)


def save(path: Path, results: dict[str, list[Result]], written: int) -> None:
    """After each repeat, as they take long."""
    rows = [row for name, result in results.items() for row in judged(name, result, written)]
    versions = {name: metadata.version(name) for arm in results for name in NEEDED[arm]}
    print_rows(write(path, "data_peers", rows, versions=versions, load=load())["rows"])


def prepare(folder: Path, size: int) -> int:
    """A corpus of ``size`` bytes and a tokenizer for it; returns the bytes written."""
    written = write_corpus(folder / "corpus", size, -(-size // FILES))
    with (folder / "corpus" / "00000.jsonl").open() as file:
        lines = (line for text, _ in zip(file, range(SAMPLE_TEXTS)) for line in json.loads(text)["text"].split("\n"))  # noqa: B905
        (folder / "tokenizer.model").write_bytes(vocabulary.train(filter(None, lines), VOCABULARY))
    return written


def installed(name: str) -> bool:
    missing = [module for module in NEEDED[name] if find_spec(module) is None]
    if missing:
        print(f"{name} is left out: not installed: {', '.join(missing)}")
    return not missing


def timed(name: str, folder: Path, repeat: int) -> Result:
    """CPU seconds of all processes of one build, and what it built."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        result = Path(output) / "built.json"
        (Path(output) / "corpus").symlink_to(folder / "corpus")
        (Path(output) / "tokenizer.model").symlink_to(folder / "tokenizer.model")
        command = [sys.executable, "-m", "benchmarks.data_peers", "--arm", name, "--folder", output]
        usage = watched([*command, "--json", str(result)])
        return sum(usage.cpu_seconds.values()), Built(**json.loads(result.read_bytes()))


def judged(name: str, results: list[Result], written: int) -> list[Row]:
    return [
        median_row("megabytes_per_cpu_second", [written / MEGABYTE / seconds for seconds, _ in results], arm=name),
        median_row("documents_kept", [built.documents for _, built in results], arm=name),
        median_row("tokens", [built.tokens for _, built in results], arm=name),
    ]


# --- arms -------------------------------------------------------------------------------------------------------------


def run(name: str, folder: Path, result: Path) -> None:
    """In a process of its own: the build of one arm."""
    library, _, signatures = name.partition("-")
    arm: Callable[[Work], Built] = with_dualmask
    if library != "dualmask":
        module = import_module(f"benchmarks.data_with_{library}")
        arm = getattr(module, f"build_with_{signatures}" if signatures else "build")
    built = arm(Work(folder / "corpus", folder / "tokenizer.model", folder / "built"))
    result.write_text(json.dumps(vars(built)))


def with_dualmask(work: Work) -> Built:
    config = {
        "output": work.output,
        "source": {"kind": "jsonl", "paths": [str(work.corpus)]},
        "clean": {"style": "plain", "min_words": MIN_WORDS},
        "dedup": {"paragraphs": False, "near_duplicate": SIMILAR},
        "tokenizer": {"model": work.tokenizer},
        "split": {"dev": 0.0, "test": 0.0},
        "max_length": LENGTH,
        "workers": WORKERS,
    }
    build(DataBuildConfig.model_validate(config))
    counts = json.loads((work.output / REPORT_FILE).read_bytes())["documents"]
    return Built(counts["documents kept"], Manifest.load(work.output).splits["train"].tokens)


def cleaned(text: str) -> str:
    """The text as every arm reads it; empty if it is too short."""
    paragraphs = clean.paragraphs([text], "plain")
    return clean.PARAGRAPH_BREAK["plain"].join(paragraphs) if clean.has_words(paragraphs, MIN_WORDS) else ""


class Rows:
    """Rows [R, LENGTH] of the ids of texts, as the other arms make them."""

    def __init__(self, tokenizer: Path) -> None:
        self._tokenizer = Tokenizer(tokenizer)
        self._newline = self._tokenizer.encode("\n")

    def of(self, texts: Iterator[str]) -> np.ndarray:
        """The incomplete row at the end is left out."""
        stream = np.concatenate(
            [np.array([*self._tokenizer.encode(text), *self._newline], np.uint16) for text in texts]
        )
        size = LENGTH - 2
        content = stream[: len(stream) // size * size].reshape(-1, size)
        return np.pad(
            np.pad(content, ((0, 0), (1, 0)), constant_values=BOS_ID), ((0, 0), (0, 1)), constant_values=EOS_ID
        )


if __name__ == "__main__":
    main()
