"""The keys of the section ``model`` that every family has. Pure: imports neither torch nor an engine.

A family adds its own in ``families/*/config.py``, as a subclass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from dualmask.config.section import Positive, Section
from dualmask.config.stage import StageConfig


class ModelConfig(Section):
    family: str = Field(description="which architecture: a name that the registry of families knows")
    vocab_size: Positive | None = Field(None, description="rows of the token table; None: from the data's tokenizer")
    hidden: Positive = Field(128, description="width D of every trunk")
    heads: Positive = Field(4, description="attention heads; must be a multiple of parallel.tensor")
    ffn_multiple: Positive = Field(4, description="width of the MLP over hidden")
    max_length: Annotated[int, Field(ge=8)] = Field(64, description="tokens a sequence, BOS and EOS included")
    rope_theta: Annotated[float, Field(gt=1.0)] = 10_000.0
    init_std: Annotated[float, Field(gt=0.0)] = 0.02

    def check_stages(self, stages: Sequence[StageConfig]) -> None:
        """What the family wants of model and stages together. Raises ValueError that names keys and values."""

    @model_validator(mode="after")
    def _head_width(self) -> ModelConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden={self.hidden} must be a multiple of heads={self.heads}")
        if (self.hidden // self.heads) % 2:
            raise ValueError(f"hidden/heads={self.hidden // self.heads} must be even: rotary positions turn pairs")
        return self
