"""Rows of a data folder as text, with where they come from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipeline import lineage
from data_pipeline.manifest import TOKENIZER_FILE
from data_pipeline.store import MemberStore
from data_pipeline.trace import Origin, trace
from dualmask.core.tokenizer import EOS_ID, Tokenizer


class Example(NamedTuple):
    """``place``: SHARD:ROW. ``texts``: one, or several where documents share rows. No ``origins`` without lineage."""

    place: str
    tokens: int  # BOS and EOS excluded
    texts: list[str]
    origins: list[Origin]


def examples(folder: Path, split: str, count: int) -> list[Example]:
    """The first ``count`` rows of ``split``, which are drawn from all of its documents. Raises ManifestError."""
    store, tokenizer = MemberStore(folder, split), Tokenizer(folder / TOKENIZER_FILE)
    return list(islice(_rows(folder, store, tokenizer), count))


def _rows(folder: Path, store: MemberStore, tokenizer: Tokenizer) -> Iterator[Example]:
    for shard in range(len(store.shards)):
        file, before = store.shards.file(shard), 0
        has_lineage = (folder / lineage.file_of(file)).exists()
        for member, rows in enumerate(store.shards.member_rows(shard).tolist()):
            if (block := store.member(shard, member)) is not None:
                for row, (ids, length) in enumerate(zip(*block, strict=True), before):
                    parts = np.split(ids[:length], np.flatnonzero(ids[: length - 1] == EOS_ID) + 1)
                    origins = trace(f"{folder / file}:{row}") if has_lineage else []
                    texts = [tokenizer.decode(part.tolist()) for part in parts]
                    yield Example(f"{file}:{row}", int(length) - 2 * len(parts), texts, origins)
            before += rows
