"""How DualMask continues texts when it is compared with language models."""

from __future__ import annotations

from collections.abc import Sequence

from dualmask.core.lexicon import read_lexicon
from dualmask.core.sampling import SamplingParams
from dualmask.evaluation.writers import Continuation, Texts, Writer, WriterSettings
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.request import Hole, Request
from dualmask.families.edit.model import DualMask
from dualmask.inference.loading import Loaded

NETWORK = "filler.trunk"  # the submodule whose forwards are passes


def writers(loaded: Loaded[DualMask], settings: WriterSettings) -> list[Writer]:
    """A writer for every number of filler passes that makes two rounds or more of so many fill steps: a single round
    could write no more than one gap holds. Raises ValueError where there is none."""
    pairs = [
        (number // steps, steps)
        for steps in settings.fill_steps
        for number in settings.passes
        if number % steps == 0 and (steps == 1 or number >= 2 * steps)
    ]
    if not pairs:
        passes, fill_steps = (",".join(map(str, each)) for each in (settings.passes, settings.fill_steps))
        options = f"--passes {passes}, --fill-steps {fill_steps}"
        raise ValueError(f"{options}: give a number of passes that makes two rounds or more of so many steps")
    return [writer(loaded, rounds, steps) for rounds, steps in pairs]


def writer(loaded: Loaded[DualMask], rounds: int, fill_steps: int = 1) -> Writer:
    """One hole behind the prompt, opened in ``rounds`` rounds, the masks of each filled in ``fill_steps`` passes."""
    engine = Engine(loaded.model, read_lexicon(loaded.tokenizer))

    def write(prompts: Texts, tokens: int, temperature: float, seeds: Sequence[int]) -> list[Continuation]:
        sampling = SamplingParams(temperature=temperature, fill_steps=fill_steps).with_seeds(seeds)
        requests = [
            Request(list(prompt), "infill", holes=[Hole(len(prompt), tokens)], rounds=rounds, sampling=params)
            for prompt, params in zip(prompts, sampling, strict=True)
        ]
        return [Continuation(result.ids[len(result.request.ids) :]) for result in engine.run(requests)]

    return Writer("dualmask", loaded.model, write, NETWORK, settings={"rounds": rounds, "fill_steps": fill_steps})
