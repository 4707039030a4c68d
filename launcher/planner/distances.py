"""How long ZeRO-3 keeps a weight gathered, by the memory that is left: decided before a run for all of its stages.

In a window of two rounds the filler is called four times forward and twice backward, and between two of its calls lie
all other modules. DeepSpeed keeps a weight only if fewer than ``stage3_max_reuse_distance`` elements are used before
its next call: a distance that is a little too short keeps next to nothing, one that spans the window gathers each
weight once in it.
"""

from __future__ import annotations

from bisect import bisect_left

from dualmask.config.deepspeed import REUSE, micro_batches
from dualmask.config.schema import RunConfig
from launcher.planner.memory import memory

REUSES = tuple(REUSE * 4**power for power in range(8))  # elements; the last is more than any window uses


def settled(run: RunConfig, vocab_size: int, data_size: int, usable_bytes: float) -> RunConfig:
    """The run with ``parallel.max_reuse_distance`` as large as ``usable_bytes`` of a GPU allow in every stage.

    As it is where the run file decides, where nothing is gathered, and where the planner does not know the family's
    passes. Raises ValueError where the batch does not divide.
    """
    parallel = run.parallel
    if parallel.max_reuse_distance is not None or parallel.zero_stage < 3 or data_size == 1:
        return run
    micro_batches(run, data_size)

    def too_large(reuse: int) -> bool:
        spread = with_reuse(run, reuse)
        return any(memory(spread, stage, vocab_size, data_size).total > usable_bytes for stage in run.stages)

    try:
        first = bisect_left(REUSES, True, key=too_large)
    except ValueError:  # passes of a family that the planner does not know
        return run
    return with_reuse(run, REUSES[max(first - 1, 0)])


def with_reuse(run: RunConfig, reuse: int | None) -> RunConfig:
    return run.model_copy(update={"parallel": run.parallel.model_copy(update={"max_reuse_distance": reuse})})
