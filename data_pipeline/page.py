"""``report.html``: one self-contained page of a data folder without a script, which loads nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from data_pipeline.examples import examples
from data_pipeline.files import write_atomically
from data_pipeline.manifest import Manifest
from data_pipeline.report import dropped, read_report
from data_pipeline.stats import length_range

PAGE_FILE = "report.html"
_ROWS = 3  # shown of a split
_PIECES = 40
_TRACE = 1e-4  # a smaller share is none to speak of
_VISIBLE = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥"})


class Bar(NamedTuple):
    """``share``: its length, of the longest."""

    name: str
    value: str
    share: float
    kind: str = ""  # a class of the page's style


def write_page(folder: Path) -> None:
    """Writes the page of a finished build. Raises ManifestError."""
    write_atomically(folder / PAGE_FILE, render(folder).encode(errors="replace"))


def render(folder: Path) -> str:
    """The HTML. Raises ManifestError."""
    manifest, report = Manifest.load(folder), read_report(folder)
    scripts, traces = _scripts(report)
    filled = [name for name, info in manifest.splits.items() if info.rows]
    return template("report.html").render(
        name=folder.absolute().name,
        manifest=manifest,
        fates=_fates(report),
        parts=_parts(report),
        lengths=_lengths(report),
        scripts=scripts,
        traces=traces,
        pieces=[(text.translate(_VISIBLE), count) for text, count in report.get("pieces", [])[:_PIECES]],
        groups=[_group(group) for group in report.get("groups", [])],
        examples=[(split, examples(folder, split, _ROWS)) for split in filled],
        seconds=bars(report.get("seconds", {}), "{:,.2f} s"),
    )


def template(name: str) -> jinja2.Template:
    loaders = [jinja2.PackageLoader(package) for package in ("data_pipeline", "dualmask.core")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template(name)


def bars(values: Mapping[str, float], form: str = "{:,}", kinds: Mapping[str, str] | None = None) -> list[Bar]:
    longest = max(values.values(), default=0) or 1
    return [
        Bar(name, form.format(value), value / longest, (kinds or {}).get(name, "")) for name, value in values.items()
    ]


def _fates(report: dict[str, Any]) -> list[Bar]:
    """What became of documents; those that could not be read were never counted as read."""
    counts = {name: count for name, count in dropped(report).items() if "documents" in name}
    kept = report.get("documents", {}).get("documents kept", 0)
    return bars({"kept": kept, **counts}, kinds=dict.fromkeys(counts, "gone") | {"kept": "new"})


def _parts(report: dict[str, Any]) -> dict[str, int]:
    """Losses that are not counted in documents."""
    lost = {name: count for name, count in dropped(report).items() if "documents" not in name}
    left_over = report.get("rows", {}).get("tokens left over", 0)
    return lost | ({"tokens at ends that are too short for a row": left_over} if left_over else {})


def _lengths(report: dict[str, Any]) -> list[Bar]:
    """Documents of all splits, by tokens."""
    by_split = report.get("lengths", {}).values()
    powers = sorted({int(power) for split in by_split for power in split})
    if not powers:
        return []
    all_powers = [0] * (powers[0] == 0) + [
        1 << bits for bits in range(powers[-1].bit_length()) if 1 << bits >= powers[0]
    ]
    return bars({length_range(power): sum(split.get(str(power), 0) for split in by_split) for power in all_powers})


def _scripts(report: dict[str, Any]) -> tuple[list[Bar], list[str]]:
    """Those with letters to speak of, and the names of the others."""
    written = report.get("scripts", {})
    letters = sum(entry["letters"] for entry in written.values()) or 1
    shown: list[Bar] = []
    traces: list[str] = []
    for name, entry in written.items():
        title, share = name if name == "CJK" else name.title(), entry["letters"] / letters
        if share < _TRACE and not entry["documents"]:
            traces.append(title)
        else:
            shown.append(Bar(title, f"{percent(share)}, {entry['documents']:,}", share))
    return shown, traces


def percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share >= _TRACE else f"< {100 * _TRACE} %"


def _group(group: dict[str, Any]) -> dict[str, Any]:
    first, second = (document["text"] for document in group["pair"])
    marked = _marked(first, second)
    shown = [{**document, "parts": parts} for document, parts in zip(group["pair"], marked, strict=True)]
    size = str(group["from"]) if group["from"] == group["to"] else f"{group['from']} to {group['to']}"
    return {**group, "size": size, "pair": shown}


def _marked(first: str, second: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both texts in parts, and whether the other one lacks the part."""
    words, others = (re.findall(r"\s+|\S+", text) for text in (first, second))
    codes = difflib.SequenceMatcher(None, words, others, autojunk=False).get_opcodes()
    left = [("".join(words[start:stop]), code != "equal") for code, start, stop, _, _ in codes]
    right = [("".join(others[start:stop]), code != "equal") for code, _, _, start, stop in codes]
    return [part for part in left if part[0]], [part for part in right if part[0]]
