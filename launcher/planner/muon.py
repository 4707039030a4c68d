"""What Muon costs beside AdamW (dualmask/training/muon.py): a momentum, whole matrices in turn, their products."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from dualmask.config.schema import RunConfig
from launcher.planner.parameters import SINGLE, Parameter, element
from launcher.planner.traffic import Traffic

STEPS = 5  # of the Newton-Schulz iteration


def moments(run: RunConfig, taught: Iterable[Parameter]) -> int:
    """Elements that the optimizer keeps for the parameters that learn, on one tensor-parallel rank: AdamW two for each
    of theirs, Muon one."""
    return sum((1 if is_muons(run, p) else 2) * p.size(run.parallel.tensor) for p in taught)


def is_muons(run: RunConfig, parameter: Parameter) -> bool:
    return run.optimizer.name == "muon" and parameter.hidden


def workspace(run: RunConfig, taught: Iterable[Parameter]) -> float:
    """Bytes at the fullest point of an update: a matrix whole and as this rank's slice in float32, three of it in the
    iteration (its value, the next, a part rearranged), and two products of it with itself."""
    width = element(run.parallel)

    def of(p: Parameter) -> float:
        rows, columns = p.shape
        slices = p.size(run.parallel.tensor) + (p.size() if p.split is not None and run.parallel.tensor > 1 else 0)
        return SINGLE * slices + width * (3 * p.size() + 2 * min(rows, columns) ** 2)

    return max((of(p) for p in taught if is_muons(run, p)), default=0.0)


def operations(run: RunConfig, taught: Iterable[Parameter], data_size: int) -> float:
    """Floating-point operations of a rank in a step. Matrices are shared out among data-parallel ranks under ZeRO; the
    parts of a fused one are counted as one matrix of their height, which is a little much."""

    def of(p: Parameter) -> float:
        short, long = sorted(p.shape)
        return STEPS * (4.0 * short * short * long + 2.0 * short**3)

    each = [of(p) for p in taught if is_muons(run, p)]
    return sum(each) / (data_size if run.parallel.zero_stage else 1)


def sent(run: RunConfig, taught: Iterable[Parameter], data_size: int) -> Traffic:
    """A matrix is summed at one data-parallel rank and its update sent to all: together an all-reduce. Slices of the
    rank's own matrices are gathered over the tensor-parallel ranks."""
    tensor = run.parallel.tensor
    own = [p for p in taught if is_muons(run, p)]
    shared = data_size if run.parallel.zero_stage else 1
    split = [p for p in own if p.split is not None] if tensor > 1 else []
    return Traffic(
        data=data_size,
        tensor=tensor,
        reduced=SINGLE * sum(p.size(tensor) for p in own) if shared > 1 else 0.0,
        data_calls=len(own) if shared > 1 else 0,
        tensor_gathered=SINGLE * sum(p.size() for p in split) / shared,
        tensor_calls=ceil(len(split) / shared),
    )
