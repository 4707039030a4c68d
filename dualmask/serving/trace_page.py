"""A page that plays how texts came about: one self-contained HTML file, which loads nothing and sends nothing.

The traces stay in it as JSON (``<script type="application/json" id="data">``), and a script draws them. Whatever comes
from a text is escaped: by the template's autoescape, by ``tojson`` (no ``<`` is left), by text nodes in the script.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2


def render(package: str, template: str, texts: Sequence[dict[str, Any]], left_out: int, **settings: float) -> str:
    """The HTML of at least one text, drawn by a ``template`` in the folder templates of a family's ``package``, which
    extends ``trace.html``. left_out: texts that the page does not show, which it says; settings: for the script."""
    loaders = [jinja2.PackageLoader(name) for name in (package, "dualmask.serving", "dualmask.core")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders), autoescape=True, undefined=jinja2.StrictUndefined
    )
    mode, data = texts[0]["trace"]["mode"], {"texts": texts, **settings}
    return environment.get_template(template).render(mode=mode, left_out=left_out, data=data)
