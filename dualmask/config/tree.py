"""YAML files as trees of plain values: read safely, built on other files, changed by dotted overrides.

Every failure is one line that says what to change. Knows nothing of what a key means.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from dualmask.config.section import expanded

BASE = "base"  # key: another file, that this one differs from in what it says


class ConfigError(ValueError):
    """A configuration that cannot run: one line that names the file, the key, the value and what is allowed."""

    def __init__(self, line: str) -> None:
        super().__init__(" ".join(line.split()))  # a key may hold anything, line breaks too


class _Loader(yaml.SafeLoader):
    """Safe YAML in which ``1e-3`` is a number and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_tree(path: str | Path) -> Any:
    """What ``path`` holds, put over what its ``base`` holds. Raises ConfigError."""
    return _read(Path(path), ())


def _read(path: Path, above: tuple[Path, ...]) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}; give the path of a YAML file") from None
    tree = parse(text, str(path))
    if not isinstance(tree, dict) or BASE not in tree:
        return tree
    base = tree.pop(BASE)
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base = {show(base)}: give the path of another YAML file, seen from this one")
    try:
        below = (path.parent / expanded(base)).resolve()
    except ValueError as error:
        raise ConfigError(f"{path}: base: {error}") from None
    if below in above or below == path.resolve():
        raise ConfigError(f"{path}: base = {base}: the files are built on each other in a circle; remove one base")
    return _merge(_read(below, (*above, path.resolve())), tree, str(path))


def _merge(base: Any, over: Any, source: str, key: str = "") -> Any:
    """``over`` put over ``base``: sections key by key, everything else as a whole. The entries of a list that have a
    ``name``, as stages do, may be changed by it: ``stages: {joint: {steps: 5}}``."""
    if isinstance(base, dict) and isinstance(over, dict):
        inner = {
            name: _merge(base[name], value, source, f"{key}{name}.") if name in base else value
            for name, value in over.items()
        }
        return base | inner
    if isinstance(base, list) and isinstance(over, dict):
        return _merge_named(base, over, source, key)
    return over


def _merge_named(base: list[Any], over: dict[Any, Any], source: str, key: str) -> list[Any]:
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in base]
    for name in over:
        if names.count(name) != 1:
            known = ", ".join(str(each) for each in names if each is not None)
            raise ConfigError(
                f"{source}: {key}{name}: the base has {names.count(name)} entries of that name, of {known}; "
                "name one of them, or give the whole list"
            )
    return [
        _merge(entry, over[name], source, f"{key}{name}.") if name in over else entry
        for name, entry in zip(names, base, strict=True)
    ]


def parse(text: str, source: str) -> Any:
    """Raises ConfigError, which calls the text ``source``."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: makes no objects
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{source}:{place} {reason}; only plain YAML values are read") from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ConfigError(f"{source}: {reason}; only plain YAML values are read") from None


def apply(tree: dict[Any, Any], override: str) -> None:
    """Sets one ``a.b.0.c=value`` in the tree."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r}: write it as key=value, for instance --set batch.sequences=32")
    value = parse(text, f"--set {key}")
    place: Any = tree
    for depth, part in enumerate(parts):
        where = ".".join(parts[:depth])
        last = depth == len(parts) - 1
        if isinstance(place, list):
            place = _into_list(place, part, value, last, f"--set {override!r}: {where}")
        elif isinstance(place, dict):
            if last or place.get(part) is None:  # a section that is absent, or empty in the file, begins here
                place[part] = value if last else {}
            place = place[part]
        else:
            raise ConfigError(f"--set {override!r}: {where} is {show(place)}, which has no keys of its own")


def _into_list(place: list[Any], part: str, value: Any, last: bool, where: str) -> Any:
    if not part.isdecimal() or int(part) >= len(place):
        raise ConfigError(f"{where} has entries 0 to {len(place) - 1}, not {part!r}")
    if last:
        place[int(part)] = value
    return place[int(part)]


def show(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
