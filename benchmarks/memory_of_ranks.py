"""What a rank of a real engine holds in a step, by kind: the worker of ``benchmarks.plan_memory``, one process a rank.

States are the sizes of the engine's own tensors; activations the distinct storages that autograd keeps for backward.
The peak is that of all bytes that torch's allocator has given out, as its profiler sees them from before the model is
built.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.rounds_memory import SavedBytes, Size, random_batch
from dualmask.config.deepspeed import deepspeed_config, micro_batches
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import plan_at
from dualmask.families.build import build
from dualmask.nn.parallel import mesh
from dualmask.training.engine import StageEngine, init_distributed
from dualmask.training.objective import objective

MARK = "measured step"
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


def measure(run: RunConfig, vocab_size: int) -> dict[str, Any]:
    """Bytes by kind in a step of the run's one stage, ``total``: the step's peak, whatever it is made of; and what the
    data drew in each round."""
    torch.manual_seed(0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=not CUDA) as seen:
        model = build(run.model, vocab_size, activation_checkpointing=run.parallel.activation_checkpointing)
        found = draws(model, run, vocab_size)
        config = deepspeed_config(run, run.stages[0], data_size=mesh.data_size(), cuda=CUDA)
        engine = StageEngine(run, run.stages[0], model, config)
        saved = SavedBytes(model.parameters())
        held = play(engine, run, vocab_size, saved)
        held |= {"adam": states(engine)["adam"]}  # without ZeRO they are born in the first step
        gc.collect()
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        with record_function(MARK):
            play(engine, run, vocab_size)  # ZeRO-3 knows the order of the modules by now
        total = torch.cuda.max_memory_allocated() if CUDA else 0
    engine.close()
    return {"bytes": held | {"activations": saved.peak, "total": total or peak(seen)}, "draws": found}


@torch.no_grad()
def draws(model: nn.Module, run: RunConfig, vocab_size: int) -> list[dict[str, float]] | None:
    """Fields of ``planner.passes.Draws`` for each round of a step's first micro-batch, before anything is learnt."""
    stage, plan = run.stages[0], plan_at(run.stages, 0)
    if "picker" not in stage.train:
        return None  # the configuration decides
    batch = next(batches(run, vocab_size, "cpu"))
    outs, _ = objective(model, stage)(batch, plan, range(plan.rounds), None, inspect=True)
    return [{"slots": len(x.filler.slot), "masks": float((x.filler.slot_weight >= 0).sum())} for x in outs]


def play(engine: StageEngine, run: RunConfig, vocab_size: int, saved: SavedBytes | None = None) -> dict[str, int]:
    """The first step, and the bytes of the states behind its last backward pass."""
    plan, micros = plan_at(run.stages, 0), micro_batches(run, mesh.data_size())
    for number, batch in enumerate(batches(run, vocab_size)):
        with saved.hooks() if saved else nullcontext():
            engine.forward_backward(batch, plan, last=number == micros - 1)
    held = states(engine)
    engine.step(plan.lr)
    return held


def batches(run: RunConfig, vocab_size: int, device: str = DEVICE) -> Iterator[Batch]:
    """This rank's share of the random texts of every step, one micro-batch after the other."""
    micros = micro_batches(run, mesh.data_size())
    rows = run.batch.sequences // mesh.data_size() // micros
    size = Size(length=run.model.max_length, sequences=rows, vocabulary=vocab_size)
    for number in range(micros):
        batch = random_batch(size, number * mesh.data_size() + mesh.data_rank())
        yield Batch(batch.tokens.to(device), batch.length.to(device), batch.key.to(device))


def states(engine: StageEngine) -> dict[str, int]:
    """Bytes of what DeepSpeed keeps of parameters, their gradients and their optimizer."""
    zero: Any = engine._engine.optimizer
    parameters = list(engine._engine.module.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    weights, master = parameters, getattr(zero, "fp32_groups", [])  # without ZeRO; the copies are those of bf16
    if engine._zero_stage == 3:
        weights, gradients = [p.ds_tensor for p in parameters], [zero.grad_partitions_flat_buffer]
        master = zero.fp32_partitioned_groups_flat
    elif engine._zero_stage:
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
    found = (event for event in events if event.typed[0] == _EventType.Allocation)
    for event in sorted(found, key=lambda event: event.start_time_ns):
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


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    init_distributed(tensor=job["tensor"], timeout_seconds=120, device=torch.device(DEVICE))
    for name, shape in job["shapes"].items():
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, measure(RunConfig.model_validate(shape["run"]), shape["vocab_size"]))
        if dist.get_rank() == 0:
            fullest = max(everyone, key=lambda each: each["bytes"]["total"])
            print(json.dumps({"shape": name, **fullest}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
