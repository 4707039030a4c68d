import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.order import EpochOrder

Counts = list[list[int]]
counts = st.lists(st.lists(st.integers(1, 9), max_size=5), max_size=6)


def flat(order: EpochOrder, start: int, stop: int) -> list[tuple[int, int, int]]:
    return [(run.shard, run.member, int(row)) for run in order.runs(start, stop) for row in run.rows]


@given(counts, st.integers(0, 99), st.integers(0, 3))
def test_every_row_once(row_counts: Counts, seed: int, epoch: int) -> None:
    order = EpochOrder(row_counts, seed, epoch)
    everything = {
        (shard, member, row)
        for shard, members in enumerate(row_counts)
        for member, rows in enumerate(members)
        for row in range(rows)
    }
    rows = flat(order, 0, order.size)
    assert order.size == len(rows) == len(everything)
    assert set(rows) == everything


@given(counts, st.data())
def test_any_part_is_the_part_of_the_whole(row_counts: Counts, data: st.DataObject) -> None:
    order = EpochOrder(row_counts, 1, 2)
    start = data.draw(st.integers(0, order.size))
    stop = data.draw(st.integers(start, order.size))
    assert flat(order, start, stop) == flat(EpochOrder(row_counts, 1, 2), 0, order.size)[start:stop]


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)])
def test_seed_and_epoch_change_all_three_levels(seed: int, epoch: int) -> None:
    row_counts = [[20] * 10] * 10
    first, other = (flat(EpochOrder(row_counts, *key), 0, 2000) for key in [(0, 0), (seed, epoch)])
    assert np.unique([shard for shard, _, _ in first[:200]]).size == 1  # one shard after the other
    assert [shard for shard, _, _ in first[::200]] != [shard for shard, _, _ in other[::200]]
    for level in (1, 2):
        by_shard = [sorted(flat_order, key=lambda row: row[0]) for flat_order in (first, other)]
        assert [row[level] for row in by_shard[0]] != [row[level] for row in by_shard[1]]
