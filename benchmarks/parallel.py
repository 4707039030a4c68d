"""What ranks bring: ``python -m benchmarks.parallel --json out.json``.

The same global batch on one rank, and on two or more as data-parallel (DP) or tensor-parallel (TP) ranks, under ZeRO 0,
1 and 3, interleaved. ``share_of_one`` is a rank's rate over that of the one rank alone under the same ZeRO stage: 1 is
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

from benchmarks.runs import SIZES, size_name
from benchmarks.step_arms import STAGES, Case, arm, engine
from benchmarks.timing import Seconds, interleave_steps, load, median_row, peak_rate, print_rows
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row

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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="parallel", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--stage", choices=STAGES, default="lm")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--zero", type=int, nargs="+", choices=ZERO, default=list(ZERO))
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args(argv)
    case = Case(arguments.stage, SIZES[arguments.size])
    layouts = [layout for layout in LAYOUTS if layout.ranks <= _most_ranks()]
    result, loads = [], [load()]
    for zero in arguments.zero:
        arms = {
            str(layout): arm(engine, case, ranks=layout.ranks, zero=zero, tensor=layout.tensor) for layout in layouts
        }
        times = interleave_steps(arms, arguments.repeats)
        result += rows(case, {(layout, zero): times[str(layout)] for layout in layouts})
        loads.append(load())
    about = {"stage": arguments.stage, "size": asdict(case.size), "load_a_core": loads}
    print_rows(write(arguments.json, "parallel", result, **about)["rows"])
    return 0


def rows(case: Case, times: Times) -> list[Row]:
    """Rates of the whole and of each rank, and the share that a rank has of the rate of one alone."""
    cost, result = case.cost(), []
    model, hardware = cost.forward + cost.backward, cost.total
    for (layout, zero), series in times.items():
        on_wall = {"stage": case.stage, "size": size_name(case.size), "arm": f"{layout} ZeRO-{zero}", "clock": "wall"}
        alone = times[ONE, zero]
        rate_of_rank = [model / each.wall / layout.ranks for each in series]
        share = [one.wall / each.wall / layout.ranks for one, each in zip(alone, series, strict=True)]
        busy_share = [one.cpu / each.cpu / layout.ranks for one, each in zip(alone, series, strict=True)]
        result += [
            median_row("tokens_per_second", [case.tokens / each.wall for each in series], **on_wall),
            median_row("model_flops_per_second_a_rank", rate_of_rank, **on_wall),
            median_row("share_of_one", share, **on_wall),
            median_row("share_of_one", busy_share, **(on_wall | {"clock": "cpu"})),
        ]
        if (peak := peak_rate()) is not None:
            result.append(median_row("mfu", [each / peak for each in rate_of_rank], **on_wall))
            result.append(median_row("hfu", [each / peak * hardware / model for each in rate_of_rank], **on_wall))
    return result


def _most_ranks() -> int:
    """Ranks that do not have to share a device or a core."""
    return torch.cuda.device_count() if torch.cuda.is_available() else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
