"""``dualmask eval SUITE``: figures of a model against what it has to beat, as a table, a result file and a plot.

A suite is a function with the options of ``eval_options.Measured`` and its own. Each family lists its own ones in
``families/FAMILY/cli/suites.py``; those that compare families stand in SUITES.
"""

from __future__ import annotations

import typer

from dualmask.families.edit.cli import suites as edit
from dualmask.families.span.cli import suites as span
from dualmask.serving.eval_generation import generation

SUITES = (generation,)

app = typer.Typer(help="Measure a model against what it has to beat.", rich_markup_mode=None)
for suite in (*edit.SUITES, *SUITES, *span.SUITES):
    app.command()(suite)
