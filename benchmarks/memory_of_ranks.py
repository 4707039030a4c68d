"""What a rank of a real engine holds in a step, by kind: the worker of ``benchmarks.plan_memory``, one process a rank.

States are the sizes of the engine's own tensors; activations the distinct storages that autograd keeps for backward.
The peak is that of all bytes that torch's allocator has given out, as its profiler sees them from before the model is
built.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.engines import build_engine, build_model, build_task, device, join
from benchmarks.runs import Size, random_batch
from benchmarks.saved_bytes import SavedBytes
from dualmask.config.deepspeed import micro_batches
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import plan_at
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.task import RoundsTask
from dualmask.nn.parallel import mesh
from dualmask.training.engine import StageEngine

MARK = "measured step"
CUDA = torch.cuda.is_available()
Seen = dict[str, Any]  # "bytes" by kind, "draws" of each round; on CUDA what the allocator "reserved"


def measure_runs(settings: Mapping[str, tuple[RunConfig, int]], tensor: int) -> dict[str, Seen]:
    """Of each run with its vocabulary, what the rank that holds most measured. On every rank."""
    join(tensor=tensor)
    fullest: dict[str, Seen] = {}
    for name, (run, vocab_size) in settings.items():
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, measure(run, vocab_size))
        fullest[name] = max(everyone, key=lambda each: each["bytes"]["total"])
    return fullest


def measure(run: RunConfig, vocab_size: int) -> Seen:
    """Bytes by kind in a step of the run's one stage, ``total``: the step's peak, whatever it is made of; and what the
    data drew in each round."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=not CUDA) as seen:
        model = build_model(run, vocab_size)
        drawn = draws(model, run, vocab_size)
        engine = build_engine(run, model)
        saved = SavedBytes(model.parameters())
        held = play(engine, run, vocab_size, saved)
        held |= {"adam": states(run, engine)["adam"]}  # without ZeRO they are born in the first step
        gc.collect()
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        with record_function(MARK):
            play(engine, run, vocab_size)  # ZeRO-3 knows the order of the modules by now
        total = torch.cuda.max_memory_allocated() if CUDA else 0
        reserved = {"reserved": torch.cuda.max_memory_reserved()} if CUDA else {}
    engine.close()
    return {"bytes": held | {"activations": saved.peak, "total": total or peak(seen)}, "draws": drawn} | reserved


@torch.no_grad()
def draws(model: nn.Module, run: RunConfig, vocab_size: int) -> list[dict[str, float]] | None:
    """Fields of ``planner.passes.Draws`` for each round of a step's first micro-batch, before anything is learnt."""
    plan = plan_at(run.stages, 0)
    task = build_task(run, model).to(device())
    if not isinstance(task, RoundsTask):
        return None  # the configuration decides
    batch = next(batches(run, vocab_size)).to(device())
    outs, _ = task.play(batch, EditPlan.of(plan), range(EditPlan.of(plan).rounds))
    return [{"slots": len(x.filler.slot), "masks": float((x.filler.slot_weight >= 0).sum())} for x in outs if x.filler]


def play(engine: StageEngine, run: RunConfig, vocab_size: int, saved: SavedBytes | None = None) -> dict[str, int]:
    """The first step, and the bytes of the states behind its last backward pass."""
    plan, micros = plan_at(run.stages, 0), micro_batches(run, mesh.data_size())
    for number, batch in enumerate(batches(run, vocab_size)):
        with saved.hooks() if saved else nullcontext():
            engine.forward_backward(batch.to(engine.device), plan, last=number == micros - 1)
    held = states(run, engine)
    engine.step(plan.lr)
    return held


def batches(run: RunConfig, vocab_size: int) -> Iterator[Batch]:
    """This rank's share of the random texts of every step, one micro-batch after the other."""
    micros = micro_batches(run, mesh.data_size())
    rows = run.batch.sequences // mesh.data_size() // micros
    size = Size(length=run.model.max_length, sequences=rows, vocabulary=vocab_size)
    for number in range(micros):
        yield random_batch(size, number * mesh.data_size() + mesh.data_rank())


def states(run: RunConfig, engine: StageEngine) -> dict[str, int]:
    """Bytes of what DeepSpeed keeps of parameters, their gradients and their optimizer."""
    zero: Any = engine.deepspeed_engine.optimizer
    parameters = list(engine.deepspeed_engine.module.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    weights, master = parameters, getattr(zero, "fp32_groups", [])  # without ZeRO; the copies are those of bf16
    if run.parallel.zero_stage == 3:
        weights, gradients = [p.ds_tensor for p in parameters], [zero.grad_partitions_flat_buffer]
        master = zero.fp32_partitioned_groups_flat
    elif run.parallel.zero_stage:
        gradients = [g for group in zero.averaged_gradients.values() for g in group or () if g is not None]
        master = zero.single_partition_of_fp32_groups
    base = getattr(zero, "optimizer", zero)
    adam = [x for state in base.state.values() for x in state.values() if torch.is_tensor(x) and x.ndim]
    kinds = {"weights": weights, "gradients": gradients, "master": master, "adam": adam}
    return {kind: elements(tensors) for kind, tensors in kinds.items()}


def elements(tensors: Iterable[Any]) -> int:
    """Bytes of all elements, of lists of tensors as well."""
    return sum(x.numel() * x.element_size() if isinstance(x, Tensor) else elements(x) for x in tensors)


def peak(seen: profile) -> int:
    """Greatest sum of the CPU allocations while the step that is marked was running. What was given out before the
    profiler began is not counted, neither when it is freed."""
    events = list(_events(seen.profiler.kineto_results.experimental_event_tree()))
    mark = next(event for event in events if event.typed[0] == _EventType.TorchOp and event.name == MARK)
    held: dict[int, int] = {}
    now = highest = 0
    allocations = (event for event in events if event.typed[0] == _EventType.Allocation)
    for event in sorted(allocations, key=lambda event: event.start_time_ns):
        place, size = event.typed[1].ptr, event.typed[1].alloc_size
        now += size if size > 0 else -held.pop(place, 0)
        if size > 0:
            held[place] = size
        if mark.start_time_ns <= event.start_time_ns <= mark.end_time_ns:
            highest = max(highest, now)
    return highest


def _events(nodes: Sequence[Any]) -> Iterator[Any]:
    for node in nodes:
        yield node
        yield from _events(node.children)
