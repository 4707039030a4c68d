"""``dualmask generate``: one command for models of all families, with the options of all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import typer

from dualmask.core.sampling import SamplingParams
from dualmask.families import registry
from dualmask.inference.folder import family_of
from dualmask.serving.options import Setup, Source, with_options

HELP = """Write text around TEXT or behind it, or from nothing. Nothing of TEXT is deleted.

A DualMask model writes wherever it sees something missing, in --rounds, until --growth is reached. A SpanFusionLM
continues TEXT by --tokens, in spans of --span tokens, each refined in as many steps as the --gate asks for. An option
that means nothing to the family of the model is refused.

\b
dualmask generate --model M --growth 40 --temperature 0.9 --seed 1
dualmask generate --model M "Returns the list." --growth 20 --rounds 4 --lock "Returns the list."
dualmask generate --model S "Returns the list" --tokens 32 --span 16 --gate learned --trace spans.html
dualmask generate --model S "Returns the list" --gate fast
"""


def command() -> Callable[..., None]:
    """The command, with an option for each field of the families' option groups."""
    groups = {
        group.__name__: group
        for family in registry.families()
        if family.generate
        for group in family.generate.option_groups()
    }
    always = {"context": typer.Context, "source": Source, "setup": Setup, "sampling": SamplingParams}

    def generate(**values: Any) -> None:
        run(groups, **values)

    kinds = always | groups
    generate.__doc__ = HELP
    generate.__annotations__ = kinds
    keyword = inspect.Parameter.KEYWORD_ONLY
    generate.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, keyword, annotation=kind) for name, kind in kinds.items()]
    )
    return with_options(generate)


def run(
    groups: dict[str, type], context: typer.Context, source: Source, setup: Setup, sampling: SamplingParams, **own: Any
) -> None:
    """Raises ValueError, OSError."""
    family = registry.find(family_of(setup.model))
    if family.generate is None:
        raise ValueError(f"{setup.model}: a model of the family {family.name} does not write texts")
    own_groups = family.generate.option_groups()
    foreign = {field.name for group in groups.values() if group not in own_groups for field in fields(group)}
    _refuse(context, foreign | family.generate.unused, f"{setup.model}, whose family is {family.name}")
    registry.resolve(family.generate.run)(source, setup, sampling, *(own[group.__name__] for group in own_groups))


def _refuse(context: typer.Context, names: set[str] | frozenset[str], model: str) -> None:
    """Raises ValueError if one of these options was given."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name in names and source is not None and source.name != "DEFAULT":
            raise ValueError(f"--{name.replace('_', '-')} has no meaning for {model}: leave it out")
