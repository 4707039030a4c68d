"""This rank's part of the parameters and of Adam's moments under any ZeRO stage: read as pieces, and restored.

Besides engine.py the only importer of deepspeed. ZeRO-3 keeps equal parts of each parameter; ZeRO-1, -2 and DeepSpeed's
bfloat16 optimizer keep equal parts of each optimizer group, whose borders may lie within a parameter; without ZeRO, and
for frozen parameters below ZeRO-3, every rank keeps the whole, and one of them writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from deepspeed.utils import (
    safe_get_local_fp32_param,
    safe_get_local_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from dualmask.nn.parallel import mesh
from dualmask.training.shards import MOMENTS, WEIGHT, FlatRange, Piece, ShardFolder


def split_axis(parameter: Tensor) -> int | None:
    """The axis along which Megatron split the parameter over the tensor-parallel ranks; None: it is replicated."""
    if mesh.tensor_size() == 1 or not getattr(parameter, "tensor_model_parallel", False):
        return None
    return int(parameter.partition_dim)


class Partition:
    """This rank's part of ``module`` under DeepSpeed's ``optimizer``.

    ``averages``: parameter → float32 tensor of the same layout to be written in its stead (see average.py).
    """

    def __init__(self, module: nn.Module, optimizer: Any, averages: Mapping[nn.Parameter, Tensor]) -> None:
        self._parameters = dict(module.named_parameters())
        self._optimizer = optimizer
        self._base: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
        self._averages = averages

    @property
    def updates(self) -> int:
        """The number of updates that Adam has made so far."""
        states = [state for state in self._base.state.values() if "step" in state]
        return int(states[0]["step"]) if states else 0

    def pieces(self) -> Iterator[Piece]:
        """Copies on the CPU of what this rank must write; over all ranks, each element occurs once."""
        for number, (name, parameter) in enumerate(self._parameters.items()):
            flat_range = self._flat_range(name, parameter)
            if flat_range is None or not self._writes(number, parameter):
                continue
            views = self._views(parameter)
            yield Piece(flat_range, {kind: _copy(view[: flat_range.count]) for kind, view in views.items()})

    def fill(self, source: ShardFolder) -> None:
        """Restores this rank's part from ``source``, which any number of ranks may have written."""
        if source.updates:
            self._make_moments(source.updates)
        for name, parameter in self._parameters.items():
            if not _is_divided(parameter):  # every rank computes with the whole, whatever part its optimizer holds
                shape = tuple(parameter.shape)
                whole = FlatRange(name, shape, split_axis(parameter), mesh.tensor_rank(), 0, parameter.numel())
                with torch.no_grad():
                    parameter.copy_(source.part(whole, mesh.tensor_size()).view(shape))
            if flat_range := self._flat_range(name, parameter):
                self._fill(parameter, flat_range, source)

    def _fill(self, parameter: nn.Parameter, flat_range: FlatRange, source: ShardFolder) -> None:
        for kind, view in self._views(parameter).items():
            if kind == WEIGHT or source.updates:
                view[: flat_range.count].copy_(source.part(flat_range, mesh.tensor_size(), kind))
                self._store(parameter, kind, view)
        if _is_divided(parameter):
            own = parameter.ds_tensor.data
            own[: flat_range.count].copy_(self._views(parameter)[WEIGHT][: flat_range.count])
            parameter.partition()  # releases a gathered copy (small parameters stay gathered)

    def _flat_range(self, name: str, parameter: nn.Parameter) -> FlatRange | None:
        """The range of ``parameter`` that this rank keeps; None if it keeps no element."""
        start, count = 0, parameter.numel()
        if _is_divided(parameter):
            each = parameter.ds_tensor.ds_numel  # the last part is padded
            start = min(each * mesh.data_rank(), parameter.ds_numel)
            count = min(each, parameter.ds_numel - start)
        elif hasattr(parameter, "_hp_mapping"):
            if parameter._hp_mapping is None:
                return None
            address = parameter._hp_mapping.lp_fragment_address
            start, count = address.start, address.numel
        shape = tuple(parameter.ds_shape if _is_divided(parameter) else parameter.shape)
        return FlatRange(name, shape, split_axis(parameter), mesh.tensor_rank(), start, count) if count else None

    def _writes(self, number: int, parameter: nn.Parameter) -> bool:
        if mesh.tensor_rank() > 0 and split_axis(parameter) is None:
            return False  # replicated: the first tensor-parallel rank writes it
        own_part = _is_divided(parameter) or hasattr(parameter, "_hp_mapping")
        return own_part or number % mesh.data_size() == mesh.data_rank()

    def _views(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """kind → flat tensor in the optimizer's memory, or a copy of it if that was offloaded."""
        if not parameter.requires_grad:
            own = parameter.ds_tensor if _is_divided(parameter) else parameter
            return {WEIGHT: self._averages.get(parameter, own.data).view(-1)}
        if _is_divided(parameter):
            views = {WEIGHT: safe_get_local_fp32_param(parameter).data}
            for kind in MOMENTS if self._base.state else ():
                views[kind] = safe_get_local_optimizer_state(parameter, kind)
            return views
        if not hasattr(parameter, "_hp_mapping"):  # no ZeRO
            state = self._base.state.get(parameter, {})
            return {WEIGHT: parameter.data.view(-1)} | {kind: state[kind].view(-1) for kind in MOMENTS if kind in state}
        mapping = parameter._hp_mapping
        address = mapping.hp_fragment_address
        state = self._base.state.get(self._base.param_groups[mapping.param_group_index]["params"][0], {})
        moments = {kind: state[kind].narrow(0, address.start, address.numel) for kind in MOMENTS if kind in state}
        return {WEIGHT: mapping.get_hp_fragment().data} | moments

    def _store(self, parameter: nn.Parameter, kind: str, values: Tensor) -> None:
        """Writes ``values`` back under ZeRO-3, where ``_views`` may have returned a copy."""
        if not (_is_divided(parameter) and parameter.requires_grad):
            return
        if kind == WEIGHT:
            safe_set_local_fp32_param(parameter, values)
        else:
            safe_set_local_optimizer_state(parameter, values, kind)

    def _make_moments(self, updates: int) -> None:
        """Creates Adam's moments, which it otherwise creates in its first step."""
        divided = getattr(self._optimizer, "fp32_partitioned_groups_flat", None)  # ZeRO-3 removes them from the groups
        tensors = divided or [tensor for group in self._base.param_groups for tensor in group["params"]]
        fused = any(group.get("fused") for group in self._base.param_groups)
        for tensor in tensors:
            state = self._base.state[tensor]
            state["step"] = torch.tensor(float(updates), device=tensor.device if fused else "cpu")
            for kind in MOMENTS:
                state.setdefault(kind, torch.zeros_like(tensor, requires_grad=False))


def _is_divided(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 has partitioned the parameter."""
    return hasattr(parameter, "ds_tensor")


def _copy(view: Tensor) -> Tensor:
    return view.detach().to("cpu", copy=True)
