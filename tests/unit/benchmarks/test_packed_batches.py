"""The arms of the benchmark learn from documents of the same kind, and its counter sees what blocks are given."""

from __future__ import annotations

import torch

from benchmarks.packing import SIZE, Steps, counted, documents, make_run, masked_rows, speed
from benchmarks.runs import Size
from dualmask.nn.parallel import mesh

TINY = Size(hidden=16, layers=2, heads=2, length=32, sequences=4, vocabulary=64)


def test_rows_are_padded_as_a_corpus_leaves_them_and_packed_ones_are_full() -> None:
    places = SIZE.sequences * SIZE.length
    padded = torch.tensor([int(documents(SIZE, step, packed=False).length.sum()) for step in range(40)]) / places
    assert 0.4 < 1 - padded.mean() < 0.5
    packed = torch.tensor([int(documents(SIZE, step, packed=True).length.sum()) for step in range(40)]) / places
    assert packed.mean() > 0.95
    assert packed.max() <= 1


def test_places_that_blocks_compute_on() -> None:
    mesh.single_process()
    step, batch = Steps(make_run("diffusion", TINY), TINY.vocabulary, "unpadded"), documents(TINY, 0, packed=False)
    with counted() as flat:
        step.take(TINY, 0)
    with counted() as rows, masked_rows():
        step.take(TINY, 0)
    tokens = 2 * int(batch.length.sum())
    assert (flat.present, flat.given, flat.computed) == (tokens, 2 * batch.tokens.numel(), tokens)
    assert (rows.present, rows.computed) == (tokens, rows.given)


def test_rows_of_the_result() -> None:
    mesh.single_process()
    torch.set_num_threads(1)
    rows = speed("autoregressive", TINY, repeats=2)
    assert [row["metric"] for row in rows] == (["tokens_per_second"] * 3 + ["over_padded"] * 2) * 2 + [
        "padding_share_of_rows"
    ]
    assert all(row["n"] == 2 and 0 < row["lo"] <= row["value"] <= row["hi"] for row in rows)
