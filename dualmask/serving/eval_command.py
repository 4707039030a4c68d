"""``dualmask eval SUITE``: figures of a model against what it has to beat, as a table, a result file and a plot.

A suite is a function with the options of ``eval_options.Measured`` and its own. Each family lists its own ones
(``Family.suites``); those that compare families stand in SUITES.
"""

from __future__ import annotations

import typer

from dualmask.families import registry
from dualmask.serving.eval_bits import bits
from dualmask.serving.eval_generation import generation

SUITES = (generation, bits)

app = typer.Typer(help="Measure a model against what it has to beat.", rich_markup_mode=None)
for suite in (*SUITES, *(suite for family in registry.families() for suite in family.eval_suites())):
    app.command()(suite)
