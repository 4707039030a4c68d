"""What the planner expects is compared with passes as a GPU makes them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.engines import as_on_a_gpu


@pytest.fixture(autouse=True)
def _as_on_a_gpu() -> Iterator[None]:
    with as_on_a_gpu():
        yield
