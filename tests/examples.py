"""The examples that people read: commands of the README, of every ``--help`` and of the report of `make train`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import typer.main

from launcher.command import app

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```\n(.*?)```", re.DOTALL)
COMMENT = re.compile(r"\s{2,}#.*$")


def of_the_readme() -> list[str]:
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    return [line for block in blocks for line in commands(block)]


def with_output() -> list[tuple[str, str]]:
    """Commands of the README with what it says that they print: the line below, behind an arrow."""
    lines = "\n".join(BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))).splitlines()
    return [
        (commands(line)[0], shown.strip().removeprefix("→").strip())
        for line, shown in itertools.pairwise(lines)
        if commands(line) and shown.strip().startswith("→")
    ]


def of_the_help() -> list[str]:
    return [line for text in _helps(typer.main.get_command(app)) for line in commands(text)]


def _helps(command: object) -> Iterator[str]:
    """Of a command and of those below it."""
    yield getattr(command, "help", None) or ""
    for below in getattr(command, "commands", {}).values():
        yield from _helps(below)


def commands(text: str) -> list[str]:
    """Lines that run ``dualmask``, continued ones joined, without comments."""
    lines = [COMMENT.sub("", line).strip() for line in re.sub(r"\\\n\s*", "", text).splitlines()]
    return [line for line in lines if re.match(r"(cat \S+ \| )?dualmask ", line)]
