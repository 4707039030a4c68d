"""Tables of figures on a terminal: one look for all suites."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import HEAVY_HEAD, SIMPLE
from rich.console import Console
from rich.table import Table

from dualmask.evaluation.statistics import Row

WIDTH = 110  # characters of a line where the output is no terminal
PLAIN: dict[str, Any] = {"box": SIMPLE, "padding": (0, 1, 0, 0), "title_justify": "left"}
BOXED: dict[str, Any] = {"box": HEAVY_HEAD, "padding": (0, 1), "title_justify": "center"}


def make_table(
    title: str | None, headings: Sequence[str], *, left: Iterable[int] = (0,), wrap: bool = False, **style: Any
) -> Table:
    """Columns flush right, but for those numbered in ``left``. style: of rich's ``Table``, in place of PLAIN's."""
    table = Table(title=title, **(PLAIN | style))
    flush_left = set(left)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number in flush_left else "right", no_wrap=not wrap)
    return table


def value(row: Row) -> str:
    return f"{row['value']:.3f}"


def interval(row: Row) -> str:
    return f"{row['lo']:.3f} … {row['hi']:.3f}"


def show(tables: Iterable[Table], width: int | None = WIDTH) -> None:
    """Prints to stdout. ``width`` None: as rich guesses it."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else width)
    for table in tables:
        console.print(table)
