import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from data_pipeline.prefetch import Prefetch


def test_items_come_in_order_and_the_end_stays() -> None:
    source = Prefetch(iter(range(100)), 3)
    assert list(source) == list(range(100))
    assert list(source) == []


def test_an_error_arrives_behind_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise RuntimeError("broken source")

    source = Prefetch(items(), 5)
    assert next(source) == 1
    with pytest.raises(RuntimeError, match="broken source"):
        next(source)


def test_stays_at_most_depth_ahead_and_stops_when_closed() -> None:
    made: list[int] = []
    before = set(threading.enumerate())
    source = Prefetch((made.append(number) or number for number in itertools.count()), 4)
    assert [next(source), next(source)] == [0, 1]
    time.sleep(0.3)
    assert len(made) <= 2 + 4 + 1
    source.close()
    assert "prefetch" not in {thread.name for thread in set(threading.enumerate()) - before}
