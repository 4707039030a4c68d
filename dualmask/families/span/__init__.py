"""SpanFusionLM: an autoregressive decoder whose spans are refined in parallel by an encoder."""

from dualmask.families.registry import Family, Generate
from dualmask.families.span.config import DecoderStage, DraftStage, SpanFusionConfig, SpanStage

FAMILY = Family(
    name="spanfusion",
    model=SpanFusionConfig,
    stages=(DecoderStage, SpanStage, DraftStage),
    runtime="dualmask.families.span.runtime:RUNTIME",
    suites="dualmask.families.span.cli.suites:SUITES",
    shown=("ar", "token", "steps", "tokens_a_pass"),
    generate=Generate(
        "dualmask.families.span.cli.generate:run",
        "dualmask.families.span.cli.options:GENERATE",
        unused=frozenset({"place_temperature", "fill_steps", "remask"}),
    ),
)
