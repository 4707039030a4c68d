"""What ranks bring: ``python -m benchmarks.parallel --json out.json``.

The same global batch on one rank, and on two or more as data-parallel (DP) or tensor-parallel (TP) ranks, under ZeRO 0,
1 and 3, in turns. ``share_of_one`` is a rank's rate over that of the one rank alone under the same ZeRO stage: 1 is
perfect; ``clock`` cpu leaves out what ranks wait for one another. On CPUs each rank has one thread and one core.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks import turns
from benchmarks.rows import median_row
from benchmarks.step_arms import STAGES, Case, arm, engine
from benchmarks.train_step import SIZES, Row, name_of, peak, show
from benchmarks.turns import Seconds
from dualmask.evaluation.report import write

ZERO = (0, 1, 3)


@dataclass(frozen=True)
class Layout:
    data: int
    tensor: int

    @property
    def ranks(self) -> int:
        return self.data * self.tensor

    def __str__(self) -> str:
        return f"TP{self.tensor}×DP{self.data}"


ONE = Layout(1, 1)
LAYOUTS = (ONE, Layout(2, 1), Layout(1, 2), Layout(2, 2))
Times = Mapping[tuple[Layout, int], Sequence[Seconds]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="parallel", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--stage", choices=STAGES, default="lm")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--zero", type=int, nargs="+", choices=ZERO, default=list(ZERO))
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args(arguments)
    case, places = Case(asked.stage, SIZES[asked.size]), _places()
    found, loads = [], [turns.load()]
    for zero in asked.zero:
        fitting = [layout for layout in LAYOUTS if layout.ranks <= places]
        played = {
            str(layout): arm(engine, case, ranks=layout.ranks, zero=zero, tensor=layout.tensor) for layout in fitting
        }
        times = turns.take_turns(played, asked.repeats)
        found += rows(case, {(layout, zero): times[str(layout)] for layout in fitting})
        loads.append(turns.load())
    about = {"stage": asked.stage, "size": asdict(case.size), "load_a_core": loads}
    show(write(asked.json, "parallel", found, **about)["rows"])
    return 0


def rows(case: Case, times: Times) -> list[Row]:
    """Rates of the whole and of each rank, and the share that a rank has of the rate of one alone."""
    cost, found = case.cost(), []
    model, hardware = cost.forward + cost.backward, cost.total
    for (layout, zero), series in times.items():
        where = {"stage": case.stage, "size": name_of(case.size), "arm": f"{layout} ZeRO-{zero}", "clock": "wall"}
        seconds = [each.wall for each in series]
        alone = [each.wall for each in times[ONE, zero]]
        found.append(median_row("tokens_per_second", [case.tokens / each for each in seconds], **where))
        a_rank = [model / each / layout.ranks for each in seconds]
        found.append(median_row("model_flops_per_second_a_rank", a_rank, **where))
        share = [one / each / layout.ranks for one, each in zip(alone, seconds, strict=True)]
        found.append(median_row("share_of_one", share, **where))
        busy = [one.cpu / each.cpu / layout.ranks for one, each in zip(times[ONE, zero], series, strict=True)]
        found.append(median_row("share_of_one", busy, **(where | {"clock": "cpu"})))
        if (rate := peak()) is not None:
            found.append(median_row("mfu", [each / rate for each in a_rank], **where))
            found.append(median_row("hfu", [each / rate * hardware / model for each in a_rank], **where))
    return found


def _places() -> int:
    """Ranks that do not have to share."""
    return torch.cuda.device_count() if torch.cuda.is_available() else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
