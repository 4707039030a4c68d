"""``dualmask eval span``: SpanFusionLM against its own decoder, used one token at a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dualmask.serving.eval_options import Measured, load_judge
from dualmask.serving.options import with_options


@with_options
def span(
    measured: Measured,
    scorer: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Autoregressive model that judges texts, and how hard a span is. Train it with another seed. Without "
            "it: no outside perplexity, and the own decoder says what is hard.",
            show_default=False,
        ),
    ] = None,
    span: Annotated[int, typer.Option(help="K: tokens of a span.", min=2)] = 8,
    spans: Annotated[int, typer.Option(help="Places of each text at which one is cut.", min=1, max=64)] = 4,
    limit: Annotated[int, typer.Option(help="Most texts, spread over the data.", min=16)] = 128,
    repeats: Annotated[int, typer.Option(help="Of the timing; the arms take turns.", min=5)] = 7,
    at_once: Annotated[int, typer.Option(help="Spans written in one batch; 1: what a single user waits for.", min=1)]
    = 64,
    seed: Annotated[int, typer.Option(help="Of the places.", min=0)] = 0,
) -> None:  # fmt: skip
    """Does SpanFusionLM write K tokens at once as well as one by one, and do its steps go where they pay?

    \b
    learned, fast, accurate  the gate as taught; one step a span; all steps
    fixed:n                  n steps for every span
    autoregressive           its own decoder, one token a pass, keys and values kept
    reference                the held-out text
    prompt                   one token is written: the time to read the prompt, which every arm spends

    All write greedily behind prompts cut from held-out texts. slots right compares place by place and so flatters
    parallel writing: each word may be likely alone while the span makes no sense. prefix counts only what is right from
    the first token on. gold nats is the honest measure: what the true tokens cost when they are written at the places
    that the model picks, each judged in the step that wrote it; pred nats: the same by the decoder's own logits, which
    the encoder should improve. Perplexity alone is fooled by repetition: read it beside dist2 (different pairs of
    tokens). tok. / pass counts the decoder's passes over the span. There are no others: the first one reads the prompt
    as well, in every arm, and a finished span is read in the first pass of the next. Blocks run, of decoder and
    encoder: block_passes in --json.

    The gate: steps in the easy, middle and hard third of the spans (by the scorer's nats of the true span, never by the
    entropy that the gate reads), and the same steps dealt to other spans. --plot draws the calibration: entropy at the
    first step → steps taken, and what all steps would gain there. Intervals are 95 % bootstrap over texts; of times,
    the fastest and slowest repeat.

    \b
    dualmask eval span --model runs/spanfusion_small --data data/embedded/test.jsonl --json out.json --plot out.png
    dualmask eval span --model S --data F.jsonl --scorer runs/scorer --span 16 --at-once 1
    """
    from tqdm import tqdm

    from dualmask.evaluation import tables, texts
    from dualmask.families.span.evaluate import report as span_report
    from dualmask.families.span.evaluate import spans as suite
    from dualmask.inference.loading import load

    lines = texts.read_texts(measured.data)
    loaded = load(measured.model, measured.device, family="spanfusion")
    judge = load_judge(scorer, loaded, measured)
    sequences = [ids[1:-1] for ids in texts.sequences(lines, loaded.tokenizer, loaded.config.max_length)]
    task = suite.make_task(sequences, width=span, cuts=spans, limit=limit, seed=seed)
    with tqdm(total=repeats, delay=2, leave=False, disable=None) as bar:
        rows = suite.evaluate(loaded, task, judge, repeats=repeats, at_once=at_once, progress=bar.update)
    measured.write("span", rows, span=span, texts=task.texts, scorer=str(scorer) if scorer else None)
    if measured.plot:
        span_report.plot(rows, measured.plot)
    tables.show(span_report.tables(rows))
    if judge is None:
        print("dualmask: no --scorer, so no outside perplexity; the own decoder says what is hard", file=sys.stderr)
