"""Who continues texts: DualMask and the language models that it is compared with, behind one signature."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

from dualmask.core.lexicon import read_lexicon
from dualmask.core.sampling import SamplingParams
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.request import Hole, Request
from dualmask.families.edit.model import DualMask
from dualmask.families.lm import diffusion
from dualmask.families.lm.model import Autoregressive, MaskedDiffusion
from dualmask.families.span.block import SpanBlock
from dualmask.families.span.model import SpanFusion
from dualmask.inference import autoregressive
from dualmask.inference.loading import Loaded
from dualmask.nn.block import Block

Texts = Sequence[Sequence[int]]
# (prompts, tokens to write, temperature, seeds) → what follows each prompt
Write = Callable[[Texts, int, float, Sequence[int]], list[list[int]]]


@dataclass(frozen=True)
class Writer:
    """``settings``: dimensions of its rows beside the method's name, such as {"steps": 32}."""

    method: str
    model: nn.Module
    write: Write
    settings: dict[str, int | str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " ".join([self.method, *(f"{key} {value}" for key, value in self.settings.items())])


def dualmask(loaded: Loaded[DualMask], rounds: int, fill_steps: int = 1) -> Writer:
    """One hole behind the prompt, opened in ``rounds`` rounds, the masks of each filled in ``fill_steps`` passes."""
    engine = Engine(loaded.model, read_lexicon(loaded.tokenizer))

    def write(prompts: Texts, tokens: int, temperature: float, seeds: Sequence[int]) -> list[list[int]]:
        sampling = SamplingParams(temperature=temperature, fill_steps=fill_steps)
        requests = [
            Request(
                list(prompt),
                "infill",
                holes=[Hole(len(prompt), tokens)],
                rounds=rounds,
                sampling=params,
            )
            for prompt, params in zip(prompts, sampling.with_seeds(seeds), strict=True)
        ]
        return [result.ids[len(result.request.ids) :] for result in engine.run(requests)]

    return Writer("dualmask", loaded.model, write, {"rounds": rounds, "fill_steps": fill_steps})


def left_to_right(loaded: Loaded[Autoregressive]) -> Writer:
    """One token a pass, with a cache of keys and values. It may not end a text early, so that lengths are alike."""

    def write(prompts: Texts, tokens: int, temperature: float, seeds: Sequence[int]) -> list[list[int]]:
        sampling = SamplingParams(temperature=temperature).with_seeds(seeds)
        return autoregressive.write(loaded.model, prompts, tokens=tokens, least=tokens, sampling=sampling)

    return Writer("autoregressive", loaded.model, write)


def unmasking(loaded: Loaded[MaskedDiffusion], steps: int, order: diffusion.Order) -> Writer:
    """As many [MASK]s as tokens are asked for, decided in ``steps`` passes."""
    writable = read_lexicon(loaded.tokenizer).writable.to(loaded.model.table.weight.device)

    def write(prompts: Texts, tokens: int, temperature: float, seeds: Sequence[int]) -> list[list[int]]:
        return diffusion.write(
            loaded.model,
            prompts,
            tokens=tokens,
            steps=steps,
            allowed=writable,
            order=order,
            sampling=SamplingParams(temperature=temperature).with_seeds(seeds),
        )

    return Writer("diffusion", loaded.model, write, {"steps": steps, "order": order})


@dataclass
class Passes:
    """What texts cost, summed over them."""

    writing: int = 0  # passes of the network that writes tokens: the filler, the decoder or the language model
    blocks: int = 0  # transformer blocks run, of all networks


@contextmanager
def counted(model: nn.Module) -> Iterator[Passes]:
    """Counts the passes that ``model`` makes meanwhile; one pass over a batch is one for each of its texts."""
    passes = Passes()

    def write(module: nn.Module, inputs: object, states: Tensor) -> None:
        passes.writing += len(states)

    def run_block(module: nn.Module, inputs: object, states: Tensor) -> None:
        passes.blocks += len(states)

    named = "filler.trunk" if isinstance(model, DualMask) else "decoder" if isinstance(model, SpanFusion) else "lm"
    handles = [model.get_submodule(named).register_forward_hook(write)]
    parts = (part for part in model.modules() if isinstance(part, Block | SpanBlock))
    handles += [part.register_forward_hook(run_block) for part in parts]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()
