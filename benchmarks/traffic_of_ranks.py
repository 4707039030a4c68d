"""What the ranks of a real engine send each other in a step: the worker of ``benchmarks.plan_traffic``.

Every collective that torch dispatches is counted with the bytes of its whole tensor, apart for data-parallel and
tensor-parallel groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.engines import as_on_a_gpu, build_engine, build_model, join, share_of_rank
from benchmarks.runs import Size, random_batch
from dualmask.config.deepspeed import micro_batches
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan, plan_at
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.task import RoundsTask
from dualmask.nn.parallel import mesh
from dualmask.training.engine import StageEngine
from launcher.planner.passes import Draws

Counted = tuple[dict[str, float], list[Draws]]  # bytes by kind, what each round drew
WARM = 4  # steps until ZeRO-3 knows the order of the modules
# collective of torch's c10d: what it does, the argument that holds the whole tensor
COLLECTIVES = {
    "allreduce_": ("reduced", 0),
    "_allgather_base_": ("gathered", 0),
    "allgather_": ("gathered", 0),
    "_reduce_scatter_base_": ("scattered", 1),
}


class Meter(TorchDispatchMode):
    """Bytes by kind while it is on; ``held``: the most that ZeRO-3 has gathered at a time, what persists left out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self._gathered = [p for p in model.parameters() if not getattr(p, "ds_persist", True)]
        self._axes = {mesh.data_group().group_name: "", mesh.tensor_group().group_name: "tensor_"}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.removeprefix("c10d::")
        if function.namespace == "c10d" and name in COLLECTIVES:
            kind, place = COLLECTIVES[name]
            group = next(dist.ProcessGroup.unbox(one) for one in args if isinstance(one, torch.ScriptObject))
            if group.size() > 1 and group.group_name in self._axes:
                self.bytes[self._axes[group.group_name] + kind] += _bytes(args[place])
                self.bytes["held"] = max(self.bytes["held"], self._held())
        return function(*args, **(kwargs or {}))

    def _held(self) -> int:
        here = [p for p in self._gathered if p.ds_status.name != "NOT_AVAILABLE"]
        return sum(p.ds_numel * p.element_size() for p in here)


def _bytes(part: Any) -> int:
    return part.nbytes if isinstance(part, Tensor) else sum(_bytes(one) for one in part)


def measure_cases(
    settings: Mapping[str, tuple[RunConfig, dict[str, Any]]], vocab_size: int, tensor: int
) -> dict[str, Counted]:
    """Of each run with its additions to DeepSpeed's configuration. On every rank."""
    join(tensor=tensor, cpu=True)
    with as_on_a_gpu():
        return {name: measure(run, vocab_size, user) for name, (run, user) in settings.items()}


def measure(run: RunConfig, vocab_size: int, user: dict[str, Any]) -> Counted:
    """Bytes by kind of a rank in a step of the run's one stage, and what the step drew in each round, over all
    data-parallel ranks. The learning rate is next to nothing: each step is the same."""
    micros, plan = micro_batches(run, mesh.data_size()), plan_at(run.stages, run.stages[0].steps - 1)
    model = build_model(run, vocab_size)
    engine = build_engine(run, model, user)
    whole = Size(length=run.model.max_length, sequences=run.batch.sequences, vocabulary=vocab_size)
    local = share_of_rank(random_batch(whole, 0))
    size = len(local.length) // micros
    parts = [local.rows(slice(number * size, (number + 1) * size)) for number in range(micros)]
    for _ in range(WARM):
        step(engine, parts, plan)
    with Meter(model) as meter:
        step(engine, parts, plan)
    # last: DeepSpeed 0.19 remembers for ever what it gave up in a pass without gradients
    drawn = [draws(engine, part, plan) for part in parts]
    engine.close()
    return mean(meter.bytes), summed(drawn)


def step(engine: StageEngine, parts: list[Batch], plan: StepPlan) -> None:
    for part in parts:
        engine.forward_backward(part, plan, last=part is parts[-1])
    engine.step(1e-12)


def draws(engine: StageEngine, part: Batch, plan: StepPlan) -> list[Draws]:
    """Of each round; [] where the stage plays none."""
    task = engine.task
    if not isinstance(task, RoundsTask):
        return []
    plan = EditPlan.of(plan)
    outs, _ = engine.call(task.play, part, plan, range(plan.rounds))
    return [
        Draws(
            0.0 if out.filler is None else float(len(out.filler.slot)),
            0.0 if out.filler is None else float((out.filler.slot_weight >= 0).sum()),
            0.0 if out.gate is None else float(out.gate.compared.sum()),
        )
        for out in outs
    ]


def everyone(own: Any) -> list[Any]:
    """``own`` of all data-parallel ranks."""
    each: list[Any] = [None] * mesh.data_size()
    dist.all_gather_object(each, own, group=mesh.data_group())
    return each


def mean(counted: Counter[str]) -> dict[str, float]:
    """Over data-parallel ranks: they differ in what they drew."""
    each = everyone(counted)
    return {kind: sum(one[kind] for one in each) / len(each) for kind in counted}


def summed(drawn: list[list[Draws]]) -> list[Draws]:
    """Over micro-batches and data-parallel ranks."""
    columns = zip(*(part for each in everyone(drawn) for part in each), strict=True)
    return [
        Draws(sum(d.slots for d in column), sum(d.masks for d in column), sum(d.compared for d in column))
        for column in columns
    ]
