"""The language models' part of the registry that needs torch."""

from __future__ import annotations

from dualmask.config.schema import RunConfig
from dualmask.config.stage import StageConfig
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.lm.model import Autoregressive, LanguageModel, MaskedDiffusion
from dualmask.families.lm.task import LanguageModelTask
from dualmask.families.task import Runtime


def task(model: LanguageModel, stage: StageConfig, run: RunConfig, tokenizer: Tokenizer | None) -> LanguageModelTask:
    return LanguageModelTask(model)


AUTOREGRESSIVE = Runtime(build=Autoregressive, task=task)
DIFFUSION = Runtime(build=MaskedDiffusion, task=task)
