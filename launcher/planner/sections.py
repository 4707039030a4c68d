"""Stages and models of all families under the same keys: what a family lacks has the value of doing nothing."""

from __future__ import annotations

from typing import Any

from dualmask.config.model import ModelConfig
from dualmask.config.stage import StageConfig
from dualmask.families.edit.config import DeletionConfig, LossWeights, RolloutConfig

STAGE: dict[str, Any] = {
    "losses": LossWeights(),
    "deletion": DeletionConfig(),
    "rollout": RolloutConfig(),
    "picker_gradient": 0.0,
    "gate_decides": False,
    "soft_tokens": False,
    "plays_rounds": False,
    "span": None,
    "reward": None,
}
MODEL: dict[str, Any] = {"layers": None, "span": None, "picker_probes": 0, "max_gap_count": 0}


class View:
    def __init__(self, section: Any, otherwise: dict[str, Any]) -> None:
        self._section, self._otherwise = section, otherwise

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._section, name, None)
        return self._otherwise.get(name) if value is None else value


def of(section: StageConfig | ModelConfig) -> Any:
    return View(section, STAGE if isinstance(section, StageConfig) else MODEL)
