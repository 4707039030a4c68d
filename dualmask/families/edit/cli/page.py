"""The page of ``--trace`` for DualMaskLM: it plays the rounds."""

from __future__ import annotations

from collections.abc import Sequence

from dualmask.families.edit.infer.text import TextResult
from dualmask.serving.trace_page import render


def trace_page(results: Sequence[TextResult], *, gate_threshold: float, left_out: int = 0) -> str:
    """The HTML of at least one result.

    gate_threshold: probability above which the Gate's word was to edit; left_out: results that the page does not show.
    """
    texts = [{"draft": result.draft, "trace": result.trace} for result in results]
    return render("dualmask.families.edit.cli", "rounds.html", texts, left_out, gate_threshold=gate_threshold)
