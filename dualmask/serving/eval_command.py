"""``dualmask eval SUITE``: figures of a model against what it has to beat, as a table, a result file and a plot.

A suite is a function with the options of ``eval_options.Measured`` and its own; add it to SUITES.
"""

from __future__ import annotations

import typer

from dualmask.families.edit.cli.eval_deletion import gaps, quickstart, reconstruction
from dualmask.families.edit.cli.eval_rounds import adaptive, editing
from dualmask.families.span.cli.eval_span import span
from dualmask.serving.eval_generation import generation

SUITES = (reconstruction, gaps, quickstart, generation, editing, adaptive, span)

app = typer.Typer(help="Measure a model against what it has to beat.", rich_markup_mode=None)
for suite in SUITES:
    app.command()(suite)
