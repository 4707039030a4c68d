"""Options that several commands share: dataclasses whose fields become options of a typer command.

How tokens are chosen has its options in ``SamplingParams``, so that a new parameter needs no line here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from dualmask.inference.folder import PRETRAINED

MODEL = typer.Option(
    metavar="DIR",
    help="Exported folder, or a run's folder. Default: the model of English that comes with dualmask.",
    show_default=False,
)


@dataclass(frozen=True)
class Source:
    """Where the texts come from."""

    text: Annotated[str | None, typer.Argument(help="The text itself.", show_default=False)] = None
    file: Annotated[str | None, typer.Option(help="Read the text from this UTF-8 file; - is stdin.")] = None
    lines: Annotated[bool, typer.Option("--lines", help="Each line of the file or stdin is a text of its own.")] = False


@dataclass(frozen=True)
class Setup:
    """Which model, where it runs, what is printed."""

    model: Annotated[Path, MODEL] = PRETRAINED
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a text, with the trace.")] = False
    trace: Annotated[
        Path | None,
        typer.Option(metavar="OUT.html", help="Write a page that shows the steps.", show_default=False),
    ] = None


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Makes every parameter that is a dataclass appear as that dataclass's options.

    typer reads a function's signature; this gives it the flat one and hands the function the grouped values.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    flat: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        flat += (
            _options_of(groups[name])
            if name in groups
            else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])]
        )

    @functools.wraps(function)
    def call(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        function(**values)

    call.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return call


def _options_of(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=_annotation(field, hints[field.name]),
        )
        for field in fields(group)
    ]


def _annotation(field: Field[Any], hint: Any) -> Any:
    """``hint``, or for a field of plain data, whose metadata holds only the help, an option made of that."""
    if "help" not in field.metadata:
        return hint
    names = [f"--{field.name.replace('_', '-')}"] if hint is bool else []  # a switch has no --no-…
    return Annotated[hint, typer.Option(*names, help=field.metadata["help"])]
