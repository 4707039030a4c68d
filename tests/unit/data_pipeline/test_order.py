from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.order import WINDOW, EpochOrder, Indices


class Counts:
    def __init__(self, rows_of_members: list[list[int]]) -> None:
        self._members = [np.array(rows, np.int64) for rows in rows_of_members]
        self.rows = np.array([rows.sum() for rows in self._members], np.int64)

    def member_rows(self, shard: int) -> Indices:
        return self._members[shard]


counts = st.lists(st.lists(st.integers(1, 9), max_size=5), max_size=6).map(Counts)
windows = st.integers(1, 60)


def flat(order: EpochOrder, start: int, stop: int) -> list[tuple[int, int, int]]:
    where = order.rows(start, stop)
    return list(zip(*(column.tolist() for column in where), strict=True))


def everything(counts: Counts) -> set[tuple[int, int, int]]:
    return {
        (shard, member, row)
        for shard in range(len(counts.rows))
        for member, rows in enumerate(counts.member_rows(shard).tolist())
        for row in range(rows)
    }


@given(counts, st.integers(0, 99), st.integers(0, 3), windows)
def test_every_row_once(counts: Counts, seed: int, epoch: int, window: int) -> None:
    order = EpochOrder(counts, seed, epoch, window=window)
    rows = flat(order, 0, order.size)
    assert order.size == len(rows) == counts.rows.sum()
    assert set(rows) == everything(counts)


@given(counts, st.data(), windows)
def test_any_part_is_the_part_of_the_whole(counts: Counts, data: st.DataObject, window: int) -> None:
    order = EpochOrder(counts, 1, 2, window=window)
    start = data.draw(st.integers(0, order.size))
    stop = data.draw(st.integers(start, order.size))
    whole = flat(EpochOrder(counts, 1, 2, window=window), 0, order.size)
    assert flat(order, start, stop) == whole[start:stop]
    assert {shard for shard, *_ in whole[start:stop][: window or 1]} <= set(order.shards(start) if order.size else [])


@given(counts, st.data(), windows)
def test_excluded_shards_are_left_out(counts: Counts, data: st.DataObject, window: int) -> None:
    excluded = data.draw(st.sets(st.integers(0, len(counts.rows) - 1))) if len(counts.rows) else set()
    order = EpochOrder(counts, 1, 2, tuple(excluded), window)
    left = {row for row in everything(counts) if row[0] not in excluded}
    assert set(flat(order, 0, order.size)) == left
    assert list(zip(*order.stored(np.arange(order.size)), strict=True)) == sorted(left)


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)])
def test_seed_and_epoch_change_shards_and_rows(seed: int, epoch: int) -> None:
    rows = Counts([[20] * 10] * 10)
    first, other = (flat(EpochOrder(rows, *key, window=200), 0, 2000) for key in [(0, 0), (seed, epoch)])
    assert np.unique([shard for shard, _, _ in first[:200]]).size == 1  # a window is a shard here
    assert [shard for shard, _, _ in first[::200]] != [shard for shard, _, _ in other[::200]]
    by_shard = [sorted(rows, key=lambda row: row[0]) for rows in (first, other)]  # keeps their order in the shard
    assert by_shard[0] != by_shard[1]


@pytest.mark.parametrize("members", [[128] * 64, [128] * 1024])
def test_rows_that_share_a_batch_hardly_ever_share_one_again(members: list[int]) -> None:
    """Of two epochs in batches of 64; 5 windows."""
    rows = Counts([members] * (5 * WINDOW // sum(members)) if sum(members) < WINDOW else [members] * 2)
    first, second = (EpochOrder(rows, 0, epoch) for epoch in (0, 1))
    batch_of = {row: place // 64 for place, row in enumerate(flat(second, 0, second.size))}
    pairs = again = 0
    for start in range(0, first.size - 64, 64 * 37):
        batches = [batch_of[row] for row in flat(first, start, start + 64)]
        again += sum(one == other for one, other in combinations(batches, 2))
        pairs += 64 * 63 // 2
    assert again / pairs < 0.005
