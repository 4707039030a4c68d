"""Which model families there are, and what the rest of the project may know of one: this table and nothing else.

A family is a folder. The ones below come with the project; another package announces its own as an entry point of the
group ``dualmask.families``, ``name = "package.module:FAMILY"``, and nothing of the project has to be edited. Looking a
family up starts neither torch nor an engine: configurations are checked first.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

from dualmask.config.alarms import AlarmConfig
from dualmask.config.model import ModelConfig
from dualmask.config.stage import StageConfig

if TYPE_CHECKING:
    from dualmask.families.task import Runtime

GROUP = "dualmask.families"
DEFAULT = "dualmask"  # of a configuration that names no family
BUILT_IN = {
    "dualmask": "dualmask.families.edit:FAMILY",
    "spanfusion": "dualmask.families.span:FAMILY",
    "autoregressive": "dualmask.families.lm:AUTOREGRESSIVE",
    "diffusion": "dualmask.families.lm:DIFFUSION",
}


@dataclass(frozen=True)
class Generate:
    """``dualmask generate`` with models of a family."""

    run: str  # (Source, Setup, SamplingParams, one value of each of the groups) → None
    groups: str | None = None  # dataclasses whose fields are options of this family, beside the sampling parameters
    unused: frozenset[str] = frozenset()  # sampling parameters that mean nothing to it

    def option_groups(self) -> tuple[type, ...]:
        groups: tuple[type, ...] = resolve(self.groups) if self.groups else ()
        return groups


@dataclass(frozen=True)
class Family:
    """What there is to know of a family. Strings such as ``package.module:name`` are imported when they are needed."""

    name: str  # as ``model.family`` says it
    model: type[ModelConfig]  # the section ``model``
    stages: tuple[type[StageConfig], ...]  # told apart by their ``name``, a Literal
    runtime: str  # a ``families.task.Runtime``: everything that needs torch
    alarms: type[AlarmConfig] = AlarmConfig  # the section ``alarms``
    shown: tuple[str, ...] = ()  # losses that people see while a run trains, beside the total
    # what can be measured on the dev part of the data, and which way is better (``families.task.Measure``)
    dev_figures: Mapping[str, Literal["min", "max"]] = field(default_factory=lambda: {"dev_loss": "min"})
    check: str | None = None  # (RunConfig, Tokenizer) → None before anything starts; raises ValueError
    generate: Generate | None = None  # None: its models do not write
    commands: str | None = None  # a typer app: commands of this family alone
    suites: str | None = None  # functions with options, each a suite of ``dualmask eval``

    def stage(self, name: str) -> type[StageConfig] | None:
        """The stage of this name; None: the family has none."""
        return next((stage for stage in self.stages if name in stage_names(stage)), None)

    @property
    def stage_names(self) -> list[str]:
        return [name for stage in self.stages for name in stage_names(stage)]

    def eval_suites(self) -> tuple[Callable[..., None], ...]:
        suites: tuple[Callable[..., None], ...] = resolve(self.suites) if self.suites else ()
        return suites

    def load_runtime(self) -> Runtime:
        """Starts torch."""
        runtime: Runtime = resolve(self.runtime)
        return runtime


def find(name: str) -> Family:
    """The family of this name. Raises ValueError that lists the known ones."""
    others = {entry.name: entry.value for entry in entry_points(group=GROUP, name=name)} if name not in BUILT_IN else {}
    address = BUILT_IN.get(name) or others.get(name)
    if address is None:
        known = ", ".join(names())
        raise ValueError(f"family={name!r} is not known: give {known}, or install the package that brings it")
    family: Family = resolve(address)
    return family


def names() -> list[str]:
    """All families: the project's own first."""
    return [*BUILT_IN, *sorted(entry.name for entry in entry_points(group=GROUP) if entry.name not in BUILT_IN)]


def families() -> list[Family]:
    return [find(name) for name in names()]


def resolve(address: str) -> Any:
    """``package.module:name`` → the object."""
    module, _, name = address.partition(":")
    return getattr(importlib.import_module(module), name)


def stage_names(stage: type[StageConfig]) -> tuple[str, ...]:
    """The values that the discriminator ``name`` of a stage may have."""
    return tuple(stage.model_fields["name"].annotation.__args__)  # type: ignore[union-attr]
