"""Options of `dualmask generate` with a SpanFusionLM: dataclasses whose fields become options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class Spans:
    """How a SpanFusionLM continues a text."""

    tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="SpanFusionLM: write at most so many tokens. Default: 64, or as many as it still reads.",
            show_default=False,
        ),
    ] = None
    span: Annotated[int, typer.Option(metavar="K", help="SpanFusionLM: tokens that are refined together.")] = 16
    gate: Annotated[
        str,
        typer.Option(
            help="SpanFusionLM: steps a span. learned: as its gate says; fast: 1; accurate: as many as it learnt with; "
            "fixed:n: n. verified: the text that its decoder alone would write, in fewer passes."
        ),
    ] = "learned"


GENERATE = (Spans,)
