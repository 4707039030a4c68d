"""``report.json``: what became of all that was read, in numbers; ``page.py`` shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_pipeline import documents, packing
from data_pipeline.files import write_atomically
from data_pipeline.steps import seconds

REPORT_FILE = "report.json"


def write_report(folder: Path, work: Path) -> None:
    """Counts of what was read, dropped and kept, by reason; scripts, near-duplicates, lengths, pieces, seconds."""
    took = {name: round(value, 2) for name, value in seconds(work).items()}
    report = documents.report(work) | packing.report(work) | {"seconds": took}
    write_atomically(folder / REPORT_FILE, json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n")


def read_report(folder: Path) -> dict[str, Any]:
    """Nothing where there is no report, or one that cannot be read."""
    try:
        report = json.loads((folder / REPORT_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def dropped(report: dict[str, Any]) -> dict[str, int]:
    """Documents that were dropped, by reason, the most frequent first; paragraphs and unreadable records, too."""
    counts: dict[str, int] = report.get("documents", {})
    kept = {"documents read", "documents kept", "characters read", "bytes kept"}
    reasons = {name: count for name, count in counts.items() if name not in kept and count}
    return dict(sorted(reasons.items(), key=lambda item: -item[1]))
