"""Memory and time of a step against the number of rounds: ``python -m benchmarks.rounds_memory --json out.json``.

A step plays L rounds, W of them in each backward pass (truncated BPTT), with and without activation checkpointing.
Memory is what autograd keeps for backward passes, at its peak: the bytes of the distinct storages, parameters excluded.
It must depend on W, not on L. Time is that of all forward and backward passes, without the optimizer's share, which
does not grow with L. Settings are timed interleaved, each on the same batches.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.engines import passes
from benchmarks.runs import Size, joint, random_batch
from benchmarks.saved_bytes import SavedBytes
from benchmarks.timing import interleave, median_row, print_rows, ratios
from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan, plan_at
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row
from dualmask.families.edit.config import EditConfig, RoundStage
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.task import RoundsTask
from dualmask.families.task import Task
from dualmask.nn.parallel import mesh

ROUNDS, WINDOWS = (1, 2, 4, 8, 16), (1, 2, 4)  # W = L as well


@dataclass(frozen=True)
class Setting:
    rounds: int
    window: int
    checkpointing: bool

    def plan(self, step: int) -> StepPlan:
        """All modules learn from all rounds; the text is as a joint stage has it."""
        tree = {"steps": step + 1, "lr": {"peak": 1e-3}} | joint(self.rounds, self.window)
        return plan_at([RoundStage.model_validate(tree)], step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--plot", type=Path, help="picture of both, as PNG")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    size = Size()
    memory, times = measure(size, settings(ROUNDS, WINDOWS), arguments.repeats)
    result = write(arguments.json, "rounds_memory", rows(memory, times), size=asdict(size))
    print_rows(result["rows"])
    if arguments.plot:
        plot(result["rows"], arguments.plot)


def settings(rounds: Sequence[int], windows: Sequence[int]) -> list[Setting]:
    pairs = [(number, width) for number in rounds for width in sorted({*windows, number}) if width <= number]
    return [Setting(*pair, checkpointing) for checkpointing in (False, True) for pair in pairs]


def tasks(size: Size) -> dict[bool, RoundsTask]:
    """The same model without and with activation checkpointing."""
    mesh.single_process()
    depth = dict.fromkeys(("filler_layers", "inserter_layers", "picker_layers"), size.layers)
    config = EditConfig(hidden=size.hidden, heads=size.heads, max_length=size.length, **depth)
    built = {}
    for checkpointing in (False, True):
        torch.manual_seed(0)
        built[checkpointing] = RoundsTask(DualMask(config, size.vocabulary, activation_checkpointing=checkpointing))
    return built


def saved_bytes(task: Task, batch: Batch, plan: StepPlan) -> int:
    meter = SavedBytes(task.parameters())
    with meter.hooks():
        passes(task, batch, plan)
    assert meter.now == 0, "something outlives the step"
    task.zero_grad()
    return meter.peak


def milliseconds(task: Task, size: Size, setting: Setting, step: int) -> float:
    batch, plan = random_batch(size, step), setting.plan(step)
    start = time.perf_counter()
    passes(task, batch, plan)
    seconds = time.perf_counter() - start
    task.zero_grad()
    return 1000 * seconds


def measure(
    size: Size, chosen: Sequence[Setting], repeats: int
) -> tuple[dict[Setting, int], dict[Setting, list[float]]]:
    """Bytes, and milliseconds of each repeat."""
    models = tasks(size)
    memory = {one: saved_bytes(models[one.checkpointing], random_batch(size, 0), one.plan(0)) for one in chosen}
    timed = {one: partial(milliseconds, models[one.checkpointing], size, one) for one in chosen}
    return memory, interleave(timed, repeats)


def rows(memory: dict[Setting, int], times: dict[Setting, list[float]]) -> list[Row]:
    """A row of bytes and one of time for each setting, and the two ratios of the goals."""
    result: list[Row] = []
    for setting in memory:
        dimensions = asdict(setting)
        result.append(median_row("saved_bytes", [memory[setting]], **dimensions))
        result.append(median_row("milliseconds", times[setting], **dimensions))
    long, short = Setting(16, 2, True), Setting(4, 2, True)
    if {long, short} <= memory.keys():
        ratio = memory[long] / memory[short]
        result.append(median_row("activation_ratio_l16_l4", [ratio], window=2, checkpointing=True))
    for checkpointing in (False, True):
        eight, one = times.get(Setting(8, 1, checkpointing)), times.get(Setting(1, 1, checkpointing))
        if eight and one:
            row = median_row("time_ratio_l8_l1", ratios(eight, one), window=1, checkpointing=checkpointing)
            result.append(row)
    return result


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bytes and time over L, a line for each W; dashed with checkpointing."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = {"saved_bytes": ("saved for backward, MB", 1e-6), "milliseconds": ("a step without optimizer, ms", 1.0)}
    for place, (metric, (title, scale)) in enumerate(panels.items()):
        panel = figure.add_subplot(1, 2, place + 1)
        for number, width in enumerate([*WINDOWS, None]):
            for checkpointing in (False, True):
                line = [
                    (row["rounds"], row["value"] * scale)
                    for row in rows
                    if (row["metric"], row["checkpointing"]) == (metric, checkpointing)
                    and row["window"] == (width or row["rounds"])
                ]
                style = {"color": f"C{number}", "linestyle": "--" if checkpointing else "-", "marker": "o"}
                panel.plot(*zip(*line, strict=True), label=None if checkpointing else f"W = {width or 'L'}", **style)
        panel.set(title=title, xlabel="L, rounds (dashed: with checkpointing)", xscale="log", yscale="log")
        panel.set_xticks(ROUNDS, [str(number) for number in ROUNDS])
    panel.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
