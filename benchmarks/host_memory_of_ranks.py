"""What a rank's process holds of the host's memory while engines are made, changed and exported: the worker of
``benchmarks.host_memory``, one process a rank."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from benchmarks.engines import join, share_of_rank
from benchmarks.memory_of_ranks import states
from benchmarks.runs import ALL_MODULES, LOSSES, Size, Tree, random_batch, small_run
from dualmask.config.schema import RunConfig
from dualmask.curriculum import first_step, plan_at
from dualmask.nn.parallel import mesh
from dualmask.training import tensor_file
from dualmask.training.checkpoint import Checkpoints, TrainingState
from dualmask.training.engine import StageEngine, run_step
from dualmask.training.trainer import Stages
from dualmask.training.zero3 import trim_heap

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
            weights.pass_by()
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
