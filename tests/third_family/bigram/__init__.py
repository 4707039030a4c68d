"""A family that the project does not know: each token is guessed from the one in front of it. Keys and entry."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from dualmask.config.model import ModelConfig
from dualmask.config.section import Positive
from dualmask.config.stage import StageConfig
from dualmask.families.registry import Family, Generate


class BigramConfig(ModelConfig):
    family: Literal["bigram"] = "bigram"
    widening: Positive = Field(2, description="width of the hidden layer over hidden")


class BigramStage(StageConfig):
    TRAINABLE: ClassVar[tuple[str, ...]] = ("mlp",)
    TIED: ClassVar[dict[str, str]] = {"table": "mlp"}

    name: Literal["bigram"]
    smoothing: float = Field(0.0, ge=0.0, le=1.0, description="weight of a uniform target")


FAMILY = Family(
    name="bigram",
    model=BigramConfig,
    stages=(BigramStage,),
    runtime="bigram.runtime:RUNTIME",
    shown=("nll",),
    generate=Generate("bigram.write:generate"),
)
