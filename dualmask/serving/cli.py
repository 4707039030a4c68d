"""The commands that run models: those of every family, and the one that all share. torch starts once all is checked."""

from __future__ import annotations

import typer

from dualmask.families import registry
from dualmask.serving.generate import command


def make_app() -> typer.Typer:
    app = typer.Typer()
    for family in registry.families():
        if family.commands:
            app.add_typer(registry.resolve(family.commands))
    app.command(name="generate")(command())
    return app
