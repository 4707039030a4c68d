"""The models and engines of small runs, made on the ranks that measure them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn

from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.families.task import Task, build
from dualmask.nn.parallel import mesh
from dualmask.nn.trunk import split_tokens
from dualmask.training.engine import StageEngine, init_distributed


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def join(*, tensor: int = 1, timeout_seconds: int = 120, cpu: bool = False) -> None:
    """Makes this process a rank among those that were started with it."""
    init_distributed(tensor=tensor, timeout_seconds=timeout_seconds, device=torch.device("cpu") if cpu else device())


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """On a CPU, too, trunks compute on padding: a GPU would have to be asked how long a skeleton is, which the planner
    reckons with."""
    with patch("dualmask.core.host.readable", _unknown):
        yield


def _unknown(x: torch.Tensor) -> bool:
    return False


def build_model(run: RunConfig, vocab_size: int) -> nn.Module:
    """With the same random weights each time."""
    torch.manual_seed(0)
    model = build(run.model, vocab_size, activation_checkpointing=run.parallel.activation_checkpointing)
    if run.parallel.sequence:
        split_tokens(model)
    return model


def build_engine(run: RunConfig, model: nn.Module, user: Mapping[str, Any] | None = None) -> StageEngine:
    """For the run's one stage. ``user``: additions to DeepSpeed's configuration."""
    stage, cuda = run.stages[0], dist.get_backend() == "nccl"
    settings = deepspeed_config(run, stage, data_size=mesh.data_size(), cuda=cuda, user=user)
    return StageEngine(run, stage, build_task(run, model), settings)


def build_task(run: RunConfig, model: nn.Module) -> Task:
    """What the run's one stage teaches; ids only."""
    return run.family.load_runtime().task(model, run.stages[0], run, None)


def share_of_rank(batch: Batch) -> Batch:
    """This data-parallel rank's rows of a global batch."""
    rows = len(batch.length) // mesh.data_size()
    return batch.rows(slice(mesh.data_rank() * rows, (mesh.data_rank() + 1) * rows))


def half_precision() -> AbstractContextManager[Any]:
    """On CUDA, for loops that have no engine to see to it."""
    return torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_available())


def passes(task: Task, batch: Batch, plan: StepPlan) -> None:
    """Every forward and backward pass of one step."""
    state = None
    for rounds in task.windows(plan):
        with half_precision():
            out = task.window(batch, plan, rounds, state)
        out.total.backward()
        state = out.state
