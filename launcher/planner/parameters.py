"""Every parameter of a model by name, shape and split: read off the real model, built without memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch

from dualmask.config.model import ModelConfig
from dualmask.config.schema import ParallelConfig
from dualmask.config.stage import StageConfig
from dualmask.families.task import build
from dualmask.nn.hidden import rows_of
from dualmask.nn.parallel import mesh

SINGLE = 4  # bytes of a float32


@dataclass(frozen=True)
class Parameter:
    name: str
    shape: tuple[int, ...]
    split: int | None = None  # the axis that lies over the tensor-parallel ranks; None: whole on each
    hidden: bool = False  # maps hidden states to hidden states: one of Muon's, if the run has it

    @property
    def module(self) -> str:
        return self.name.split(".", 1)[0]

    @property
    def owner(self) -> str:
        """The layer that holds it."""
        return self.name.rpartition(".")[0]

    def size(self, tensor: int = 1) -> int:
        """Elements on one of ``tensor`` tensor-parallel ranks."""
        return prod(self.shape) // (1 if self.split is None else tensor)


@lru_cache(maxsize=16)
def parameters(config: ModelConfig, vocab_size: int) -> tuple[Parameter, ...]:
    """Of a model of ``config.family``, in the model's own order.

    The model is built on the meta device; its layers say which axis Megatron would split, or splits in this process.
    """
    if not mesh.is_initialized():
        mesh.single_process()
    with torch.device("meta"):
        model = build(config, vocab_size)
    return tuple(_parameter(name, p) for name, p in model.named_parameters())


def _parameter(name: str, p: torch.nn.Parameter) -> Parameter:
    axis = int(p.partition_dim) if getattr(p, "tensor_model_parallel", False) else None
    whole = [size * (mesh.tensor_size() if number == axis else 1) for number, size in enumerate(p.shape)]
    return Parameter(name, tuple(whole), axis, hidden=rows_of(p) is not None)


@dataclass(frozen=True)
class Matrices:
    """Of one module: what its passes multiply with."""

    layers: int  # blocks of its trunk; 0: it has none
    block: tuple[Parameter, ...]  # of each block
    head: tuple[Parameter, ...]  # outside them


@lru_cache(maxsize=16)
def matrices(config: ModelConfig, vocab_size: int) -> dict[str, Matrices]:
    """By module; "logits" are those of the projection, or of the token table."""
    modules: dict[str, tuple[list[Parameter], list[Parameter]]] = {}
    for p in parameters(config, vocab_size):
        if len(p.shape) == 2 and not p.owner.endswith("neighbours"):  # a convolution of each channel by itself
            modules.setdefault(p.module, ([], []))[".blocks." not in p.name].append(p)
    parts = {}
    for name, (blocks, head) in modules.items():
        layers = sum(p.owner.endswith("attention.qkv") for p in blocks)
        parts[name] = Matrices(layers, tuple(blocks[: len(blocks) // max(layers, 1)]), tuple(head))
    return parts | {"logits": parts.get("projection", parts["table"])}


def learning(every: tuple[Parameter, ...], stage: StageConfig) -> list[Parameter]:
    """Those that the stage teaches. A token table learns with the trunk whose input and output it is."""
    return [p for p in every if stage.module_of(p.name)]


def by_module(every: tuple[Parameter, ...]) -> dict[str, int]:
    """Elements of each module."""
    sizes: dict[str, int] = {}
    for parameter in every:
        sizes[parameter.module] = sizes.get(parameter.module, 0) + parameter.size()
    return sizes


def element(parallel: ParallelConfig) -> int:
    """Bytes of a weight, a gradient and an activation."""
    return 2 if parallel.precision == "bf16" else SINGLE
