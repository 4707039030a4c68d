"""What the elements of a parameter are before anything is learnt: a rule for each parameter, drawn range by range.

Each element is a hash of (seed, name of the parameter, its place in the whole matrix): a rank draws its own part alone,
and the values depend neither on how many ranks there are nor on how they share the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn

from dualmask.core.noise import bits_at
from dualmask.nn.slices import Slice

_MARK = "dualmask_rule"
_LEVELS = 16  # bits of a normal draw
_BLOCK = 1 << 18  # elements drawn at a time, which bounds what the hashes take


class Rule(Protocol):
    def at(self, bits: Tensor, index: Tensor) -> Tensor:
        """[N] float32 values of the elements ``index`` [N] of the flattened whole, from as many hashes, int64."""
        ...


@dataclass(frozen=True)
class Normal:
    """N(0, std²), as its 2^16 quantiles: looked up, so that all machines draw the same bits; 4.3 std at most."""

    std: float

    def at(self, bits: Tensor, index: Tensor) -> Tensor:
        return _quantiles()[(bits >> (64 - _LEVELS)) + (1 << (_LEVELS - 1))] * self.std


@dataclass(frozen=True)
class Uniform:
    """Between −bound and bound."""

    bound: float

    def at(self, bits: Tensor, index: Tensor) -> Tensor:
        return ((bits >> 41).float() + 0.5) * (self.bound / 2**22)


@dataclass(frozen=True)
class Constant:
    value: float

    def at(self, bits: Tensor, index: Tensor) -> Tensor:
        return torch.full(index.shape, self.value)


@dataclass(frozen=True)
class Listed:
    """Element i of the flattened parameter is values[i]."""

    values: tuple[float, ...]

    def at(self, bits: Tensor, index: Tensor) -> Tensor:
        return torch.tensor(self.values, device="cpu")[index]


@lru_cache(maxsize=1)
def _quantiles() -> Tensor:
    """[2^16] float32 of the standard normal distribution, in the middles of equal shares."""
    share = (torch.arange(1 << _LEVELS, dtype=torch.float64, device="cpu") + 0.5) / (1 << _LEVELS)
    return torch.special.ndtri(share).float()


def begin(parameter: Tensor, rule: Rule, part: Slice | None = None) -> None:
    """The rule of a parameter from now on, whose elements are drawn here from torch's generator, unless it lies on
    ``meta``: then whoever gives it memory draws them (``draw``).

    part: which slice of a whole it is; None: it is whole.
    """
    setattr(parameter, _MARK, rule)
    seed = int(torch.randint(2**62, (), device="cpu"))
    if parameter.is_meta:
        return
    part = part or Slice(tuple(parameter.shape), axis=None, rank=0, size=1)
    with torch.no_grad():
        parameter.copy_(draw(rule, seed, "", part.places(0, parameter.numel())).view(parameter.shape))


def parameter(values: Sequence[float]) -> nn.Parameter:
    """A vector that begins with ``values``, on the device of the surrounding context."""
    made = nn.Parameter(torch.empty(len(values)))
    begin(made, Listed(tuple(values)))
    return made


def draw(rule: Rule, seed: int, name: str, index: Tensor) -> Tensor:
    """[N] float32, on the CPU: the elements ``index`` [N] int64 of the flattened whole parameter ``name``."""
    key = torch.tensor(seed, device="cpu")
    parts = [rule.at(bits_at(key, name, part), part) for part in index.split(_BLOCK)]
    return torch.cat(parts) if parts else torch.empty(0)


def rules_of(model: nn.Module) -> dict[str, Rule]:
    """By parameter. Raises TypeError for one of which nothing says how it begins."""
    rules: dict[str, Rule] = {}
    for prefix, module in model.named_modules():
        for own, value in module.named_parameters(prefix, recurse=False):
            rule = getattr(value, _MARK, None) or _of_kind(module, own.rpartition(".")[2])
            if rule is None:
                raise TypeError(f"{own}: nothing says what it begins with: call dualmask.nn.initial.begin on it")
            rules[own] = rule
    return rules


def _of_kind(module: nn.Module, name: str) -> Rule | None:
    """What torch's own layers begin with."""
    if isinstance(module, nn.LayerNorm):
        return Constant(1.0 if name == "weight" else 0.0)
    if isinstance(module, nn.Linear):
        return Uniform(1 / math.sqrt(module.in_features))
    if isinstance(module, nn.Embedding):
        return Normal(1.0)
    return None


@torch.no_grad()
def fill(model: nn.Module, seed: int) -> None:
    """Draws all parameters of a whole model: what ranks that share it would have together."""
    rules = rules_of(model)
    for name, value in model.named_parameters():
        everything = torch.arange(value.numel(), device="cpu")
        value.copy_(draw(rules[name], seed, name, everything).view(value.shape))
