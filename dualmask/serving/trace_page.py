"""A page that plays how texts came about: one self-contained HTML file, which loads nothing and sends nothing.

The traces stay in it as JSON (``<script type="application/json" id="data">``), and a script draws them. Whatever comes
from a text is escaped: by the template's autoescape, by ``tojson`` (no ``<`` is left), by text nodes in the script.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2

from dualmask.families.edit.infer.text import TextResult
from dualmask.families.span.text import SpanResult


def trace_page(results: Sequence[TextResult], *, gate_threshold: float, left_out: int = 0) -> str:
    """The HTML of at least one result of DualMask, round by round.

    gate_threshold: probability above which the Gate's word was to edit; left_out: results that the page does not show,
    which it says.
    """
    texts = [{"draft": result.draft, "trace": result.trace} for result in results]
    return _render("rounds.html", texts, left_out, gate_threshold=gate_threshold)


def spans_page(results: Sequence[SpanResult], *, left_out: int = 0) -> str:
    """The HTML of at least one result of SpanFusionLM, span by span and step by step."""
    texts = [{"draft": result.input, "trace": result.trace} for result in results]
    return _render("spans.html", texts, left_out)


def _render(template: str, texts: Sequence[dict[str, Any]], left_out: int, **settings: float) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dualmask.serving"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    mode, data = texts[0]["trace"]["mode"], {"texts": texts, **settings}
    return environment.get_template(template).render(mode=mode, left_out=left_out, data=data)
