import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.hashing import mix, permutation, text_hash, unit


def test_values_never_change() -> None:
    assert mix(1, 2, 3).tolist() == [15020427595393229491]
    assert text_hash("a ‰") == 10422165759925412751
    assert permutation(6, 7).tolist() == [1, 2, 3, 5, 4, 0]


@given(st.integers(0, 300), st.integers(0, 2**63), st.integers(0, 5))
def test_permutation(size: int, seed: int, epoch: int) -> None:
    order = permutation(size, seed, epoch)
    assert sorted(order.tolist()) == list(range(size))
    assert np.array_equal(order, permutation(size, seed, epoch))


def test_hashes_spread_and_every_part_counts() -> None:
    numbers = unit(mix(5, np.arange(20_000)))
    counts, _ = np.histogram(numbers, bins=10, range=(0, 1))
    assert counts.min() > 1800
    assert counts.max() < 2200
    assert len({mix(*parts)[0] for parts in [(1, 2), (2, 1), (1, 2, 0), (0, 1, 2), (1,), (2,)]}) == 6
