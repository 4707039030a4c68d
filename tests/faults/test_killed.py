"""kill −9 of any rank at any moment: the resumed run is bit-equal to an undisturbed one."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest
import tiny
import warm
from moments import EVENTS, Moment
from whole import Tally, Whole

pytestmark = pytest.mark.distributed

CHECKPOINT = {"every_steps": 2, "keep_last": 2}
PHASES = [phase for phase in EVENTS if phase != "stage change"]  # which has a test of its own
MAX_ATTEMPTS = 60  # of one run: an attempt makes two or three steps on average


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_seeded_moments(
    kills: int, pair: Whole, data: Path, tmp_path: Path, tally: Tally, pytestconfig: pytest.Config
) -> None:
    """Run after run. A failure names the random seed, which draws the same moments again."""
    seed, kills = pytestconfig.getoption("chaos"), pytestconfig.getoption("chaos_count") or kills
    print(f"--chaos {seed} --chaos-count {kills}")
    kill(draw_moments(seed), kills, pair, data, tmp_path, tally)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_in_a_stage_change(kills: int, pair: Whole, data: Path, tmp_path: Path, tally: Tally) -> None:
    kill(draw_moments(kills, ["stage change"]), kills, pair, data, tmp_path, tally)


def kill(moments: Iterator[Moment], kills: int, pair: Whole, data: Path, folder: Path, tally: Tally) -> None:
    """Run after run, until as many ranks were killed; each run must end as the undisturbed one did."""
    for number in count():
        if kills <= 0:
            return
        # of its own: a run that ended before its moment came is complete, and nobody could be killed in it again
        config = tiny.write_config(folder, data, f"killed{number}", checkpoint=CHECKPOINT)
        struck = one_run(config, moments, kills)
        equal = pair.equals(config.with_suffix(""))
        for moment in struck:
            tally(f"1. kill −9, {moment.phase}", equal)
        assert equal, f"differs after {'; '.join(map(str, struck))}"
        kills -= len(struck)


def draw_moments(seed: int, phases: Sequence[str] = PHASES) -> Iterator[Moment]:
    draw = random.Random(seed)
    return (Moment.draw(draw, phases[number % len(phases)], ranks=2) for number in count())


def one_run(config: Path, moments: Iterator[Moment], most: int) -> list[Moment]:
    """Restarts one run until it is complete; returns the at most ``most`` moments at which a rank was killed."""
    struck: list[Moment] = []
    for _ in range(MAX_ATTEMPTS):
        moment = next(moments) if len(struck) < most else None
        attempt = warm.Ranks(2, config, moment=moment)
        codes = attempt.codes()
        print(f"{moment}: exit codes {codes}, {tiny.steps_done(config.with_suffix(''))} steps")
        if codes == [0, 0]:
            return struck
        assert moment is not None, attempt.output()
        expected = [-signal.SIGKILL if rank == moment.victim else 75 for rank in range(2)]
        assert codes == expected, f"{moment}\n{attempt.output()[-3000:]}"
        assert "Traceback" not in attempt.output()
        assert attempt.output().count("left alone by other ranks") == 1
        struck.append(moment)
    raise AssertionError(f"{config} is not complete after {MAX_ATTEMPTS} attempts")
