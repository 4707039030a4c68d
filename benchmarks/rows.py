"""Rows of a result file that sum up repeated measurements."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from dualmask.evaluation.statistics import Row


def median_row(metric: str, values: Sequence[float], **where: Any) -> Row:
    """The median, and the least and greatest."""
    return {
        "metric": metric,
        "value": statistics.median(values),
        "lo": min(values),
        "hi": max(values),
        "n": len(values),
        **where,
    }
