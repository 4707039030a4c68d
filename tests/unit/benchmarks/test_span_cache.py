"""The prompt of the benchmark is read once, and its rows are what was timed."""

from __future__ import annotations

import torch

from benchmarks.span_cache import PROMPT, WIDTH, make_model, measure, seconds
from dualmask.families.span.config import SpanFusionConfig, SpanModelConfig

TINY = SpanFusionConfig(
    family="spanfusion", hidden=8, heads=2, span=SpanModelConfig(decoder_layers=1, encoder_layers=1, g_max=4)
)


def test_the_prompt_is_read_once() -> None:
    model = make_model(TINY, 64)
    read: list[int] = []

    def note(module: torch.nn.Module, inputs: object, states: torch.Tensor) -> None:
        read.append(states.shape[1])

    model.decoder.register_forward_hook(note)
    whole = 1 + PROMPT + WIDTH
    for cached, tokens in ((True, [whole, 64, 64, 64, 128, 64, 64, 64]), (False, [whole] * 4 + [whole + 64] * 4)):
        seconds(model, 2 * WIDTH, repeat=0, cached=cached)
        assert read == tokens
        read.clear()


def test_rows() -> None:
    rows = measure(make_model(TINY, 64), repeats=2, spans=(1, 2))
    assert [(row["metric"], row["spans"]) for row in rows] == [
        (metric, number) for number in (1, 2) for metric in ("seconds_cached", "seconds_uncached", "times_as_fast")
    ]
    assert all(row["n"] == 2 and 0 < row["lo"] <= row["value"] <= row["hi"] for row in rows)
