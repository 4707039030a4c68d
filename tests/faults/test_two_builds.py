"""Two data builds into one output at once: one builds, the other waits for it or is refused by name."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest
from build_processes import built, command, digests, finish, start, write_corpus
from ray_nodes import ray_nodes
from whole import Tally

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

PAIRS = 20
LONGEST_DELAY = 3.0  # seconds by which one is earlier; a build takes some more


@pytest.mark.timeout(3600)
def test_two_builds_at_once(tmp_path: Path, tally: Tally) -> None:
    corpus = write_corpus(tmp_path / "corpus", 0.5)
    with ray_nodes(1) as nodes:
        built(command(corpus, tmp_path / "whole"), nodes.environment)
        whole, draw = digests(tmp_path / "whole"), random.Random(3)
        for number in range(PAIRS):
            output, waits = tmp_path / str(number), draw.random() < 0.5
            first = start(command(corpus, output), nodes.environment)
            time.sleep(draw.random() * draw.choice([0, LONGEST_DELAY]))
            second = start([*command(corpus, output), "--wait" if waits else "--no-wait"], nodes.environment)
            said, codes = (finish(first), finish(second)), (first.returncode, second.returncode)
            print(number, codes, *said, flush=True)
            one_of_two(output, said, codes, waits)
            assert digests(output) == whole
            tally("10. two data builds at once: one waits" if waits else "10. two data builds at once: one is refused")


def one_of_two(output: Path, said: tuple[str, str], codes: tuple[int, int], waits: bool) -> None:
    """Either may have come first. One that found the output complete had nothing to wait for."""
    assert "Traceback" not in "".join(said)
    builders = [text for text in said if "is complete (" in text]
    assert len(builders) == 1
    (other,) = [text for text in said if text is not builders[0]]
    named = r"(the build on \S+, pid \d+|another build)"
    if "nothing to do" in other:
        assert codes == (0, 0)
        assert re.match(rf"({re.escape(str(output))}: waiting for {named} to end\n)?", other)
    else:
        assert not waits
        assert codes == (0, 2)
        assert re.fullmatch(rf"dualmask: output={re.escape(str(output))}: {named} writes there: .*\n", other)
