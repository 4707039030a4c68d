"""``dualmask eval bits``: bits per byte of documents, for models that have an exact likelihood."""

from __future__ import annotations

from dualmask.serving.eval_options import Unplotted
from dualmask.serving.options import with_options


@with_options
def bits(measured: Unplotted) -> None:
    """How many bits a byte of a document costs: the same figure whatever the tokenizer; and perplexity per token.

    For models that predict each token from those in front of it: autoregressive ones, and the decoder of SpanFusionLM.
    A document that is longer than the model reads is cut into windows. The figure is what lm-evaluation-harness calls
    bits_per_byte; intervals are 95 % bootstrap over documents.

    \b
    dualmask eval bits --model runs/autoregressive --data data/embedded/test.jsonl --json bits.json
    """
    from dualmask.evaluation import likelihood, tables, texts
    from dualmask.inference.folder import family_of
    from dualmask.inference.loading import load

    lines = texts.read_texts(measured.data)
    family = family_of(measured.model)
    loaded = load(measured.model, measured.device, family=family)
    scorer = likelihood.Scorer.of(loaded.model)
    rows = likelihood.evaluate(scorer, lines, loaded.tokenizer, loaded.config.max_length)
    measured.write("bits", rows, family=family)
    table = tables.make_table(None, ["", "value", "95 % interval", "documents"])
    for row in rows:
        table.add_row(row["metric"], tables.value(row), tables.interval(row), str(row["n"]))
    tables.show([table])
