"""This rank's part of the parameters and of the optimizer's moments under any ZeRO stage: read as pieces, and restored.

Besides engine.py the only importer of deepspeed. ZeRO-3 keeps equal parts of each parameter; ZeRO-1, -2 and DeepSpeed's
bfloat16 optimizer keep equal parts of each optimizer group, whose borders may lie within a parameter; without ZeRO, and
for frozen parameters below ZeRO-3, every rank keeps the whole, and one of them writes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.utils import (
    safe_get_local_fp32_param,
    safe_get_local_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from dualmask.nn.hidden import Rows, rows_of
from dualmask.nn.parallel import mesh
from dualmask.nn.parallel.slices import split_axis
from dualmask.training.average import WeightAverage
from dualmask.training.muon import HiddenMatrixAdamW, Place
from dualmask.training.shards import AVERAGE, MOMENTS, MOMENTUM, WEIGHT, FlatRange, Piece
from dualmask.training.sources import Source
from dualmask.training.zero3 import shape_of


class Partition:
    """This rank's part of ``module`` under DeepSpeed's ``optimizer``.

    ``copies``: parameter → float32 tensor of the same layout to be written in its stead; ``average``: of what learns
    (both: see average.py).
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: Any,
        copies: Mapping[nn.Parameter, Tensor],
        average: WeightAverage | None = None,
    ) -> None:
        self._parameters = dict(module.named_parameters())
        self._optimizer = optimizer
        self._base: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
        self._copies, self._average = copies, average
        # without ZeRO DeepSpeed's optimizer of bfloat16 weights has float32 copies of them, one by one
        rounded, single = (getattr(optimizer, name, ()) for name in ("fp16_groups", "fp32_groups"))
        self._masters: dict[nn.Parameter, Tensor] = {
            parameter: master
            for parameters, masters in zip(rounded, single, strict=False)
            for parameter, master in zip(parameters, masters, strict=True)
        }

    @property
    def updates(self) -> int:
        """The number of updates that the optimizer has made so far."""
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

    @torch.no_grad()
    def fill(self, source: Source) -> None:
        """Takes this rank's part from ``source``; of a checkpoint, which any number of ranks may have written, the
        optimizer's as well."""
        if source.updates:
            self._make_moments(source.updates)
        if self._average:
            self._average.updates = source.updates
        for name, parameter in self._parameters.items():
            if not _is_divided(parameter):  # every rank computes with the whole, whatever part its optimizer holds
                shape = tuple(parameter.shape)
                whole = FlatRange(name, shape, split_axis(parameter), mesh.tensor_rank(), 0, parameter.numel())
                parameter.copy_(source.part(whole, mesh.tensor_size()).view(shape))
            if flat_range := self._flat_range(name, parameter):
                self._fill(parameter, flat_range, source)

    def locate(self, groups: Sequence[Sequence[nn.Parameter]]) -> None:
        """Tells Muon which matrices lie in which tensors. ``groups``: the parameters of the optimizer's groups, as they
        were formed."""
        names = {parameter: name for name, parameter in self._parameters.items()}
        places: dict[Tensor, list[Place]] = {}
        for tensor, parameter, offset in self._in_the_optimizer(groups):
            flat_range = self._range(names[parameter], parameter)
            places.setdefault(tensor, []).append(Place(flat_range, rows_of(parameter) or Rows(), offset))
        divided = any(hasattr(p, "ds_tensor") or hasattr(p, "_hp_mapping") for group in groups for p in group)
        assert isinstance(self._base, HiddenMatrixAdamW)
        self._base.locate(places, divided=divided and mesh.data_size() > 1)

    def _in_the_optimizer(self, groups: Sequence[Sequence[nn.Parameter]]) -> Iterator[tuple[Tensor, nn.Parameter, int]]:
        """(tensor of the optimizer, parameter of which it holds a part, where that part begins in it)."""
        if hasattr(self._optimizer, "fp32_partitioned_groups_flat"):  # ZeRO-3
            flats = self._optimizer.fp32_partitioned_groups_flat
            for tensor, parameters in zip(flats, self._optimizer.fp16_groups, strict=True):
                offset = 0
                for parameter in parameters:
                    yield tensor, parameter, offset
                    offset += parameter.ds_tensor.ds_numel
            return
        for group, parameters in zip(self._base.param_groups, groups, strict=True):
            for number, parameter in enumerate(parameters):
                if not hasattr(parameter, "_hp_mapping"):  # no ZeRO
                    yield group["params"][number], parameter, 0
                    continue
                mapping = parameter._hp_mapping
                yield group["params"][0], parameter, mapping.hp_fragment_address.start if mapping else 0

    def weights(self) -> dict[nn.Parameter, Tensor]:
        """The optimizer's flat float32 part of each parameter that learns and has an element here."""
        own = {}
        for name, parameter in self._parameters.items():
            if parameter.requires_grad and (flat_range := self._flat_range(name, parameter)):
                own[parameter] = self.weight(parameter)[: flat_range.count]
        return own

    def averaged_slice(self, name: str, device: torch.device) -> Tensor:
        """This tensor-parallel rank's whole slice of the average of a parameter that learns, on the CPU. Collective."""
        assert self._average is not None
        parameter = self._parameters[name]
        flat_range = self._range(name, parameter)
        whole = torch.zeros(math.prod(flat_range.shape), device=device)
        if flat_range.count:
            whole[flat_range.start : flat_range.start + flat_range.count] = self._average.kept[parameter]
        if _is_divided(parameter) or hasattr(parameter, "_hp_mapping"):  # a sum of parts beside zeros is exact
            dist.all_reduce(whole, group=mesh.data_group())
        return whole.view(flat_range.shape).cpu()

    def _fill(self, parameter: nn.Parameter, flat_range: FlatRange, source: Source) -> None:
        for kind, view in self._views(parameter).items():
            if kind == AVERAGE:
                held = AVERAGE if AVERAGE in source.kinds(flat_range.name) else WEIGHT  # a run that had none until now
                view.copy_(source.part(flat_range, mesh.tensor_size(), held))
            elif kind == WEIGHT or source.updates:
                view[: flat_range.count].copy_(source.part(flat_range, mesh.tensor_size(), kind))
                self._store(parameter, kind, view)
        if _is_divided(parameter):
            own = parameter.ds_tensor.data
            own[: flat_range.count].copy_(self._views(parameter)[WEIGHT][: flat_range.count])
            parameter.partition()  # releases a gathered copy (small parameters stay gathered)

    def _flat_range(self, name: str, parameter: nn.Parameter) -> FlatRange | None:
        """The range of ``parameter`` that this rank keeps; None if it keeps no element."""
        flat_range = self._range(name, parameter)
        return flat_range if flat_range.count else None

    def _range(self, name: str, parameter: nn.Parameter) -> FlatRange:
        start, count = 0, parameter.numel()
        if _is_divided(parameter):
            each = parameter.ds_tensor.ds_numel  # the last part is padded
            start = min(each * mesh.data_rank(), parameter.ds_numel)
            count = min(each, parameter.ds_numel - start)
        elif hasattr(parameter, "_hp_mapping"):
            mapping = parameter._hp_mapping
            address = mapping and mapping.lp_fragment_address
            start, count = (address.start, address.numel) if address else (0, 0)
        return FlatRange(name, shape_of(parameter), split_axis(parameter), mesh.tensor_rank(), start, count)

    def _writes(self, number: int, parameter: nn.Parameter) -> bool:
        if mesh.tensor_rank() > 0 and split_axis(parameter) is None:
            return False  # replicated: the first tensor-parallel rank writes it
        own_part = _is_divided(parameter) or hasattr(parameter, "_hp_mapping")
        return own_part or number % mesh.data_size() == mesh.data_rank()

    def _views(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """kind → flat tensor in the optimizer's memory, or a copy of it if that was offloaded; or in the average's."""
        views = {WEIGHT: self.weight(parameter)} | self._moments(parameter)
        if self._average and parameter in self._average.kept:
            views[AVERAGE] = self._average.kept[parameter]
        return views

    def weight(self, parameter: nn.Parameter) -> Tensor:
        """This rank's flat part: the optimizer's float32 one, if the parameter learns."""
        if not parameter.requires_grad:
            own = parameter.ds_tensor if _is_divided(parameter) else parameter
            return self._copies.get(parameter, own.data).view(-1)
        if _is_divided(parameter):
            return safe_get_local_fp32_param(parameter).data
        if not hasattr(parameter, "_hp_mapping"):  # no ZeRO
            return self._masters.get(parameter, parameter).data.view(-1)
        return parameter._hp_mapping.get_hp_fragment().data

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """{} before the first step, and for what does not learn."""
        if not (parameter.requires_grad and self._base.state):
            return {}
        kinds = self._kinds(parameter)
        if _is_divided(parameter):
            return {kind: safe_get_local_optimizer_state(parameter, kind) for kind in kinds}
        if not hasattr(parameter, "_hp_mapping"):  # no ZeRO
            state = self._base.state.get(self._masters.get(parameter, parameter), {})
            return {kind: state[kind].view(-1) for kind in kinds if kind in state}
        mapping = parameter._hp_mapping
        address = mapping.hp_fragment_address
        state = self._base.state.get(self._base.param_groups[mapping.param_group_index]["params"][0], {})
        return {kind: state[kind].narrow(0, address.start, address.numel) for kind in kinds if kind in state}

    def _store(self, parameter: nn.Parameter, kind: str, values: Tensor) -> None:
        """Writes ``values`` back under ZeRO-3, where ``_views`` may have returned a copy."""
        if kind == AVERAGE or not (_is_divided(parameter) and parameter.requires_grad):
            return
        if kind == WEIGHT:
            safe_set_local_fp32_param(parameter, values)
        else:
            safe_set_local_optimizer_state(parameter, values, kind)

    def _kinds(self, parameter: nn.Parameter) -> tuple[str, ...]:
        """What the optimizer keeps for a parameter that learns."""
        muon = isinstance(self._base, HiddenMatrixAdamW) and rows_of(parameter) is not None
        return (MOMENTUM,) if muon else MOMENTS

    def _make_moments(self, updates: int) -> None:
        """Creates the optimizer's moments, which it otherwise creates in its first step."""
        fused = any(group.get("fused") for group in self._base.param_groups)
        for tensor, group in self._tensors():
            kinds = (MOMENTUM,) if group.get("muon") else MOMENTS
            state = self._base.state[tensor]
            state["step"] = torch.tensor(float(updates), device=tensor.device if fused else "cpu")
            for kind in kinds:
                state.setdefault(kind, torch.zeros_like(tensor, requires_grad=False))

    def _tensors(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """The tensors of the optimizer, each with its group."""
        groups = self._base.param_groups
        if (divided := getattr(self._optimizer, "fp32_partitioned_groups_flat", None)) is None:
            yield from ((tensor, group) for group in groups for tensor in group["params"])
        else:  # ZeRO-3 removes them from the groups
            numbers = self._optimizer.sub_group_to_group_id
            yield from ((tensor, groups[numbers[number]]) for number, tensor in enumerate(divided))


def _is_divided(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 has partitioned the parameter."""
    return hasattr(parameter, "ds_tensor")


def _copy(view: Tensor) -> Tensor:
    return view.detach().to("cpu", copy=True)
