"""Results on their way out: text or JSON on stdout as they come, and the page of ``--trace``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import typer

from dualmask.core.manifest import write_file
from dualmask.serving.options import Setup, Source
from dualmask.serving.texts import print_text

TEXTS_ON_PAGE = 50  # of --trace
PROGRESS_AFTER_SECONDS = 2


class Result(Protocol):
    @property
    def output(self) -> str: ...
    @property
    def trace(self) -> Mapping[str, Any]: ...


AnyResult = TypeVar("AnyResult", bound=Result)


def check_page(setup: Setup) -> None:
    """Raises ValueError where the page of ``--trace`` could not be written."""
    if setup.trace and not setup.trace.parent.is_dir():
        raise ValueError(f"--trace {setup.trace}: there is no folder {setup.trace.parent}: create it, or name another")


def show(
    results: Iterable[AnyResult], number: int, source: Source, setup: Setup, page: Callable[[list[AnyResult], int], str]
) -> None:
    """Prints ``number`` results. ``page``: the HTML of the first ones, given how many are left out."""
    shown: list[AnyResult] = []
    for result in results:
        text = json.dumps(result.trace, ensure_ascii=False) if setup.json else result.output
        print_text(text, one_line=source.lines and not setup.json)
        if setup.trace and len(shown) < TEXTS_ON_PAGE:
            shown.append(result)
    if setup.trace and shown:
        left_out = number - len(shown)
        write_file(setup.trace, page(shown, left_out))
        if left_out:
            typer.echo(f"{setup.trace} shows the first {len(shown)} of {number} texts", err=True)
