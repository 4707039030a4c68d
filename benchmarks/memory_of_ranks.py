"""What a rank of a real engine holds in a step, by kind: the worker of ``benchmarks.plan_memory``, one process a rank.

States are the sizes of the engine's own tensors; activations the distinct storages that autograd keeps for backward; the
peak is that of all bytes that torch's allocator has given out, as its profiler sees them from before the model is built.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.rounds_memory import SavedBytes, Size, random_batch
from dualmask.batch import Batch
from dualmask.config.deepspeed import deepspeed_config, micro_batches
from dualmask.config.schema import RunConfig
from dualmask.curriculum import plan_at
from dualmask.models.families import build
from dualmask.parallel import mesh
from dualmask.training.engine import StageEngine, init_distributed

MARK = "measured step"
CUDA = torch.cuda.is_available()


def measure(run: RunConfig, vocab_size: int) -> dict[str, int]:
    """Bytes by kind in a step of the run's one stage; ``total``: the step's peak, whatever it is made of."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=not CUDA) as seen:
        engine = start(run, vocab_size)
        play(engine, run, vocab_size, 0)
        saved = SavedBytes(engine.model.parameters())
        held = play(engine, run, vocab_size, 1, saved)
        gc.collect()
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        with record_function(MARK):
            play(engine, run, vocab_size, 2)  # ZeRO-3 knows the order of the modules by now
        total = torch.cuda.max_memory_allocated() if CUDA else 0
    engine.close()
    return held | {"activations": saved.peak, "total": total or peak(seen)}


def start(run: RunConfig, vocab_size: int) -> StageEngine:
    torch.manual_seed(0)
    stage = run.stages[0]
    model = build(run.model, vocab_size, activation_checkpointing=run.parallel.activation_checkpointing)
    return StageEngine(run, stage, model, deepspeed_config(run, stage, data_size=mesh.data_size(), cuda=CUDA))


def play(
    engine: StageEngine, run: RunConfig, vocab_size: int, step: int, saved: SavedBytes | None = None
) -> dict[str, int]:
    """A step, and the bytes of the states behind its last backward pass."""
    plan, micros = plan_at(run.stages, step), micro_batches(run, mesh.data_size())
    for number, batch in enumerate(batches(run, vocab_size, step, micros)):
        with saved.hooks() if saved else nullcontext():
            engine.forward_backward(batch, plan, last=number == micros - 1)
    held = states(engine)
    engine.step(plan.lr)
    return held


def batches(run: RunConfig, vocab_size: int, step: int, micros: int) -> Iterator[Batch]:
    """This rank's share of the step's random texts."""
    rows = run.batch.sequences // mesh.data_size() // micros
    size = Size(length=run.model.max_length, sequences=rows, vocabulary=vocab_size)
    for number in range(micros):
        batch = random_batch(size, (step * micros + number) * mesh.data_size() + mesh.data_rank())
        device = "cuda" if CUDA else "cpu"
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
        gradients = [g for group in zero.averaged_gradients.values() for g in group if g is not None]
        master = zero.single_partition_of_fp32_groups
    base = getattr(zero, "optimizer", zero)
    adam = [x for state in base.state.values() for x in state.values() if torch.is_tensor(x) and x.ndim]
    kinds = {"weights": weights, "gradients": gradients, "master": master, "adam": adam}
    return {kind: elements(tensors) for kind, tensors in kinds.items()}


def elements(tensors: Iterable[Any]) -> int:
    """Bytes of all elements, of lists of tensors as well."""
    return sum(x.numel() * x.element_size() if isinstance(x, Tensor) else elements(x) for x in tensors)


def peak(seen: profile) -> int:
    """Greatest sum of the CPU allocations while the step that is marked was running."""
    events = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    mark = next(event for event in events if event.name() == MARK)
    held = highest = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        held += event.nbytes()
        if mark.start_ns() <= event.start_ns() <= mark.end_ns():
            highest = max(highest, held)
    return highest


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    init_distributed(tensor=job["tensor"], timeout_seconds=120, device=torch.device("cuda" if CUDA else "cpu"))
    for name, shape in job["shapes"].items():
        kinds = measure(RunConfig.model_validate(shape["run"]), shape["vocab_size"])
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, kinds)
        if dist.get_rank() == 0:
            greatest = {kind: max(each[kind] for each in everyone) for kind in kinds}
            print(json.dumps({"shape": name, "bytes": greatest}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
