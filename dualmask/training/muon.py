"""Muon for the matrices of the hidden layers and AdamW for the rest: one torch optimizer, which DeepSpeed drives.

DeepSpeed 0.19.8 has a ``Muon`` of its own, which gives other results than the method under most of our settings: its
ZeRO stages orthogonalise before they measure and clip the gradient's norm, so that stages 1 to 3 clip something else
than stage 0, and ``grad_norm`` is that of the update; under tensor parallelism it orthogonalises each rank's slice; it
computes in half precision even in a float32 run, which makes parity a matter of luck; its steps are not scaled to
those of AdamW; and it compiles kernels when it is imported. What follows needs nothing of DeepSpeed but that it calls
``step`` with each rank's part of the clipped gradient, as it does for any torch optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dualmask.config.schema import RunConfig
from dualmask.nn.hidden import Rows
from dualmask.nn.parallel import mesh
from dualmask.training.shards import MOMENTUM, FlatRange

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic: the steepest at zero, so that 5 steps suffice
NEWTON_SCHULZ_STEPS = 5
SMALLEST_NORM = 1e-7


@dataclass(frozen=True)
class Place:
    """Where this rank keeps its part of a matrix: ``offset`` of a flat tensor on; ``flat_range.count`` may be 0."""

    flat_range: FlatRange
    rows: Rows
    offset: int = 0

    def of(self, flat: Tensor) -> Tensor:
        return flat[self.offset : self.offset + self.flat_range.count]

    def within(self, whole: Tensor) -> Tensor:
        """This rank's part of the flattened slice ``whole``."""
        return whole[self.flat_range.start : self.flat_range.start + self.flat_range.count]


class HiddenMatrixAdamW(torch.optim.AdamW):
    """torch's AdamW, except for the groups with ``muon: True``, which Muon updates.

    Steps are scaled to the size of AdamW's, 0.2 · √max(rows, columns), so that both take the same learning rate
    (``adjust_lr_fn="match_rms_adamw"`` of ``torch.optim.Muon``). The class avoids the word Muon in its name, by which
    DeepSpeed knows its own.
    """

    param_groups: list[dict[str, Any]]

    def __init__(self, groups: Iterable[dict[str, Any]], *, momentum: float, dtype: torch.dtype, **adamw: Any) -> None:
        """``dtype``: of the Newton-Schulz iteration."""
        super().__init__(groups, **adamw)
        self._momentum, self._dtype = momentum, dtype
        self._places: Mapping[Tensor, Sequence[Place]] = {}
        self._divided = False

    def locate(self, places: Mapping[Tensor, Sequence[Place]], *, divided: bool) -> None:
        """``places``: for each tensor of the Muon groups, the matrices in it: the same ones, in the same order, on all
        data-parallel ranks. ``divided``: each of these has a part only; otherwise each has all."""
        self._places, self._divided = places, divided

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Collective, if anything is divided."""
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["muon"]]
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            for tensor in group["params"] if group["muon"] else ():
                if tensor.grad is not None:
                    self._update(tensor, group["lr"], group["weight_decay"])

    def _update(self, tensor: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[tensor]
        if not state:
            state["step"] = torch.tensor(0.0, device=tensor.device)
            state[MOMENTUM] = torch.zeros_like(tensor, memory_format=torch.preserve_format)
        state["step"] += 1
        state[MOMENTUM].lerp_(tensor.grad, 1 - self._momentum)
        # Nesterov's direction, in the gradient's memory: nobody reads a gradient behind a step
        direction = tensor.grad.lerp_(state[MOMENTUM], self._momentum).view(-1)
        tensor.mul_(1 - lr * weight_decay)
        flat = tensor.view(-1)
        places = self._places.get(tensor, ())  # none yet: DeepSpeed's first step, which makes states of zero gradients
        for place, update in self._orthogonal(places, direction):
            place.of(flat).add_(place.within(update).to(flat), alpha=-lr)

    def _orthogonal(self, places: Sequence[Place], direction: Tensor) -> Iterator[tuple[Place, Tensor]]:
        """(place, flat update of this rank's whole slice) of each matrix; each data-parallel rank does its share."""
        if not self._divided:
            for place in places:
                yield place, self._whole_update(place, place.of(direction))
            return
        group, rank, device = mesh.data_group(), mesh.data_rank(), _device(direction)
        for first in range(0, len(places), mesh.data_size()):
            window = places[first : first + mesh.data_size()]
            own = direction
            for owner, place in enumerate(window):
                # a sum of parts beside zeros: exact, and the same for every layout that DeepSpeed has
                whole = direction.new_zeros(math.prod(place.flat_range.shape), device=device)
                place.within(whole).copy_(place.of(direction))
                dist.reduce(whole, group=group, group_dst=owner)
                own = whole if owner == rank else own
            if rank < len(window):
                own = self._whole_update(window[rank], own)
            for owner, place in enumerate(window):
                size = math.prod(place.flat_range.shape)
                update = own if owner == rank else direction.new_empty(size, device=device)
                dist.broadcast(update, group=group, group_src=owner)
                yield place, update

    def _whole_update(self, place: Place, direction: Tensor) -> Tensor:
        """From the direction of this tensor-parallel rank's slice; both flat. Collective in its group."""
        slice_, axis = direction.view(place.flat_range.shape), place.flat_range.axis
        if axis is not None:
            slices = [torch.empty_like(slice_) for _ in range(mesh.tensor_size())]
            dist.all_gather(slices, slice_.contiguous(), group=mesh.tensor_group())
            slice_ = torch.cat(slices, dim=axis)
        matrices = place.rows.split(slice_)
        scale = 0.2 * math.sqrt(max(matrices.shape[1:]))
        update = place.rows.join(orthogonalised(matrices, self._dtype).mul_(scale))
        if axis is not None:
            update = update.chunk(mesh.tensor_size(), dim=axis)[mesh.tensor_rank()]
        return update.to(direction.dtype).reshape(-1)


def make_muon(run: RunConfig, ds_config: Mapping[str, Any], groups: Iterable[dict[str, Any]]) -> HiddenMatrixAdamW:
    """The optimizer of the ``groups``, with AdamW's settings as DeepSpeed's configuration has them."""
    adamw = {key: value for key, value in ds_config["optimizer"]["params"].items() if key != "torch_adam"}
    dtype = torch.bfloat16 if run.parallel.precision == "bf16" else torch.float32
    return HiddenMatrixAdamW(groups, momentum=run.optimizer.momentum, dtype=dtype, **adamw)


def orthogonalised(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """U Vᵀ of each matrix U S Vᵀ [N, rows, columns], roughly: its singular values lie between 0.7 and 1.2."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _device(tensor: Tensor) -> torch.device:
    """On which collectives run; an optimizer that was offloaded keeps its tensors elsewhere."""
    nccl = dist.get_backend(mesh.data_group()) == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else tensor.device
