"""Who continues texts: each family offers its models as ``Writer``; the measurement knows no more of them than this."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor, nn

from dualmask.nn.block import Block

Texts = Sequence[Sequence[int]]
Order = Literal["random", "confidence"]
ORDERS: tuple[Order, ...] = get_args(Order)


def parse_order(name: str) -> Order:
    """Raises ValueError."""
    for order in ORDERS:
        if order == name:
            return order
    raise ValueError(f"order {name}: give {' or '.join(ORDERS)}")


@dataclass(frozen=True)
class Continuation:
    """What follows a prompt. ``steps``: passes that wrote its tokens, where a method takes more for one text than for
    another; passes of all methods are counted by ``counted``."""

    ids: list[int]
    steps: int | None = None


# (prompts, tokens to write, temperature, seeds) → what follows each prompt
Write = Callable[[Texts, int, float, Sequence[int]], list[Continuation]]


@dataclass(frozen=True)
class Writer:
    """A model and a way to write with it. ``settings``: dimensions of its rows beside the method's name, such as
    {"steps": 32}. A pass is a forward of the submodule called ``network``; ``blocks``: the classes of its layers."""

    method: str
    model: nn.Module
    write: Write
    network: str
    blocks: tuple[type[nn.Module], ...] = (Block,)
    settings: dict[str, int | str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " ".join([self.method, *(f"{key} {value}" for key, value in self.settings.items())])


@dataclass(frozen=True)
class WriterSettings:
    """What a family is asked when it offers its writers; each reads what means something to it."""

    passes: Sequence[int] = ()  # of the network that fills holes, a text
    fill_steps: Sequence[int] = (1,)  # passes to each round
    steps: Sequence[int] = ()  # of a model that unmasks
    order: Order = "random"  # of its unmasking
    span: int = 16  # tokens that are refined together
    gate: str = "learned"  # in how many steps
    may_end: bool = False  # a text may be shorter than what is asked for, where a model can end it


@dataclass
class Passes:
    """What texts cost, summed over them."""

    writing: int = 0  # of the network that writes tokens: the filler, the decoder or the language model
    blocks: int = 0  # transformer blocks run, of all networks


@contextmanager
def counted(model: nn.Module, network: str, blocks: tuple[type[nn.Module], ...] = (Block,)) -> Iterator[Passes]:
    """Counts the passes that ``model`` makes meanwhile (see ``Writer``); one over a batch is one for each of its
    texts."""
    passes = Passes()

    def count_writing(module: nn.Module, inputs: object, states: Tensor) -> None:
        passes.writing += len(states)

    def count_block(module: nn.Module, inputs: object, states: Tensor) -> None:
        passes.blocks += len(states)

    handles = [model.get_submodule(network).register_forward_hook(count_writing)]
    layers = (layer for layer in model.modules() if isinstance(layer, blocks))
    handles += [layer.register_forward_hook(count_block) for layer in layers]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()
