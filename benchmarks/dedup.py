"""Near-duplicates found, against rensa and datasketch: ``python -m benchmarks.dedup --json out.json``.

Documents of Zipf words; a third of them have a copy in which words were replaced, so that the true Jaccard similarity
of their runs of five words, which is counted, spreads evenly from 0.5 to 1. A copy of at least 0.8 is a duplicate. Each
arm goes through the documents once and drops what it takes for one; repeats are interleaved. ``template`` times texts
that share most of their words, but are no duplicates, from 1,000 to 64,000. All times are CPU seconds of one process.
An arm whose library is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import interleave, median_row, print_rows
from data_pipeline import dedup, signatures
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row

THRESHOLD, SHINGLE, HASHES = 0.8, 5, 128
VOCABULARY = np.array([f"w{number:x}ord"[: 3 + number % 7] + f"{number}" for number in range(20_000)])
TEMPLATES = (1_000, 4_000, 16_000, 64_000)
ROUND = 4096  # documents of a block, as in a build

Flags = list[bool]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--documents", type=int, default=6000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--templates", type=int, nargs="*", default=TEMPLATES)
    arguments = parser.parse_args()
    texts, similar = planted(arguments.documents, np.random.default_rng(0))
    arms = {name: partial(timed, arm, texts) for name, arm in ARMS.items() if name == "dualmask" or installed(name)}
    rows: list[Row] = []
    for name, results in interleave(arms, arguments.repeats).items():
        rows += judged(name, results, texts, similar)
    for count in arguments.templates:
        seconds, _ = timed(with_dualmask, of_a_template(count, np.random.default_rng(1)), 0)
        rows.append(median_row("milliseconds_per_document", [1e3 * seconds / count], arm="template", documents=count))
    print_rows(write(arguments.json, "dedup", rows)["rows"])


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def timed(arm: Callable[[Sequence[str]], Flags], texts: Sequence[str], repeat: int) -> tuple[float, Flags]:
    start = time.process_time()
    flags = arm(texts)
    return time.process_time() - start, flags


def judged(name: str, results: list[tuple[float, Flags]], texts: Sequence[str], similar: np.ndarray) -> list[Row]:
    flags, true = np.array(results[0][1]), similar >= THRESHOLD
    megabytes = sum(map(len, texts)) / 1e6
    return [
        median_row("recall", [float(flags[true].mean())], arm=name),
        median_row("precision", [float(true[flags].mean())], arm=name),
        median_row("megabytes_per_cpu_second", [megabytes / seconds for seconds, _ in results], arm=name),
    ]


# --- texts ------------------------------------------------------------------------------------------------------------


def planted(count: int, generator: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Texts in random order of originals first, and the similarity of each to its original (0: it is none's copy)."""
    originals = [zipf_words(int(generator.lognormal(5.7, 0.6)) + 30, generator) for _ in range(count * 3 // 4)]
    copies, similar = [], []
    for words in originals[: count - len(originals)]:
        copy = words.copy()
        wanted = generator.uniform(0.5, 1.0)
        share = (1 - wanted) / (1 + wanted) / SHINGLE  # of the words: each replaced one is in five runs
        copy[generator.random(len(copy)) < share] = "replaced"
        copies.append(copy)
        similar.append(jaccard(shingles(words.tolist()), shingles(copy.tolist())))
    texts = [" ".join(words) for words in (*originals, *copies)]
    return texts, np.array([0.0] * len(originals) + similar)


def of_a_template(count: int, generator: np.random.Generator) -> list[str]:
    """Texts that share four runs of 50 words, between words of their own: similar by about 0.5."""
    parts = [" ".join(zipf_words(50, generator)) for _ in range(4)]
    return [" ".join(f"{part} {' '.join(zipf_words(15, generator))}" for part in parts) for _ in range(count)]


def zipf_words(count: int, generator: np.random.Generator) -> np.ndarray:
    ranks = (len(VOCABULARY) ** generator.random(count)).astype(np.int64) - 1
    return VOCABULARY[ranks].astype(object)


def shingles(words: Sequence[str]) -> set[str]:
    return {" ".join(words[at : at + SHINGLE]) for at in range(max(len(words) - SHINGLE + 1, 1))}


def jaccard(left: set[str], right: set[str]) -> float:
    return len(left & right) / len(left | right)


# --- arms -------------------------------------------------------------------------------------------------------------


def with_dualmask(texts: Sequence[str]) -> Flags:
    """What a build does, in one process and without files."""
    keys, sketches = [], []
    for at in range(0, len(texts), ROUND):
        _, of_documents, table = signatures.keys_of([[text] for text in texts[at : at + ROUND]])
        keys.append(of_documents)
        sketches.append(table)
    table, dropped = np.concatenate(sketches), np.zeros(len(texts), np.uint8)
    together = np.concatenate(keys)
    documents = np.repeat(np.arange(len(texts)), together.shape[1])
    dedup.mark(dedup.similar_pairs(together.ravel(), documents, table.__getitem__, THRESHOLD), dropped)
    return dropped.astype(bool).tolist()


def with_rensa(texts: Sequence[str]) -> Flags:
    import rensa

    index = rensa.RMinHashLSH(threshold=THRESHOLD, num_perm=HASHES, num_bands=16)
    kept: dict[int, Any] = {}
    flags = []
    for number, text in enumerate(texts):
        sketch = rensa.RMinHash(num_perm=HASHES, seed=0)
        sketch.update(list(shingles(text.lower().split())))
        flags.append(any(sketch.jaccard(kept[other]) >= THRESHOLD for other in index.query(sketch)))
        if not flags[-1]:
            index.insert(number, sketch)
            kept[number] = sketch
    return flags


def with_datasketch(texts: Sequence[str]) -> Flags:
    import datasketch

    index = datasketch.MinHashLSH(threshold=THRESHOLD, num_perm=HASHES)
    kept: dict[int, Any] = {}
    flags = []
    for number, text in enumerate(texts):
        sketch = datasketch.MinHash(num_perm=HASHES)
        sketch.update_batch([shingle.encode() for shingle in shingles(text.lower().split())])
        flags.append(any(sketch.jaccard(kept[other]) >= THRESHOLD for other in index.query(sketch)))
        if not flags[-1]:
            index.insert(number, sketch)
            kept[number] = sketch
    return flags


ARMS = {"dualmask": with_dualmask, "rensa": with_rensa, "datasketch": with_datasketch}

if __name__ == "__main__":
    main()
