"""kill −9 of a data build's driver, its workers and a node of its cluster, at seeded moments of all its steps."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil
import pytest
from build_processes import built, command, digests, finish, holder, start, wait_until, write_corpus
from ray_nodes import Nodes, ray_nodes
from whole import Tally

pytestmark = pytest.mark.distributed

STEPS = ("read", "pairs", "dropped", "paragraphs", "documents", "sample", "tokens", "rows", "shards", "texts")
VICTIMS = ("driver", "command", "worker", "raylet", "node")
LONGEST_DELAY = 0.3  # seconds behind the file that is waited for


@dataclass(frozen=True)
class Moment:
    """``delay`` seconds after ``step`` has begun, or has finished its first block."""

    step: str
    pattern: str
    delay: float
    victim: str

    @staticmethod
    def draw(draw: random.Random, step: str, victim: str) -> Moment:
        pattern = draw.choice(["made_from", "*.json"])
        return Moment(step, pattern, draw.random() * draw.choice([0, LONGEST_DELAY]), victim)

    def __str__(self) -> str:
        return f"{self.victim}, {self.delay * 1000:.0f} ms after {self.step}/{self.pattern}"


def seeded_moments(seed: int, victims: Sequence[str]) -> Iterator[list[Moment]]:
    """For each build, one moment of each step; every step meets every victim within as many builds."""
    draw = random.Random(seed)
    for shift in count():
        places = enumerate(STEPS)
        yield [Moment.draw(draw, step, victims[(place + shift) % len(victims)]) for place, step in places]


@dataclass
class Build:
    """One build, started again as often as its driver is killed."""

    arguments: list[str]
    output: Path
    nodes: Nodes
    process: subprocess.Popen[str] | None = None

    def running(self) -> subprocess.Popen[str]:
        if self.process is None:
            self.process = start(self.arguments, self.nodes.environment)
        return self.process

    def meets(self, moment: Moment) -> bool:
        """Whether the victim was killed; not if the build, or a step without such a file, has ended by then."""
        process = self.running()
        folder = self.output / ".work" / moment.step
        if not wait_until(lambda: any(folder.glob(moment.pattern)), process):
            return False
        time.sleep(moment.delay)
        return process.poll() is None and STRIKES[moment.victim](self)

    def driver_killed(self, pid: int) -> bool:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        said = finish(self.running())
        assert "Traceback" not in said
        self.process = None
        return True

    def end(self) -> str:
        said = finish(self.running())
        assert self.running().returncode == 0, said
        assert "Traceback" not in said
        return said


def kill_worker(build: Build) -> bool:
    """Whatever works for the build next."""
    if not wait_until(build.nodes.tasks, build.running()):
        return False
    for process in build.nodes.tasks()[:1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
            return True
    return False


def kill_node(build: Build, how: Callable[[object], None]) -> bool:
    """The node without the driver, then a new one is there instead."""
    how(build.nodes.nodes[-1])
    build.nodes.add()
    return True


STRIKES: dict[str, Callable[[Build], bool]] = {
    "driver": lambda build: build.driver_killed(holder(build.output)),
    "command": lambda build: build.driver_killed(build.running().pid),
    "worker": kill_worker,
    "raylet": lambda build: kill_node(build, build.nodes.kill_raylet),
    "node": lambda build: kill_node(build, build.nodes.power_off),
}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(2) as both:
        yield both


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("kills", "victims", "megabytes"), [(1, ["raylet"], 1), pytest.param(50, VICTIMS, 24, marks=pytest.mark.slow)]
)
def test_builds_killed_at_seeded_moments(
    kills: int,
    victims: Sequence[str],
    megabytes: float,
    nodes: Nodes,
    tmp_path: Path,
    tally: Tally,
    pytestconfig: pytest.Config,
) -> None:
    """Build after build, on two nodes; each must end as the undisturbed one did, which had one machine."""
    corpus = write_corpus(tmp_path / "corpus", megabytes)
    built(command(corpus, tmp_path / "whole"))
    whole = digests(tmp_path / "whole")
    seed, kills = pytestconfig.getoption("chaos"), pytestconfig.getoption("chaos_count") or kills
    print(f"--chaos {seed} --chaos-count {kills}")
    for number, moments in enumerate(seeded_moments(seed, victims)):
        struck = one_build(command(corpus, tmp_path / str(number)), tmp_path / str(number), nodes, moments, kills)
        equal = digests(tmp_path / str(number)) == whole
        for moment in struck:
            tally(f"9. kill −9 in a data build: {moment.victim}", equal)
        assert equal, f"differs after {'; '.join(map(str, struck))}"
        if not (kills := kills - len(struck)):
            return


def one_build(arguments: list[str], output: Path, nodes: Nodes, moments: list[Moment], most: int) -> list[Moment]:
    """Starts a build again until it is complete; returns the at most ``most`` moments at which something was killed."""
    build, struck = Build(arguments, output, nodes), list[Moment]()
    for moment in moments:
        if len(struck) < most and build.meets(moment):
            print(moment, flush=True)
            struck.append(moment)
    build.end()
    return struck
