"""Ranks find each other, rank 0 answers, and whatever goes wrong on one of them ends all."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from benchmarks.ranks import result_of


def add_up() -> list[object]:
    dist.init_process_group("gloo")
    total = torch.tensor(dist.get_rank() + 1)
    dist.all_reduce(total)
    assert os.environ["DS_ACCELERATOR"] == "cpu"
    return [dist.get_rank(), total.item(), torch.get_num_threads()]


def fail_or_wait(rank: str) -> None:
    if os.environ["RANK"] == rank:
        raise ValueError("as the test wants")
    time.sleep(60)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank imports this file."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def test_rank_0_answers_for_all() -> None:
    before = dict(os.environ)
    assert result_of("sum", add_up, 2, timeout=120, cpu=True) == [0, 3, 1]
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("failing", "timeout", "message"),
    [("1", 120, "pair failed:\n(?s:.*)as the test wants"), ("none", 10, "pair gave no answer in 10 s")],
)
def test_no_rank_is_waited_for_in_vain(failing: str, timeout: float, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=message):
        result_of("pair", partial(fail_or_wait, failing), 2, timeout=timeout, cpu=True)
    assert time.monotonic() - start < 50
