"""The language models' part of the registry that needs torch."""

from __future__ import annotations

from typing import Any

from dualmask.config.schema import RunConfig
from dualmask.config.stage import StageConfig
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.lm.model import Autoregressive, LanguageModel, MaskedDiffusion
from dualmask.families.lm.task import LanguageModelTask
from dualmask.families.task import Runtime


def task(model: LanguageModel, stage: StageConfig, run: RunConfig, tokenizer: Tokenizer | None) -> LanguageModelTask:
    return LanguageModelTask(model)


def autoregressive_writers(loaded: Any, settings: Any) -> list[Any]:
    """Imported when asked for: training writes nothing."""
    from dualmask.families.lm.writers import autoregressive_writers as writers

    return writers(loaded, settings)


def diffusion_writers(loaded: Any, settings: Any) -> list[Any]:
    from dualmask.families.lm.writers import diffusion_writers as writers

    return writers(loaded, settings)


AUTOREGRESSIVE = Runtime(
    build=Autoregressive, task=task, writers=autoregressive_writers, next_tokens=Autoregressive.forward
)
DIFFUSION = Runtime(build=MaskedDiffusion, task=task, writers=diffusion_writers, bound=MaskedDiffusion.bound)
