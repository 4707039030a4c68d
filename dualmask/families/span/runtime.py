"""SpanFusionLM's part of the registry that needs torch."""

from __future__ import annotations

from typing import Any

from dualmask.config.schema import RunConfig
from dualmask.config.stage import StageConfig
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.span.config import DraftStage, SpanStage
from dualmask.families.span.model import SpanFusion
from dualmask.families.span.task import DecoderTask, DraftTask, SpanTask
from dualmask.families.task import Runtime, Task


def task(model: SpanFusion, stage: StageConfig, run: RunConfig, tokenizer: Tokenizer | None) -> Task:
    if isinstance(stage, DraftStage):
        return DraftTask(model)
    return SpanTask(model, stage.span) if isinstance(stage, SpanStage) else DecoderTask(model)


def writers(loaded: Any, settings: Any) -> list[Any]:
    """Imported when asked for: training writes nothing."""
    from dualmask.families.span.evaluate.writers import family_writers

    return family_writers(loaded, settings)


RUNTIME = Runtime(build=SpanFusion, task=task, writers=writers, next_tokens=SpanFusion.decoder_losses)
