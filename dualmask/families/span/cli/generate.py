"""``dualmask generate`` with a SpanFusionLM."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dualmask.core.sampling import SamplingParams
from dualmask.families.span.cli.options import Spans
from dualmask.families.span.request import SpanOptions, parse_gate
from dualmask.serving.options import Setup, Source
from dualmask.serving.results import PROGRESS_AFTER_SECONDS, check_page, show
from dualmask.serving.texts import for_each, read_texts

if TYPE_CHECKING:
    from dualmask.families.span.text import Prompt, SpanResult, SpanWriter


def run(source: Source, setup: Setup, sampling: SamplingParams, spans: Spans) -> None:
    """Raises ValueError, OSError. All texts are checked before the first one is written."""
    options = SpanOptions(spans.tokens, spans.span, parse_gate(spans.gate), sampling)
    check_page(setup)
    texts = read_texts(source, empty_allowed=True)
    writer = _writer(setup, options)
    prompts = for_each(texts, source, writer.prepare)
    show(_results(writer, prompts), len(prompts), source, setup, _page)


def _writer(setup: Setup, options: SpanOptions) -> SpanWriter:
    from dualmask.inference.folder import open_folder

    open_folder(setup.model, "spanfusion")  # before seconds are spent on starting torch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # megatron names optional packages that inference has no use for
        from dualmask.families.span.text import SpanWriter
        from dualmask.inference.loading import load

    return SpanWriter(load(setup.model, setup.device, family="spanfusion"), options)


def _results(writer: SpanWriter, prompts: list[Prompt]) -> Iterator[SpanResult]:
    from tqdm import tqdm

    with tqdm(total=len(prompts), unit=" texts", delay=PROGRESS_AFTER_SECONDS, leave=False, disable=None) as bar:
        for result in writer.run(prompts):
            yield result
            bar.update()


def _page(shown: list[SpanResult], left_out: int) -> str:
    from dualmask.serving.trace_page import render

    texts = [{"draft": result.input, "trace": result.trace} for result in shown]
    return render("dualmask.families.span.cli", "spans.html", texts, left_out)
