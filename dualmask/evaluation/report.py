"""Result files, and how rows are looked up in them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dualmask.evaluation.statistics import Row


def write(path: Path, suite: str, rows: Sequence[Row], **about: Any) -> dict[str, Any]:
    """{"suite", "machine", …, "rows"}: written beside and renamed, so that no half file is left."""
    result = {"suite": suite, "machine": machine(), **about, "rows": list(rows)}
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".half")
    half.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    half.replace(path)
    return result


def machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def select(rows: Sequence[Row], **dimensions: Any) -> list[Row]:
    """The rows with these dimensions; None stands for a dimension that a row does not have."""
    return [row for row in rows if all(row.get(name) == value for name, value in dimensions.items())]


def find(rows: Sequence[Row], **dimensions: Any) -> Row:
    """The first row with these dimensions. Raises KeyError where there is none."""
    for row in select(rows, **dimensions):
        return row
    raise KeyError(f"no row with {dimensions}")


def distinct_values(rows: Sequence[Row], *names: str) -> list[tuple[Any, ...]]:
    """The different values of these dimensions, in the order of the rows."""
    return list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))


def values(rows: Sequence[Row]) -> dict[str, float]:
    """Metric → value."""
    return {row["metric"]: row["value"] for row in rows}
