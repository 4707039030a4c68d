"""A build with datatrove, for ``benchmarks.data_peers``: its four steps of MinHash as it has them.

Words are those between spaces in small letters, as in our build: its own normalisation and tokenizer (spaCy) take far
longer. It compares no signatures: what shares one of 14 bands of eight values is a duplicate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.text import TextNormConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from benchmarks.data_peers import FILES, WORKERS, Built, Rows, Work, cleaned

WORDS_ONLY = TextNormConfig(
    norm_numbers=False,
    norm_weekdays=False,
    norm_monthnames=False,
    remove_punctuation=False,
    norm_unicode_diacritics=False,
)


class BySpaces(WordTokenizer):
    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError


def build(work: Work) -> Built:
    config = MinhashConfig(n_grams=5, norm_config=WORDS_ONLY)
    sub = {name: str(work.output / name) for name in ("cleaned", "signatures", "pairs", "removed")}
    signature = MinhashDedupSignature(sub["signatures"], config=config, language=BySpaces())
    pipelines: list[tuple[int, list[Any]]] = [
        (FILES, [JsonlReader(str(work.corpus)), clean, JsonlWriter(sub["cleaned"], compression=None), signature]),
        (config.num_buckets, [MinhashDedupBuckets(sub["signatures"], sub["pairs"], config=config)]),
        (1, [MinhashDedupCluster(sub["pairs"], sub["removed"], config=config)]),
        (FILES, [JsonlReader(sub["cleaned"]), MinhashDedupFilter(sub["removed"]), Writer(work)]),
    ]
    for number, (tasks, pipeline) in enumerate(pipelines):
        logs = str(work.output / f"logs-{number}")
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(tasks, WORKERS), logging_dir=logs).run()
    written = [np.load(file, mmap_mode="r") for file in sorted(work.output.glob("rows-*.npy"))]
    documents = sum(int(file.read_text()) for file in work.output.glob("rows-*.count"))
    return Built(documents, sum(rows.shape[0] * (rows.shape[1] - 2) for rows in written))


def clean(data: Iterator[Any], rank: int = 0, world_size: int = 1) -> Iterator[Any]:
    for document in data:
        document.text = cleaned(document.text)
        if document.text:
            yield document


class Writer:
    """A step that writes the rows of one task."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self, data: Iterator[Any], rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        texts = [document.text for document in data]
        np.save(self.work.output / f"rows-{rank:05d}.npy", Rows(self.work.tokenizer).of(iter(texts)))
        (self.work.output / f"rows-{rank:05d}.count").write_text(str(len(texts)))
        yield from ()
