"""``python -m benchmarks.host_memory --json out.json``: a rank's peak of host memory at start, stage changes, export.

It is compared with the rank's share of the training state, and with what the planner says before a run starts.

Each case trains a step of the stages filler, picker and joint on gloo ranks of this machine. The peak is that of the
resident memory (VmHWM, reset before each phase), less what the process had when everything was imported and a model of
another size had been through all phases. The share are the weights, float32 copies, gradients and moments that the
rank's engine holds behind the phase, as DeepSpeed has them.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks.host_memory_of_ranks import LARGE, SMALL, TRUE_WIDTH, Case, measure
from benchmarks.ranks import result_of
from dualmask.evaluation import report
from dualmask.evaluation.statistics import Row
from launcher.planner.host import host_bytes

MOST = 1.3  # times the share
PLANNED = {
    "start": "at start",
    "stage change 1": "at a stage change",
    "stage change 2": "at a stage change",
    "export": "at export",
}  # phases in the planner's words
CASES = (
    Case(1, 1),
    Case(1, 3),
    Case(2, 1),
    Case(2, 3),
    Case(2, 3, precision="bf16"),
    Case(2, 1, tensor=2),
    Case(2, 3, tensor=2),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="result file")
    parser.add_argument("--size", choices=["small", "large", "true-width"], default="large")
    parser.add_argument("--ranks", type=int, help="only cases of so many ranks")
    parser.add_argument("--zero", type=int, help="only cases of this ZeRO stage")
    arguments = parser.parse_args()
    size = {"small": SMALL, "large": LARGE, "true-width": TRUE_WIDTH}[arguments.size]
    asked = [case for case in CASES if arguments.ranks in (None, case.ranks) and arguments.zero in (None, case.zero)]
    cases = [Case(case.ranks, case.zero, case.tensor, case.precision, size) for case in asked]
    rows = [row for case in cases for row in measured(case)]
    if arguments.json:
        report.write(arguments.json, "host_memory", rows)
    within = all(row["value"] <= MOST for row in rows if row["metric"] == "peak_over_share")
    return 0 if within and all(row["value"] <= 1 for row in rows if row["metric"] == "peak_over_planned") else 1


def measured(case: Case) -> list[Row]:
    """Rows of the rank that needs most, by phase."""
    seen = result_of(f"{case}", partial(measure, case), case.ranks, cpu=True)
    rows: list[Row] = []
    phases = host_bytes(case.run(), case.size.vocabulary, case.ranks // case.tensor)
    for phase, (peak, share) in seen.items():
        dimensions, planned = {"phase": phase, **case.dimensions}, phases[PLANNED[phase]]
        sizes = {"peak": peak, "share": share, "planned": planned}
        print(dimensions, {name: f"{int(size) >> 20:,} MiB" for name, size in sizes.items()}, flush=True)
        ratios = {"peak_over_share": peak / share, "peak_over_planned": peak / planned}
        figures = {f"{name}_bytes": size for name, size in sizes.items()} | ratios
        rows += [{"metric": name, "value": value, **dimensions} for name, value in figures.items()]
    return rows


if __name__ == "__main__":
    sys.exit(main())
