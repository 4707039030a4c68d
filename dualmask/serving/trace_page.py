"""A page that plays the rounds of texts: one self-contained HTML file, which loads nothing and sends nothing.

The traces stay in it as JSON (``<script type="application/json" id="data">``), and a script draws them. Whatever comes
from a text is escaped: by the template's autoescape, by ``tojson`` (no ``<`` is left), by text nodes in the script.
"""

from __future__ import annotations

from collections.abc import Sequence

import jinja2

from dualmask.inference.text import TextResult

TEXTS_ON_PAGE = 50


def trace_page(results: Sequence[TextResult], *, gate_threshold: float) -> str:
    """HTML of the first ``TEXTS_ON_PAGE`` results (at least one); says so where there are more.

    gate_threshold: probability above which the Gate's word was to edit.
    """
    shown = results[:TEXTS_ON_PAGE]
    texts = [{"draft": result.draft, "trace": result.trace} for result in shown]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dualmask.serving"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("trace.html").render(
        mode=shown[0].trace["mode"],
        left_out=len(results) - len(shown),
        data={"gate_threshold": gate_threshold, "texts": texts},
    )
