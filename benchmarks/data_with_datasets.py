"""Builds with ``map`` of Hugging Face datasets, for ``benchmarks.data_peers``.

It has no MinHash of its own: signatures are datasketch's, as in the usual recipes, or rensa's, the fastest. Their bands
are compared in the process that holds the data set, as those recipes do.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data_peers import SIMILAR, WORKERS, Built, Rows, Work, cleaned

BANDS, VALUES, SHINGLE = 16, 8, 5

Columns = dict[str, list[Any]]
Sign = Callable[[list[str]], list[int]]  # the shingles of a text: its signature


def with_datasketch(shingles: list[str]) -> list[int]:
    import datasketch

    sketch = datasketch.MinHash(num_perm=BANDS * VALUES)
    sketch.update_batch([shingle.encode() for shingle in shingles])
    return list(sketch.hashvalues)


def with_rensa(shingles: list[str]) -> list[int]:
    import rensa

    sketch = rensa.RMinHash(num_perm=BANDS * VALUES, seed=0)
    sketch.update(shingles)
    return list(sketch.digest())


def build(work: Work, sign: Sign) -> Built:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets

    datasets.disable_progress_bars()
    files = sorted(map(str, work.corpus.glob("*.jsonl")))
    read = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(work.output / "cache"))
    settings = {"batched": True, "num_proc": WORKERS}
    signed = read.map(clean_and_sign, remove_columns=read.column_names, fn_kwargs={"sign": sign}, **settings)
    kept = signed.select(first_ones(np.array(signed.with_format("numpy")["signature"])))
    rows = kept.map(into_rows, remove_columns=kept.column_names, fn_kwargs={"tokenizer": work.tokenizer}, **settings)
    rows.save_to_disk(str(work.output / "rows"), num_proc=WORKERS)
    return Built(len(kept), len(rows) * (len(rows[0]["ids"]) - 2))


def clean_and_sign(batch: Columns, sign: Sign) -> Columns:
    texts = [text for text in map(cleaned, batch["text"]) if text]
    return {"text": texts, "signature": [sign(shingles(text.lower().split())) for text in texts]}


def shingles(words: list[str]) -> list[str]:
    return [" ".join(words[at : at + SHINGLE]) for at in range(max(len(words) - SHINGLE + 1, 1))]


def first_ones(signatures: np.ndarray) -> list[int]:
    """The documents that are not similar to an earlier one that is kept; signatures [N, BANDS × VALUES]."""
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    kept = []
    for number, values in enumerate(signatures):
        keys = [(band, part.tobytes()) for band, part in enumerate(values.reshape(BANDS, VALUES))]
        others = sorted({other for key in keys for other in buckets.get(key, ())})
        if not others or (signatures[others] == values).mean(axis=1).max() < SIMILAR:
            kept.append(number)
            for key in keys:
                buckets[key].append(number)
    return kept


def into_rows(batch: Columns, tokenizer: Path) -> Columns:
    return {"ids": list(rows_of(tokenizer).of(iter(batch["text"])))}


rows_of = lru_cache(maxsize=1)(Rows)
build_with_datasketch, build_with_rensa = (partial(build, sign=sign) for sign in (with_datasketch, with_rensa))
