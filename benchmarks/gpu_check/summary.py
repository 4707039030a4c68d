"""The results for people: lines while the kit runs, and a page that is written anew after every section."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.schedule import Outcome, Section
from benchmarks.timing import NUMBERS
from dualmask.evaluation.statistics import Row

LOG_LINES = 12  # of a section that did not pass


def lines_of(outcome: Outcome, out: Path) -> Iterator[str]:
    yield f"== {headline(outcome)}"
    for row in read(outcome.section, out).get("rows", []):
        yield f"   {words(row)}"
    if not outcome.passed:
        yield from (f"   | {line}" for line in log_tail(outcome.section, out))


def summarise(outcomes: Sequence[Outcome], sections: Sequence[Section], out: Path) -> str:
    """Markdown."""
    ended = [outcome.section for outcome in outcomes]
    parts = ["# GPU check", _machine(ended, out), "| section | state | seconds | |", "|---|---|---|---|"]
    parts += [f"| {o.section.name} | {o.status} | {o.seconds:.0f} | {o.detail} |" for o in outcomes]
    parts += [f"| {section.name} | not yet | | |" for section in sections if section not in ended]
    for outcome in outcomes:
        content = read(outcome.section, out)
        parts += ["", f"## {outcome.section.title} (`{outcome.section.name}`: {outcome.status})"]
        if content.get("left_out"):
            parts.append(f"Out of time: {content['left_out']}.")
        parts += ["", *_table(content.get("rows", []))]
        if not outcome.passed and outcome.status != "out of time":
            parts += ["", "```", *log_tail(outcome.section, out), "```"]
    return "\n".join(parts) + "\n"


def headline(outcome: Outcome) -> str:
    detail = f": {outcome.detail}" if outcome.detail else ""
    return f"{outcome.section.name} ({outcome.section.title}): {outcome.status} in {outcome.seconds:.0f} s{detail}"


def read(section: Section, out: Path) -> dict[str, Any]:
    """{} if it wrote nothing."""
    try:
        content = json.loads((out / f"{section.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def log_tail(section: Section, out: Path) -> list[str]:
    try:
        return (out / f"{section.name}.log").read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []


def words(row: Row) -> str:
    verdict = {True: "ok ", False: "BAD"}.get(row.get("ok"), "   ")  # type: ignore[arg-type]
    return f"{verdict} {row['metric']:28} {dimensions(row):50} {figure(row)}"


def dimensions(row: Row) -> str:
    named = {key: value for key, value in row.items() if key not in (*NUMBERS, "ok")}
    return " ".join(str(value) if isinstance(value, str) else f"{key} {value}" for key, value in named.items())


def figure(row: Row) -> str:
    spread = f" ({number(row['lo'])} … {number(row['hi'])})" if row.get("n", 1) > 1 else ""
    return number(row["value"]) + spread


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _machine(sections: Sequence[Section], out: Path) -> str:
    for section in sections:
        if machine := read(section, out).get("machine"):
            return ", ".join(f"{key} {value}" for key, value in machine.items()) + "\n"
    return ""


def _table(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        yield "Nothing was measured."
        return
    yield from ("| metric | of | value | |", "|---|---|---|---|")
    for row in rows:
        verdict = {True: "ok", False: "**not as it must be**"}.get(row.get("ok"), "")  # type: ignore[arg-type]
        yield f"| {row['metric']} | {dimensions(row)} | {figure(row)} | {verdict} |"
