"""Decontamination: train documents that share a run of words with an evaluation file are dropped.

Compared are runs of ``decontaminate.ngram`` words without capitals and punctuation, as hashes (Brown et al. 2020).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from data_pipeline import arrays, sources
from data_pipeline.hashing import UInt64, mix
from data_pipeline.sources import SourceError
from dualmask.config.data import DecontaminateConfig, SourceConfig

_WORD = re.compile(r"\w+")


def inputs(config: DecontaminateConfig) -> list[tuple[str, str, int, str]]:
    """The state of the evaluation files. Raises SourceError."""
    with _own_keys():
        return sources.fingerprints(_source(config)) if config.paths else []


def write_runs(path: Path, config: DecontaminateConfig) -> None:
    """Writes the sorted hashes of all runs of words of the evaluation files. Raises SourceError."""
    runs = [np.empty(0, np.uint64), *(_of_files(config) if config.paths else ())]
    arrays.save(path, np.unique(np.concatenate(runs)))


def shares_a_run(text: str, known: UInt64, length: int) -> bool:
    """Whether a run of ``length`` words of ``text`` is among the sorted hashes ``known``."""
    runs = word_runs(text, length)
    places = np.searchsorted(known, runs)
    return bool((known[np.minimum(places, len(known) - 1)] == runs).any()) if len(known) else False


def word_runs(text: str, length: int) -> UInt64:
    """Hashes of all runs of ``length`` words; none of a shorter text."""
    words = np.fromiter((zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())), np.uint64)
    count = len(words) - length + 1
    if count < 1:
        return np.empty(0, np.uint64)
    return mix(*(words[shift : shift + count] for shift in range(length)))


def _of_files(config: DecontaminateConfig) -> Iterator[UInt64]:
    with _own_keys():
        source = _source(config)
        for part in sources.units(source):
            for document in sources.read(part, source):
                yield word_runs(document.text, config.ngram)


@contextmanager
def _own_keys() -> Iterator[None]:
    """Errors name the keys of ``decontaminate``."""
    try:
        yield
    except SourceError as error:
        raise SourceError(str(error).replace("source.", "decontaminate.")) from None


def _source(config: DecontaminateConfig) -> SourceConfig:
    return SourceConfig(kind=config.kind, paths=config.paths, text_field=config.text_field)
