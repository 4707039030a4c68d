"""Stages of any family from a tree, as a run's file has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dualmask.config.schema import RunConfig
from dualmask.families.registry import families, find
from dualmask.families.task import Task
from dualmask.training.engine import StageEngine


def make_stage(tree: dict[str, Any]) -> Any:
    """The stage of the family that has one of this name."""
    kinds = (family.stage(tree["name"]) for family in families())
    kind = next(kind for kind in kinds if kind is not None)
    return kind.model_validate(tree)


def make_task(model: Any, stage: Any, run: Any = None) -> Task:
    """What the stage teaches the model; ids only."""
    family = find(model.config.family)
    around = run or SimpleNamespace(alarms=family.alarms())
    return family.load_runtime().task(model, stage, around, None)


def make_engine(run: RunConfig, model: Any, settings: dict[str, Any], index: int = 0) -> StageEngine:
    """The engine of one stage of the run."""
    stage = run.stages[index]
    return StageEngine(run, stage, make_task(model, stage, run), settings)
