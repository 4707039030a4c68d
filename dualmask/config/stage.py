"""The keys of a stage that every family has. Pure: imports neither torch nor an engine.

A family's stages are subclasses, told apart by ``name``; each has the keys that mean something to it, and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dualmask.config.section import Positive, Section, Share


class LearningRate(Section):
    peak: Annotated[float, Field(gt=0.0)]
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Literal["constant", "linear", "cosine", "wsd"] = Field(
        "linear",
        description="behind the warm-up; wsd: stays at the peak, then falls linearly over the last decay_share",
    )
    decay_share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.2, description="share of the stage's steps in which wsd falls"
    )
    final_share: Share = Field(0.1, description="learning rate at the last step over the peak")

    def falling_steps(self, steps: int) -> int:
        """How many of a stage's last steps ``wsd`` falls in: one at least."""
        return max(round(self.decay_share * steps), 1)


class StageConfig(Section):
    TRAINABLE: ClassVar[tuple[str, ...]] = ()  # modules that this kind of stage can train
    TIED: ClassVar[Mapping[str, str]] = {}  # parameters that learn with a module of another name, such as a token table

    DECIDES: ClassVar[bool] = False  # what it teaches is used by thresholds, which are chosen when the run ends

    name: str
    steps: Positive
    train: tuple[str, ...] = Field(min_length=1, description="modules that learn; the others are frozen")
    lr: LearningRate
    lr_scale: dict[str, Annotated[float, Field(gt=0.0)]] = Field(
        {}, description="learning rate of a module over the stage's"
    )

    @property
    def files(self) -> tuple[Path, ...]:
        """What the stage learns from beside the run's data. Part of the digest that a resumed run must match."""
        return ()

    def module_of(self, parameter: str) -> str | None:
        """The module that the parameter of this name learns with in the stage, or None if it is frozen."""
        module = parameter.split(".", 1)[0]
        module = self.TIED.get(module, module)
        return module if module in self.train else None

    @model_validator(mode="after")
    def _trains_what_it_can(self) -> StageConfig:
        if self.lr.warmup_steps > self.steps:
            raise ValueError(f"lr.warmup_steps={self.lr.warmup_steps} must not exceed steps={self.steps}")
        falling = self.lr.falling_steps(self.steps) if self.lr.decay == "wsd" else 0
        if self.lr.warmup_steps + falling > self.steps:
            raise ValueError(
                f"lr.warmup_steps={self.lr.warmup_steps} and the {falling} steps of lr.decay_share="
                f"{self.lr.decay_share} must not exceed steps={self.steps}: lower one of them"
            )
        if foreign := sorted(set(self.train) - set(self.TRAINABLE)):
            raise ValueError(f"stage {self.name} cannot train {foreign}: it trains some of {list(self.TRAINABLE)}")
        if frozen := sorted(set(self.lr_scale) - set(self.train)):
            raise ValueError(f"lr_scale names {frozen}, which train={list(self.train)} leaves frozen")
        return self
