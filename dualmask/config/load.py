"""From a YAML file and dotted overrides to a checked configuration; every failure is one line that says what to change.

Knows pydantic models; knows nothing of what a key means.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dualmask.config.data import DataBuildConfig, MixtureBuildConfig
from dualmask.config.mixture import with_sources
from dualmask.config.schema import RunConfig
from dualmask.config.tree import ConfigError, apply, read_tree, show

Model = TypeVar("Model", bound=BaseModel)


# keys that earlier versions had, and what they are called now
RENAMED = {
    "gold_writes": "teacher_forcing",
    "oracle_deletions": "teacher_forced_deletions",
    "own_counts": "on_policy_counts",
    "leash": "kl_coefficient",
}


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that ``path`` describes; where ``data.path`` is a mixture, with its sources. Raises ConfigError."""
    run = load_yaml_model(path, RunConfig, overrides)
    return run.model_copy(update={"data": with_sources(run.data)})


def load_build(path: str | Path, overrides: Sequence[str] = ()) -> DataBuildConfig | MixtureBuildConfig:
    """The data build that ``path`` describes, of one corpus or of several. Raises ConfigError."""
    tree = read_tree(path)
    if isinstance(tree, dict) and "sources" in tree:
        return load_yaml_model(path, MixtureBuildConfig, overrides)
    return load_yaml_model(path, DataBuildConfig, overrides)


def load_yaml_model(path: str | Path, model_class: type[Model], overrides: Sequence[str] = ()) -> Model:
    """``path`` as a ``model_class``, after ``overrides`` such as ``stages.0.steps=5`` (values are YAML).

    Raises ConfigError.
    """
    tree = read_tree(path)
    if tree is None:
        raise ConfigError(f"{path}: the file is empty; it needs at least {_required(model_class)}")
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds {show(tree)}, not `key: value` lines")
    for override in overrides:
        apply(tree, override)
    return check(tree, model_class, str(path))


def check(tree: Any, model_class: type[Model], source: str) -> Model:
    """``tree`` as a ``model_class``. Raises ConfigError, which calls the tree ``source``."""
    try:
        return model_class.model_validate(tree)
    except ValidationError as error:
        problems = [
            item for item in error.errors(include_url=False) if item["type"] != "too_short" or not item["input"]
        ]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"{source}: {_explain(problems[0], Sections(model_class, tree))}{more}") from None


def dump(config: BaseModel) -> str:
    """The configuration as YAML, every default written out; ``load_yaml_model`` reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """``{"stages.0.lr.peak": 0.001, …}`` of a configuration or of what ``model_dump`` made of it."""
    if isinstance(tree, BaseModel):
        tree = tree.model_dump(mode="json")
    if isinstance(tree, dict) and tree:
        pairs: Any = tree.items()
    elif isinstance(tree, (list, tuple)) and tree:
        pairs = enumerate(tree)
    else:
        return {prefix: tree}
    return {
        key: value
        for name, part in pairs
        for key, value in flatten(part, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def digest(config: BaseModel) -> str:
    """SHA-256 of everything that the configuration says."""
    return hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


class Sections:
    """The classes that check the sections of one configuration: those of its family where they depend on it."""

    def __init__(self, model_class: type[BaseModel], tree: Any) -> None:
        self._root, self._tree = model_class, tree

    def at(self, location: Sequence[int | str]) -> type[BaseModel]:
        """The class that describes what stands at ``location``."""
        here = self._root
        for depth, part in enumerate(location):
            field = here.model_fields.get(str(part))
            if field is None:
                continue
            index = next((number for number in location[depth + 1 : depth + 2] if isinstance(number, int)), None)
            here = self._own(here, str(part), index) or next(_models_in(field.annotation), here)
        return here

    def all_keys(self) -> Iterator[tuple[str, str]]:
        """(dotted key, its last part) of all that the configuration may hold."""
        yield from self._keys(self._root, "")

    def _keys(self, section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
        for name, field in section.model_fields.items():
            yield f"{prefix}{name}", name
            many = "tuple" in str(field.annotation)
            own = self._own(section, name, 0 if many else None)
            for inner in [own] if own else _models_in(field.annotation):
                yield from self._keys(inner, f"{prefix}{name}.{'0.' if many else ''}")

    def _own(self, section: type[BaseModel], key: str, index: int | None) -> type[BaseModel] | None:
        return section.section_at(key, self._tree, index) if issubclass(section, RunConfig) else None


def _explain(problem: ErrorDetails, sections: Sections) -> str:
    """``stages.0.lr.peak = -1: should be greater than 0``."""
    location = problem["loc"]
    key = ".".join(str(part) for part in location)
    message = " ".join(problem["msg"].removeprefix("Value error, ").removeprefix("Input ").split())
    if problem["type"] == "extra_forbidden":
        return f"{key} is not a key; {_suggest(location, sections)}"
    if problem["type"] == "missing":
        field = sections.at(location[:-1]).model_fields.get(str(location[-1]))
        meaning = f" ({field.description})" if field and field.description else ""
        return f"{key}{meaning} is missing; add it"
    if problem["type"] == "value_error":  # our own validators already name keys and values
        return f"{key}: {message}" if key else message
    return f"{key} = {show(problem['input'])}: {message}"


def _suggest(location: tuple[int | str, ...], sections: Sections) -> str:
    wrong, parent = str(location[-1]), location[:-1]
    here = sections.at(parent).model_fields
    if (new := RENAMED.get(wrong)) in here:
        return f"it is called {'.'.join(str(part) for part in (*parent, new))} now: rename it"
    if near := difflib.get_close_matches(wrong, here, n=1):
        return f"did you mean {'.'.join(str(part) for part in (*parent, near[0]))}?"
    everywhere = {name: dotted for dotted, name in sections.all_keys()}
    if near := difflib.get_close_matches(wrong, everywhere, n=1, cutoff=0.75):
        return f"did you mean {everywhere[near[0]]}?"
    return f"allowed here: {', '.join(here)}"


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _required(model_class: type[BaseModel]) -> str:
    return ", ".join(name for name, field in model_class.model_fields.items() if field.is_required())
