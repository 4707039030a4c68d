"""``python -m benchmarks.host_memory --json out.json``: a rank's peak of host memory at start, stage changes, export.

It is compared with the rank's share of the training state, and with what the planner says before a run starts.

Each case trains a step of the stages filler, picker and joint on gloo ranks of this machine. The peak is that of the
resident memory (VmHWM, reset before each phase), less what the process had when everything was imported and a model of
another size had been through all phases. The share are the weights, float32 copies, gradients and moments that the
rank's engine holds behind the phase, as DeepSpeed has them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from benchmarks.engines import join, share_of_rank
from benchmarks.memory_of_ranks import states
from benchmarks.ranks import result_of
from benchmarks.runs import ALL_MODULES, LOSSES, Size, Tree, random_batch, small_run
from dualmask.config.schema import RunConfig
from dualmask.curriculum import first_step, plan_at
from dualmask.evaluation import report
from dualmask.evaluation.statistics import Row
from dualmask.nn.parallel import mesh
from dualmask.training import tensor_file
from dualmask.training.checkpoint import Checkpoints, TrainingState
from dualmask.training.engine import StageEngine, run_step
from dualmask.training.trainer import Stages
from dualmask.training.zero3 import trim_heap
from launcher.planner.host import host_bytes

MOST = 1.3  # times the share
PLANNED = {
    "start": "at start",
    "stage change 1": "at a stage change",
    "stage change 2": "at a stage change",
    "export": "at export",
}  # phases in the planner's words
SMALL = Size(hidden=64, layers=1, heads=4, length=16, sequences=4, vocabulary=512)
LARGE = Size(hidden=1024, layers=4, heads=16, length=16, sequences=4, vocabulary=8192)  # 209 M parameters
TRUE_WIDTH = Size(hidden=2048, layers=1, heads=16, length=16, sequences=4, vocabulary=16384)
EACH: Tree = {"steps": 1, "lr": {"peak": 1e-4}}
STAGES: list[Tree] = [
    {"name": "filler", "train": ["filler"]} | EACH,
    {"name": "picker", "train": ["picker"], "start_from": {"picker": "filler"}} | EACH,
    {"name": "joint", "train": list(ALL_MODULES), "losses": LOSSES | {"gate": 1}, "rollout": {"rounds": 1}} | EACH,
]


@dataclass(frozen=True)
class Case:
    ranks: int
    zero: int
    tensor: int = 1
    precision: str = "fp32"
    size: Size = field(default=LARGE)

    @property
    def dimensions(self) -> dict[str, Any]:
        names = ("ranks", "zero", "tensor", "precision")
        return {name: getattr(self, name) for name in names} | {"hidden": self.size.hidden}

    def run(self, size: Size | None = None) -> RunConfig:
        size = size or self.size
        layers = {f"{module}_layers": size.layers for module in ("filler", "inserter", "picker")}
        model = {"hidden": size.hidden, "heads": size.heads, "max_length": size.length, **layers}
        parallel = {"zero_stage": self.zero, "tensor": self.tensor, "precision": self.precision}
        run = small_run(STAGES[0], model, batch={"sequences": size.sequences}, parallel=parallel, device="cpu")
        return RunConfig.model_validate(run.model_dump(mode="json") | {"stages": STAGES})


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
    arguments = parser.parse_args()
    size = {"small": SMALL, "large": LARGE, "true-width": TRUE_WIDTH}[arguments.size]
    cases = [Case(case.ranks, case.zero, case.tensor, case.precision, size) for case in CASES]
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


def measure(case: Case) -> dict[str, tuple[int, int]]:
    """(peak, share) by phase, of the fullest rank. On every rank."""
    join(tensor=case.tensor, cpu=True)
    shared = [tempfile.mkdtemp() if dist.get_rank() == 0 else ""]
    dist.broadcast_object_list(shared)
    phases(case.run(SMALL), SMALL, 0, Path(shared[0], "warm"))
    trim_heap()
    own = phases(case.run(), case.size, resident(), Path(shared[0], "measured"))
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(shared[0])
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    return {phase: max((each[phase] for each in everyone), key=lambda pair: pair[0] / pair[1]) for phase in own}


def phases(run: RunConfig, size: Size, baseline: int, folder: Path) -> dict[str, tuple[int, int]]:
    stages, seen = Stages(run, size.vocabulary), {}

    def watch(phase: str, work: Callable[[], StageEngine]) -> StageEngine:
        trim_heap()  # of what a training step or a checkpoint has freed, which is no need of this phase
        reset_peak()
        engine = work()
        highest = peak() - baseline
        step(run, engine, size)  # the moments are born in the first one
        seen[phase] = highest, sum(states(run, engine).values())
        return engine

    engine = watch("start", lambda: stages.build(0))
    for index in (1, 2):
        checkpoint = save(stages, engine, folder / f"{index}")
        engine = watch(f"stage change {index}", partial(change, stages, index, engine, checkpoint))
    watch("export", lambda: export(engine))
    engine.close()
    return seen


def step(run: RunConfig, engine: StageEngine, size: Size) -> None:
    index = next(number for number, stage in enumerate(run.stages) if stage == engine.stage)
    plan = plan_at(run.stages, first_step(run.stages, index))
    run_step(engine, share_of_rank(random_batch(size, index)), plan, micros=1)


def change(stages: Stages, index: int, engine: StageEngine, checkpoint: Path) -> StageEngine:
    """As the trainer does, behind the checkpoint of the stage's end."""
    engine.close()
    return stages.build(index, checkpoint)


def save(stages: Stages, engine: StageEngine, folder: Path) -> Path:
    checkpoints = Checkpoints(folder, keep_last=1)
    partition = engine.partition
    state = TrainingState(
        step=1,
        stage_index=0,
        cursor={},
        config={},
        vocab_size=stages.vocab_size,
        data_digest="",
        ranks={"data": mesh.data_size(), "tensor": mesh.tensor_size()},
        tracking={},
    )
    checkpoints.save(list(partition.pieces()), state, partition.updates)
    checkpoints.wait()
    return checkpoints.at(1)


def export(engine: StageEngine) -> StageEngine:
    weights = engine.whole_weights()
    with tempfile.TemporaryDirectory() as folder:
        if dist.get_rank() == 0:
            tensor_file.write(Path(folder, "model.safetensors"), weights)
        else:
            for _ in weights.stream:  # rank 0 gathers them from all
                pass
    return engine


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def resident() -> int:
    return status("VmRSS")


def peak() -> int:
    return status("VmHWM")


def status(key: str) -> int:
    """Bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{key}:"))) * 1024


if __name__ == "__main__":
    sys.exit(main())
