"""One optimizer step on one global batch. Owns the batch; knows nothing of files, clocks or what comes next."""

# B sequences of this rank

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.families.edit.losses.gate import gate_open
from dualmask.nn.parallel import mesh
from dualmask.training.engine import StageEngine


@dataclass(frozen=True)
class StepResult:
    """The same on every rank."""

    losses: dict[str, float]  # "total", each loss unweighted, and diagnostics: means over the global batch
    grad_norm: float  # of the whole gradient before clipping; not finite if the step was skipped
    taken: bool  # False: something was NaN or infinite, and no rank changed anything
    tokens: int  # of the global batch, without padding
    stop: bool  # some rank was asked to stop


def run_step(engine: StageEngine, batch: Batch, plan: StepPlan, *, micros: int, stop: bool = False) -> StepResult:
    """Forward and backward over ``micros`` equal parts of this rank's ``batch``, then one step of all ranks together.

    ``stop``: this rank wants to end after the step; the result says whether any rank does.
    """
    size = len(batch.length) // micros
    seen: dict[str, Tensor] = {}
    for number in range(micros):
        part = batch.rows(slice(number * size, (number + 1) * size)).to(engine.device)
        total, parts = engine.forward_backward(part, plan, last=number == micros - 1)
        for name, value in {"total": total, **parts}.items():
            seen[name] = seen.get(name, 0.0) + value.double() / micros
    grad_norm, taken = engine.step(plan.lr)
    losses, tokens, any_stop = _over_ranks(seen, int(batch.length.sum()), stop, engine.device)
    losses |= gate_open(losses)
    return StepResult(losses, grad_norm, taken, tokens, any_stop)


def _over_ranks(
    seen: dict[str, Tensor], tokens: int, stop: bool, device: torch.device
) -> tuple[dict[str, float], int, bool]:
    """Means of the figures, sum of the tokens, any of the stops: in one collective and one transfer."""
    counts = torch.tensor([tokens, stop], dtype=torch.float64, device=device)
    vector = torch.cat([counts, torch.stack(list(seen.values()))])
    dist.all_reduce(vector)
    token_sum, stops, *sums = vector.tolist()
    world = dist.get_world_size()
    means = {name: value / world for name, value in zip(seen, sums, strict=True)}
    return means, round(token_sum / mesh.tensor_size()), stops > 0
