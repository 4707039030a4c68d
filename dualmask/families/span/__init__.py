"""SpanFusionLM: an autoregressive decoder whose spans are refined in parallel by an encoder."""

from dualmask.families.registry import Family, Generate
from dualmask.families.span.config import DecoderStage, SpanFusionConfig, SpanStage

FAMILY = Family(
    name="spanfusion",
    model=SpanFusionConfig,
    stages=(DecoderStage, SpanStage),
    runtime="dualmask.families.span.runtime:RUNTIME",
    suites="dualmask.families.span.cli.suites:SUITES",
    shown=("ar", "token", "steps"),
    generate=Generate(
        "dualmask.families.span.cli.generate:run",
        "dualmask.families.span.cli.options:GENERATE",
        unused=frozenset({"place_temperature", "fill_steps", "remask"}),
    ),
)
