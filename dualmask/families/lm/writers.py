"""How the two language models continue texts when they are compared with others."""

from __future__ import annotations

from collections.abc import Sequence

from dualmask.core.lexicon import read_lexicon
from dualmask.core.sampling import SamplingParams
from dualmask.evaluation.continuation import SPEED_BASELINE
from dualmask.evaluation.writers import Continuation, Texts, Writer, WriterSettings
from dualmask.families.lm import diffusion
from dualmask.families.lm.model import Autoregressive, MaskedDiffusion
from dualmask.inference import autoregressive
from dualmask.inference.loading import Loaded

NETWORK = "lm"  # the submodule whose forwards are passes


def autoregressive_writers(loaded: Loaded[Autoregressive], settings: WriterSettings) -> list[Writer]:
    """One token a pass, with a KV cache."""

    def write(prompts: Texts, tokens: int, temperature: float, seeds: Sequence[int]) -> list[Continuation]:
        sampling = SamplingParams(temperature=temperature).with_seeds(seeds)
        least = 0 if settings.may_end else tokens
        written = autoregressive.write(loaded.model, prompts, tokens=tokens, least=least, sampling=sampling)
        return [Continuation(ids) for ids in written]

    return [Writer(SPEED_BASELINE, loaded.model, write, NETWORK)]


def diffusion_writers(loaded: Loaded[MaskedDiffusion], settings: WriterSettings) -> list[Writer]:
    """As many [MASK]s as tokens are asked for, decided in so many passes: a writer for each number of steps."""
    writable = read_lexicon(loaded.tokenizer).writable.to(loaded.model.table.weight.device)

    def writer(number: int) -> Writer:
        def write(prompts: Texts, tokens: int, temperature: float, seeds: Sequence[int]) -> list[Continuation]:
            written = diffusion.write(
                loaded.model,
                prompts,
                tokens=tokens,
                steps=number,
                allowed=writable,
                order=settings.order,
                sampling=SamplingParams(temperature=temperature).with_seeds(seeds),
            )
            return [Continuation(ids) for ids in written]

        return Writer("diffusion", loaded.model, write, NETWORK, settings={"steps": number, "order": settings.order})

    return [writer(number) for number in settings.steps]
