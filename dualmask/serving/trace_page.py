"""A page that plays the rounds of texts: one self-contained HTML file, which loads nothing and sends nothing.

The traces stay in it as JSON (``<script type="application/json" id="data">``), and a script draws them. Whatever comes
from a text is escaped: by the template's autoescape, by ``tojson`` (no ``<`` is left), by text nodes in the script.
"""

from __future__ import annotations

from collections.abc import Sequence

import jinja2

from dualmask.inference.text import TextResult


def trace_page(results: Sequence[TextResult], *, gate_threshold: float, left_out: int = 0) -> str:
    """The HTML of at least one result.

    gate_threshold: probability above which the Gate's word was to edit; left_out: results that the page does not show,
    which it says.
    """
    texts = [{"draft": result.draft, "trace": result.trace} for result in results]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dualmask.serving"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("trace.html").render(
        mode=results[0].trace["mode"],
        left_out=left_out,
        data={"gate_threshold": gate_threshold, "texts": texts},
    )
