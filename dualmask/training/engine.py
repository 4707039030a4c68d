"""One stage's task under DeepSpeed: distributed start, optimizer groups, one step on one global batch, whole weights.

Beside partition.py and zero3.py the only importer of deepspeed. Knows nothing of files, clocks or what comes next: that
is the trainer's business.
"""

# B sequences of this rank

from __future__ import annotations

import datetime
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor, nn

from dualmask.config.schema import RunConfig
from dualmask.config.stage import StageConfig
from dualmask.core import host
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import Tokenizer
from dualmask.curriculum import StepPlan
from dualmask.families.task import Preview, Task
from dualmask.nn.hidden import rows_of
from dualmask.nn.parallel import mesh
from dualmask.nn.parallel.mpu import deepspeed_mpu
from dualmask.nn.parallel.slices import slice_of, split_axis
from dualmask.training import zero3
from dualmask.training.average import MovingAverage, WeightAverage
from dualmask.training.errors import TrainingError
from dualmask.training.muon import make_muon
from dualmask.training.partition import Partition
from dualmask.training.shards import MODEL
from dualmask.training.tensor_file import Form, Tensors

Result = TypeVar("Result")
Which = Literal["last", "average"]
_TEXTS = "texts a row"


def init_distributed(*, tensor: int, timeout_seconds: int, device: torch.device) -> None:
    """Joins the processes that the launcher started (or makes a world of one) and forms the parallel groups."""
    zero3.one_heap()
    # the shared-memory op of the CPU backend takes minutes and a compiler, and gloo does the same work
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    _quieten()
    timeout = datetime.timedelta(seconds=timeout_seconds)
    backend = "nccl" if device.type == "cuda" else "gloo"
    if os.environ.get("WORLD_SIZE", "1") == "1":
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists
        if not dist.is_initialized():  # a store inside this process: no port is opened
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    deepspeed.init_distributed(dist_backend=backend, timeout=timeout, verbose=False, auto_mpi_discovery=False)
    mesh.initialize(tensor, timeout_seconds)


def _quieten() -> None:
    """Leaves out what nobody can act on: skipped steps are the trainer's to report, and modules that return named
    tensors work under ZeRO-3 as long as they own no parameter themselves."""
    known = ("OVERFLOW! Skipping step", "A module has unknown inputs or outputs type", "an untested optimizer")
    # DeepSpeed still calls collectives by the names that torch 2.13 renames
    warnings.filterwarnings("ignore", message="`torch.distributed.", category=FutureWarning)
    logger = logging.getLogger("DeepSpeed")
    logger.setLevel(logging.WARNING)
    logger.addFilter(lambda entry: not any(text in entry.getMessage() for text in known))


def parameter_groups(
    model: nn.Module, stage: StageConfig, weight_decay: float, *, muon: bool = False
) -> list[dict[str, Any]]:
    """Optimizer groups: one per learning module, and within it decayed matrices apart from undecayed vectors.

    ``muon``: matrices of hidden layers are groups of their own, and each group says whether Muon updates it.

    ``lr_scale`` of a group is its learning rate over the stage's. Parameters that do not learn lose ``requires_grad``.
    """
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        module = stage.module_of(name)
        parameter.requires_grad_(module is not None)
        if module is None:
            continue
        hidden = muon and rows_of(parameter) is not None
        kind = "hidden" if hidden else "matrices" if len(zero3.shape_of(parameter)) > 1 else "vectors"
        fresh = {
            "name": f"{module}.{kind}",
            "params": [],
            "lr_scale": stage.lr_scale.get(module, 1.0),
            "weight_decay": 0.0 if kind == "vectors" else weight_decay,
        }
        if muon:
            fresh["muon"] = hidden
        groups.setdefault((module, kind), fresh)["params"].append(parameter)
    return list(groups.values())


class StageEngine:
    """A task whose model learns. Every method is collective: all ranks call it, in the same order."""

    def __init__(self, run: RunConfig, stage: StageConfig, task: Task, ds_config: dict[str, Any]) -> None:
        self.stage = stage
        self.task, self.model = task, task.model
        self._zero_stage = run.parallel.zero_stage
        self._clip = run.optimizer.clip
        muon = run.optimizer.name == "muon"
        groups = parameter_groups(self.model, stage, run.optimizer.weight_decay, muon=muon)
        formed = [list(group["params"]) for group in groups]  # DeepSpeed puts flat tensors in their stead
        self.deepspeed_engine, *_ = deepspeed.initialize(
            model=task,
            model_parameters=groups,
            config=ds_config,
            mpu=deepspeed_mpu(),
            optimizer=partial(make_muon, run, ds_config) if muon else None,
        )
        self._follower: MovingAverage | None = None
        if (follower := task.follower()) is not None:
            copy, decay = follower
            self._follower = MovingAverage(copy, self.model, decay)
        self._average: WeightAverage | None = None
        if run.optimizer.ema_decay is not None:
            self._average = WeightAverage(self.partition.weights(), run.optimizer.ema_decay)
        if muon:
            self.partition.locate(formed)
        self._learning = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self._touched: set[str] = set()
        for name, parameter in self._learning.items():
            parameter.register_post_accumulate_grad_hook(self._note(name))

    @property
    def device(self) -> torch.device:
        return torch.device(self.deepspeed_engine.device)

    def forward_backward(self, batch: Batch, plan: StepPlan, *, last: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds one micro-batch's gradient, window by window; ``last`` says that ``step`` follows.

        Returns the loss and its parts. Raises TrainingError if a window gives a learning parameter no gradient: ranks
        that differ in this hang, and what a whole step leaves out would silently get the gradient of the step before.
        """
        total, state = torch.zeros((), device=self.device), None
        seen: dict[str, Tensor] = {}
        windows = self.task.windows(plan)
        for rounds in windows:
            self.deepspeed_engine.set_gradient_accumulation_boundary(last and rounds == windows[-1])
            out = self.deepspeed_engine(self.task.window, batch, plan, rounds, state)
            loss, state = out.total, out.state
            # a loss that is not finite makes every gradient NaN, on every rank: then no rank takes the step
            self.deepspeed_engine.backward(
                loss * torch.where(torch.isfinite(loss.detach()), batch.texts_per_row, math.nan)
            )
            self._require_all_touched(rounds)
            total = total + loss.detach()
            for name, value in out.parts.items():
                seen[name] = seen.get(name, 0.0) + value
        return total, seen

    def _require_all_touched(self, rounds: range) -> None:
        if missing := sorted(self._learning.keys() - self._touched):
            raise TrainingError(
                f"stage {self.stage.name}, rounds {rounds.start} to {rounds.stop - 1}: no gradient reached "
                f"{missing[0]} (and {len(missing) - 1} more): leave its module out of "
                f"train={list(self.stage.train)}, or give it a loss"
            )
        self._touched.clear()

    def step(self, lr: float) -> tuple[float, bool]:
        """One clipped step. Returns the norm of the whole gradient before clipping, and whether the step was taken.

        If any gradient of any rank is not finite, no rank changes a parameter or an optimizer state.
        """
        for group in self.deepspeed_engine.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        norm = self._plain_norm() if self._zero_stage == 0 else None
        if norm is not None and not math.isfinite(norm):
            self.deepspeed_engine.zero_grad()
            return norm, False
        self.deepspeed_engine.step()
        norm = float(self.deepspeed_engine.get_global_grad_norm()) if norm is None else norm
        taken = math.isfinite(norm)
        if taken and self._follower is not None:
            self._follower.follow()
        if taken and self._average is not None:
            self._average.follow(self.partition.weights())
        return norm, taken

    @torch.no_grad()
    def call(self, method: Callable[..., Result], *arguments: Any) -> Result:
        """A method of the task, without learning, in evaluation mode. What it gathers is given up behind it."""
        self.deepspeed_engine.eval()
        try:
            result: Result = self.deepspeed_engine(method, *arguments)
            return result
        finally:
            self.deepspeed_engine.train()
            zero3.release(self.deepspeed_engine)

    def preview(self, batch: Batch, plan: StepPlan, tokenizer: Tokenizer) -> Preview:
        """What the task makes of a few texts."""
        return self.call(self.task.preview, batch.to(self.device), plan, tokenizer)

    def whole_weights(self, which: Which = "last") -> Tensors:
        """Every parameter, joined over tensor-parallel ranks: float32, on the CPU; one after the other, because no rank
        has room for all. Every rank takes all of them.

        "average": where a parameter learns, the average of its weights (needs optimizer.ema_decay).
        """
        parameters = self.model.named_parameters()
        forms = {name: Form(slice_of(parameter, zero3.shape_of(parameter)).whole) for name, parameter in parameters}
        return Tensors(forms, self._whole_weights(which))

    def _whole_weights(self, which: Which) -> Iterator[tuple[str, Tensor]]:
        partition = self.partition

        def own_slice(name: str, parameter: nn.Parameter) -> Tensor:
            averaged = which == "average" and parameter.requires_grad
            return partition.averaged_slice(MODEL + name, self.device) if averaged else self._gather(parameter)

        for name, parameter in self.model.named_parameters():  # no variable here keeps one beside the next
            yield name, join(own_slice(name, parameter), split_axis(parameter), self.device)

    @property
    def partition(self) -> Partition:
        """This rank's share of parameters and optimizer, for checkpoints."""
        copies = self._follower.kept if self._follower else {}
        return Partition(self.deepspeed_engine.module, self.deepspeed_engine.optimizer, copies, self._average)

    def close(self) -> None:
        """Frees everything, hooks included; the object is of no use afterwards."""
        self.deepspeed_engine.destroy()
        zero3.forget(self.task)
        del self.deepspeed_engine, self.task, self.model, self._learning, self._follower, self._average
        zero3.trim_heap()

    def _note(self, name: str) -> Any:
        return lambda parameter: self._touched.add(name)

    def _gather(self, parameter: nn.Parameter) -> Tensor:
        if parameter.requires_grad and self._zero_stage > 0:
            full = safe_get_full_fp32_param(parameter)  # from the optimizer's float32 copy, in a tensor of its own
            assert full is not None
            return full.detach().float().cpu()
        if self._zero_stage == 0:
            return self.partition.weight(parameter).view(parameter.shape).detach().float().cpu().clone()
        partitioned = self._zero_stage == 3
        with deepspeed.zero.GatheredParameters([parameter]) if partitioned else nullcontext():
            return parameter.detach().float().cpu().clone()

    def _plain_norm(self) -> float:
        """Norm of the averaged gradient where no ZeRO optimizer measures it: split parameters count on every rank."""
        counted = [p for p in self._learning.values() if split_axis(p) is not None or mesh.tensor_rank() == 0]
        square = torch.nn.utils.get_total_norm([p.grad for p in counted]).double().square()
        dist.all_reduce(square, group=mesh.tensor_group())
        return math.sqrt(square.item())


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

    Losses are means over texts; where parts have packed rows, each part's gradient weighs as much as it has texts.
    ``stop``: this rank wants to end after the step; the result says whether any rank does.
    """
    batch = engine.task.prepare(batch, plan)
    sums: dict[str, Tensor] = {}
    for number, part in enumerate(batch.parts(micros), 1):
        total, parts = engine.forward_backward(part.to(engine.device), plan, last=number == micros)
        one = torch.ones((), device=engine.device)
        for name, value in {"total": total, **parts, _TEXTS: one}.items():
            sums[name] = sums.get(name, 0.0) + value.double() * part.texts_per_row / micros
    grad_norm, taken = engine.step(plan.lr)
    means, tokens, any_stop = _over_ranks(sums, int(batch.length.sum()), stop, engine.device)
    losses = {name: value / means[_TEXTS] for name, value in means.items() if name != _TEXTS}
    return StepResult(losses, grad_norm, taken, tokens, any_stop)


def _over_ranks(
    sums: dict[str, Tensor], tokens: int, stop: bool, device: torch.device
) -> tuple[dict[str, float], int, bool]:
    """Means of the figures, sum of the tokens, any of the stops: in one collective and one transfer."""
    counts = host.to_device(np.array([tokens, stop], dtype=np.float64), device)
    vector = torch.cat([counts, torch.stack(list(sums.values()))])
    dist.all_reduce(vector)
    token_sum, stops, *totals = host.Copy(vector).wait()[0].tolist()
    world = dist.get_world_size()
    means = {name: value / world for name, value in zip(sums, totals, strict=True)}
    return means, round(token_sum / mesh.tensor_size()), stops > 0


def join(part: Tensor, axis: int | None, device: torch.device) -> Tensor:
    """The whole of a parameter from every tensor-parallel rank's ``part``, on the CPU."""
    if axis is None:
        return part
    parts = [torch.empty_like(part, device=device) for _ in range(mesh.tensor_size())]
    dist.all_gather(parts, part.to(device), group=mesh.tensor_group())
    return torch.cat([piece.cpu() for piece in parts], dim=axis)
