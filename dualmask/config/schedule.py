"""A figure that may change over a stage: a constant, or a line or half cosine between two values."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator


class Schedule(BaseModel):
    """``0.5`` or ``{start: 1.0, end: 0.2, shape: cosine}``; ``at(progress)`` for progress in [0, 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    start: float
    end: float
    shape: Literal["linear", "cosine"] = "linear"

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return {"start": value, "end": value}
        return value

    def at(self, progress: float) -> float:
        progress = min(max(progress, 0.0), 1.0)
        if self.shape == "cosine":
            progress = 0.5 - 0.5 * math.cos(math.pi * progress)
        return self.start + (self.end - self.start) * progress


def constant(value: float) -> Schedule:
    return Schedule(start=value, end=value)
