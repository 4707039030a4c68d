"""The keys of the two language models that the other families are compared with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from dualmask.config.model import ModelConfig
from dualmask.config.section import Positive
from dualmask.config.stage import StageConfig


class LanguageModelConfig(ModelConfig):
    family: Literal["autoregressive", "diffusion"]
    layers: Positive = Field(description="depth of the one trunk")


class LanguageModelStage(StageConfig):
    TRAINABLE: ClassVar[tuple[str, ...]] = ("lm",)
    TIED: ClassVar[Mapping[str, str]] = {"table": "lm"}

    name: Literal["lm"]
