"""Bytes of the host's memory that a rank needs in the phases of a run that are not steps, and whether it can start.

* At start a rank makes its engine and draws its share of one parameter after the other. On a GPU the host only has
  these, ZeRO-3's copy of the share while DeepSpeed moves it into one tensor, and what is offloaded.
* At a stage change the old engine is gone before the next is made, whose weights are read from the checkpoint.
* A checkpoint is a copy of the share and of all that the optimizer keeps of it, until a thread has written it.
* An export goes through one whole parameter at a time, which tensor-parallel ranks join from its slices.

What a process needs before it holds anything (Python, torch, CUDA) is not in here: ``Hardware.host_process_gib``.
"""

from __future__ import annotations

from dualmask.config.hardware import GIB, Hardware
from dualmask.config.schema import RunConfig
from launcher.planner.memory import at_initialize, at_rest, gathered_copies, memory, offloaded
from launcher.planner.muon import moments
from launcher.planner.parameters import SINGLE, element, learning, parameters

# of each element of a parameter that is being filled in
DRAWN = 24  # its place in the whole parameter, calculated in int64, and two copies of its value
READ = 2 * SINGLE
KEPT_BY_HEAP = 2**26  # of what steps on a CPU have freed (training/zero3.py says so to glibc)


def host_bytes(run: RunConfig, vocab_size: int, data_size: int) -> dict[str, float]:
    """phase → bytes of the rank that needs most, over all stages; "at start" is that of the first.

    On ``device: cpu`` the host's memory is the device's, too. ``data_size``: data-parallel ranks.
    """
    tensor, cpu = run.parallel.tensor, run.device == "cpu"
    every = parameters(run.model, vocab_size)
    # ZeRO-3's part of a parameter, or what every rank computes with
    filled = max(p.size(tensor) for p in every) / (data_size if run.parallel.zero_stage == 3 else 1)
    making = [_making(run, number, vocab_size, data_size) for number in range(len(run.stages))]
    running = max(_running(run, number, vocab_size, data_size) for number in range(len(run.stages)))
    phases = {"at start": making[0] + DRAWN * filled}
    if len(run.stages) > 1:
        phases["at a stage change"] = max(making[1:]) + READ * filled
    phases["while a checkpoint is written"] = running + _pieces(run, vocab_size, data_size)
    copies = gathered_copies(run, tensor * data_size) + (1 if tensor > 1 else 0)  # tensor-parallel parts are joined
    whole = SINGLE * max(p.size() for p in every) * copies
    last = run.stages[-1]
    kept = (
        at_rest(run, last, vocab_size, data_size) + KEPT_BY_HEAP if cpu else offloaded(run, last, vocab_size, data_size)
    )
    phases["at export"] = whole + kept
    return phases


def cannot_start(run: RunConfig, vocab_size: int, data_size: int, ranks_of_a_node: int, hardware: Hardware) -> str:
    """Why the run cannot start on such machines, and what would help, in one line; "" if it can."""
    first = max(run.stages, key=lambda stage: at_initialize(run, stage, vocab_size, data_size))
    made = at_initialize(run, first, vocab_size, data_size)
    if run.device != "cpu" and made > hardware.usable_bytes:
        return (
            f"{run.name} cannot start: making the engine of stage {first.name} takes {made / GIB:.0f} of "
            f"{hardware.usable_bytes / GIB:.0f} GiB of a GPU; {_remedy(run)}"
        )
    if hardware.host_memory_gib is None:
        return ""
    for phase, held in host_bytes(run, vocab_size, data_size).items():
        need = ranks_of_a_node * (held / GIB + hardware.host_process_gib)
        if need > hardware.host_memory_gib:
            return (
                f"{run.name} cannot start: {phase}, {ranks_of_a_node} ranks of a node need {need:.0f} GiB of its "
                f"{hardware.host_memory_gib:.0f} GiB of memory; {_remedy(run)}"
            )
    return ""


def _making(run: RunConfig, number: int, vocab_size: int, data_size: int) -> float:
    """Of the engine of a stage."""
    stage = run.stages[number]
    if run.device == "cpu":
        return at_initialize(run, stage, vocab_size, data_size)
    learns = sum(p.size(run.parallel.tensor) for p in learning(parameters(run.model, vocab_size), stage))
    moved = learns * element(run.parallel) / data_size if run.parallel.zero_stage == 3 else 0.0
    return moved + offloaded(run, stage, vocab_size, data_size)


def _running(run: RunConfig, number: int, vocab_size: int, data_size: int) -> float:
    """Of the steps of a stage; of a family that the planner does not know what they begin with."""
    stage = run.stages[number]
    if run.device != "cpu":
        return offloaded(run, stage, vocab_size, data_size)
    try:
        return memory(run, stage, vocab_size, data_size).total
    except ValueError:
        return at_initialize(run, stage, vocab_size, data_size)


def _pieces(run: RunConfig, vocab_size: int, data_size: int) -> float:
    """A rank's copies for a checkpoint. Without ZeRO the ranks share the work of writing as well."""
    every, tensor = parameters(run.model, vocab_size), run.parallel.tensor
    most = 0
    for stage in run.stages:
        taught = learning(every, stage)
        averaged = sum(p.size(tensor) for p in taught) if run.optimizer.ema_decay is not None else 0
        most = max(most, sum(p.size(tensor) for p in every) + moments(run, taught) + averaged)
    return SINGLE * most / data_size


def _remedy(run: RunConfig) -> str:
    parallel = run.parallel
    if parallel.zero_stage < 3:
        return (
            f"set parallel.zero_stage=3 (it is {parallel.zero_stage}), which shares all of it out, or take more nodes"
        )
    without = "set parallel.offload=none, " if parallel.offload != "none" else ""
    return f"{without}raise parallel.tensor={parallel.tensor}, or take more nodes"
