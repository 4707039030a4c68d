"""Numbers of a data folder, from its manifest and ``report.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_pipeline.manifest import Manifest
from data_pipeline.report import dropped, read_report


def collect(folder: Path) -> dict[str, Any]:
    """By split: documents, tokens, rows, shards, mean tokens a row, and ``lengths``: documents by tokens, of which
    they have as many as the key and fewer than twice as many. ``dropped``: by reason. Raises ManifestError."""
    manifest, report = Manifest.load(folder), read_report(folder)
    splits = {
        name: {
            "documents": info.documents,
            "tokens": info.tokens,
            "rows": info.rows,
            "shards": len(info.shards),
            "tokens_per_row": round(info.tokens / max(info.rows, 1), 1),
            "lengths": report.get("lengths", {}).get(name, {}),
        }
        for name, info in manifest.splits.items()
    }
    return {"source": manifest.source, "splits": splits, "dropped": dropped(report)}


def table(found: dict[str, Any]) -> str:
    """The same for people."""
    columns = ("documents", "tokens", "rows", "shards", "tokens_per_row")
    lines = [found["source"], "", _line("split", [name.replace("_", " ") for name in columns])]
    lines += [_line(name, [f"{split[key]:,}" for key in columns]) for name, split in found["splits"].items()]
    powers = sorted({int(power) for split in found["splits"].values() for power in split["lengths"]})
    if powers:
        lines += ["", _line("tokens a document", list(found["splits"]))]
    for power in powers:
        counts = [split["lengths"].get(str(power), 0) for split in found["splits"].values()]
        lines.append(_line(length_range(power), [f"{count:,}" for count in counts]))
    if found["dropped"]:
        lines += ["", "dropped"]
        lines += [f"{count:>14,}  {reason}" for reason, count in found["dropped"].items()]
    return "\n".join(lines)


def length_range(power: int) -> str:
    return f"{power:,}" if power < 2 else f"{power:,} to {2 * power - 1:,}"


def _line(name: str, values: list[str]) -> str:
    return f"{name:<20}" + "".join(f"{value:>16}" for value in values)
