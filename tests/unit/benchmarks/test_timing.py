"""Arms in processes of their own: who is timed when, and what becomes of one that ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial

import pytest

from benchmarks.timing import LEAST_STEPS, Arm, interleave, interleave_steps, take_turns


def make(number: int) -> int:
    time.sleep(0.2)  # not timed
    return number


def hold(items: Iterator[int], *, card: str) -> None:
    """Holds what only one arm may hold at a time."""
    os.close(os.open(card, os.O_CREAT | os.O_EXCL))
    for _ in items:
        time.sleep(0.1)
    os.remove(card)


def work(items: Iterator[int], *, ends_at: int | None = None, rank_file: str | None = None) -> None:
    if rank_file is not None:
        with open(f"{rank_file}{os.environ['RANK']}", "w", encoding="utf-8") as file:
            file.write(os.environ["WORLD_SIZE"])
    for number in items:
        if number == ends_at:
            return
        begun = time.process_time()
        while time.process_time() - begun < 0.05:
            pass


def test_what_lies_between_two_items_is_timed(tmp_path) -> None:
    arms = {"one": Arm(work, make), "two ranks": Arm(partial(work, rank_file=str(tmp_path / "rank")), make, ranks=2)}
    times = interleave_steps(arms, 2, warm_up=1)
    for series in times.values():
        assert len(series) == 2
        assert all(0.05 <= each.cpu < 0.15 and each.wall >= each.cpu - 0.01 for each in series)
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(2)] == ["2", "2"]


def test_arms_follow_one_another_there_and_back() -> None:
    calls: list[tuple[str, int]] = []

    def note(name: str, number: int) -> int:
        calls.append((name, number))
        return number

    values = interleave({name: partial(note, name) for name in "ab"}, 2, warm_up=1)
    assert calls == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]
    assert values == {"a": [1, 2], "b": [1, 2]}


def test_an_arm_that_ends_by_itself_is_named() -> None:
    with pytest.raises(RuntimeError, match="arm hasty ended by itself"):
        interleave_steps({"hasty": Arm(partial(work, ends_at=1), make)}, 2, warm_up=0)


def test_arms_that_take_turns_have_the_card_to_themselves(tmp_path) -> None:
    arms = {name: Arm(partial(hold, card=str(tmp_path / "card")), make) for name in "ab"}
    turns = list(take_turns(arms, "aba", 2, warm_up=1))
    assert [name for name, _ in turns] == ["a", "b", "a"]
    assert all(len(times) == 2 and all(each.wall >= 0.1 for each in times) for _, times in turns)


def test_slow_arms_take_fewer_steps_and_one_that_ends_costs_no_other_one() -> None:
    arms = {"hasty": Arm(partial(work, ends_at=1), make), "slow": Arm(work, make)}
    (_, error), (_, times) = take_turns(arms, ["hasty", "slow"], 9, warm_up=1, most_seconds=0.01)
    assert isinstance(error, RuntimeError)
    assert "arm hasty ended by itself" in str(error)
    assert len(times) == LEAST_STEPS
