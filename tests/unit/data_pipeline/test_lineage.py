"""Which documents a row holds, against a plain count of ids."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import lineage
from data_pipeline.rows import best_fit, packed_rows, training_rows
from dualmask.core.tokenizer import BOS_ID, EOS_ID

GAP = -1
documents = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def owners_of(lengths: list[int], gap: int) -> np.ndarray:
    """A stream whose ids are the numbers of its documents, above the special ids."""
    between = np.full(gap, GAP)
    return np.concatenate(
        [part for number, size in enumerate(lengths) for part in (np.full(size, number + 6), between)]
    )


@given(lengths=documents, gap=st.integers(0, 2), size=st.integers(3, 50))
def test_rows_of_a_stream(lengths: list[int], gap: int, size: int) -> None:
    stream = owners_of(lengths, gap)
    rows = training_rows(len(stream), size)
    held = {(row, int(owner) - 6) for row, (start, count) in enumerate(rows) for owner in stream[start : start + count]}
    pairs = lineage.documents_of_rows(rows, lengths, gap)
    assert list(map(tuple, pairs.T.tolist())) == sorted(pair for pair in held if pair[1] != GAP - 6)


@given(st.lists(st.integers(1, 14), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_rows_that_are_put_together_and_shuffled(lengths: list[int], draw) -> None:  # type: ignore[no-untyped-def]
    """Parts 0 and 1 are of one document, the others of one each."""
    numbers = np.maximum(np.arange(len(lengths)) - 1, 0)
    stream = np.repeat(numbers + 6, lengths)
    parts = np.stack([np.cumsum([0, *lengths])[:-1], lengths], 1).astype(np.int64)
    together, rows = packed_rows(stream, parts, 14)
    order = list(range(len(rows)))
    draw.shuffle(order)
    pairs = lineage.joined(np.stack([np.arange(len(lengths)), numbers]), best_fit(lengths, 14, 2))
    pairs = lineage.reordered(pairs, np.array(order))
    texts = [together[start : start + count].tolist() for start, count in rows[order]]
    held = [(row, owner - 6) for row, text in enumerate(texts) for owner in dict.fromkeys(text)]
    assert list(map(tuple, pairs.T.tolist())) == [pair for pair in held if pair[1] + 6 not in (BOS_ID, EOS_ID)]
