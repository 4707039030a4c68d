"""Memory and time of a step against the number of rounds: ``python -m benchmarks.rounds_memory --json out.json``.

A step plays L rounds, W of them in each backward pass (truncated BPTT), with and without activation checkpointing.
Memory is what autograd keeps for backward passes, at its greatest: the bytes of the distinct storages, parameters
excluded. It must depend on W, not on L. Time is that of all forward and backward passes, without the optimizer's share,
which does not grow with L. Configurations are timed in turns, each on the same batches.
"""

from __future__ import annotations

import argparse
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from dualmask.training.objective import Objective
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.rows import median_row
from dualmask.config.model import ModelConfig
from dualmask.config.stage import StageConfig
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, SPECIAL_IDS
from dualmask.curriculum import StepPlan, plan_at
from dualmask.evaluation.report import write
from dualmask.families.edit.model import DualMask
from dualmask.nn.parallel import mesh

ROUNDS, WINDOWS = (1, 2, 4, 8, 16), (1, 2, 4)  # W = L as well
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    length: int = 64
    sequences: int = 8
    vocabulary: int = 2048


@dataclass(frozen=True)
class Arm:
    rounds: int
    window: int
    checkpointing: bool

    def plan(self, step: int) -> StepPlan:
        """All modules learn from all rounds; the text is as a joint stage has it."""
        stage = StageConfig.model_validate(
            {
                "name": "joint",
                "steps": step + 1,
                "train": ["filler", "inserter", "picker", "gate"],
                "lr": {"peak": 1e-3},
                "losses": {"ptr_count": 1, "keep_recover": 1, "keep_oracle": 1, "gate": 1},
                "rollout": {"rounds": self.rounds, "window": self.window, "first_round": "gate"},
                "picker_gradient": 0.1,
            }
        )
        return plan_at([stage], step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--plot", type=Path, help="picture of both, as PNG")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    size = Size()
    memory, times = measure(size, arms(ROUNDS, WINDOWS), arguments.repeats)
    result = write(arguments.json, "rounds_memory", rows(memory, times), size=asdict(size))
    for row in result["rows"]:
        where = f"L {row.get('rounds', ''):<3} W {row['window']:<3} {'checkpointing' if row['checkpointing'] else ''}"
        print(f"{row['metric']:24} {where:28} {row['value']:14,.2f}   ({row['lo']:,.2f} … {row['hi']:,.2f})")
    if arguments.plot:
        plot(result["rows"], arguments.plot)


class SavedBytes:
    """Counts what autograd holds while ``hooks()`` are on: now, and at its greatest."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.now = self.peak = 0
        self._parameters = list(parameters)
        self._holders: Counter[int] = Counter()

    def hooks(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(self._pack, lambda held: held.tensor)

    def _pack(self, tensor: Tensor) -> _Held:
        held, storage = _Held(tensor), tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        # asked anew each time: ZeRO-3 gives parameters other storages
        if size and all(place != parameter.untyped_storage().data_ptr() for parameter in self._parameters):
            self.now += size if self._holders[place] == 0 else 0
            self.peak = max(self.peak, self.now)
            self._holders[place] += 1
            weakref.finalize(held, self._release, place, size)
        return held

    def _release(self, place: int, size: int) -> None:
        self._holders[place] -= 1
        self.now -= size if self._holders[place] == 0 else 0


class _Held:
    """Without its place in the graph: an output that its own operation saves would keep both alive for ever."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor if isinstance(tensor, nn.Parameter) else tensor.detach()


def arms(rounds: Sequence[int], windows: Sequence[int]) -> list[Arm]:
    pairs = [(number, width) for number in rounds for width in sorted({*windows, number}) if width <= number]
    return [Arm(*pair, checkpointing) for checkpointing in (False, True) for pair in pairs]


def random_batch(size: Size, step: int) -> Batch:
    draw = torch.Generator().manual_seed(step)
    tokens = torch.randint(len(SPECIAL_IDS), size.vocabulary, (size.sequences, size.length), generator=draw)
    tokens[:, 0], tokens[:, -1] = BOS_ID, EOS_ID
    key = torch.randint(0, 2**62, (size.sequences,), generator=draw)
    return Batch(tokens, torch.full((size.sequences,), size.length), key)


def objectives(size: Size) -> dict[bool, Objective]:
    """The same model without and with activation checkpointing."""
    mesh.single_process()
    depth = dict.fromkeys(("filler_layers", "inserter_layers", "picker_layers"), size.layers)
    config = ModelConfig(hidden=size.hidden, heads=size.heads, max_length=size.length, **depth)
    built = {}
    for checkpointing in (False, True):
        torch.manual_seed(0)
        built[checkpointing] = Objective(DualMask(config, size.vocabulary, activation_checkpointing=checkpointing))
    return built


def play(objective: nn.Module, batch: Batch, plan: StepPlan) -> None:
    """Every forward and backward pass of one step."""
    state = None
    for rounds in plan.windows:
        loss, _, state = objective(batch, plan, rounds, state)
        loss.backward()


def saved_bytes(objective: nn.Module, batch: Batch, plan: StepPlan) -> int:
    meter = SavedBytes(objective.parameters())
    with meter.hooks():
        play(objective, batch, plan)
    assert meter.now == 0, "something outlives the step"
    objective.zero_grad()
    return meter.peak


def seconds(objective: nn.Module, batch: Batch, plan: StepPlan) -> float:
    start = time.perf_counter()
    play(objective, batch, plan)
    taken = time.perf_counter() - start
    objective.zero_grad()
    return taken


def measure(size: Size, chosen: Sequence[Arm], repeats: int) -> tuple[dict[Arm, int], dict[Arm, list[float]]]:
    """Bytes, and milliseconds of each repeat."""
    models = objectives(size)
    memory = {arm: saved_bytes(models[arm.checkpointing], random_batch(size, 0), arm.plan(0)) for arm in chosen}
    times: dict[Arm, list[float]] = {arm: [] for arm in chosen}
    for step in range(repeats):
        batch = random_batch(size, step)
        for arm in chosen:
            times[arm].append(1000 * seconds(models[arm.checkpointing], batch, arm.plan(step)))
    return memory, times


def rows(memory: dict[Arm, int], times: dict[Arm, list[float]]) -> list[Row]:
    """A row of bytes and one of time for each configuration, and the two ratios of the goals."""
    found: list[Row] = []
    for arm in memory:
        where = {"rounds": arm.rounds, "window": arm.window, "checkpointing": arm.checkpointing}
        found.append(median_row("saved_bytes", [memory[arm]], **where))
        found.append(median_row("milliseconds", times[arm], **where))
    long, short = Arm(16, 2, True), Arm(4, 2, True)
    if {long, short} <= memory.keys():
        found.append(
            median_row("activation_ratio_l16_l4", [memory[long] / memory[short]], window=2, checkpointing=True)
        )
    for checkpointing in (False, True):
        eight, one = times.get(Arm(8, 1, checkpointing)), times.get(Arm(1, 1, checkpointing))
        if eight and one:
            ratios = [a / b for a, b in zip(eight, one, strict=True)]
            found.append(median_row("time_ratio_l8_l1", ratios, window=1, checkpointing=checkpointing))
    return found


def plot(found: Sequence[Row], path: Path) -> None:
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
                    for row in found
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
