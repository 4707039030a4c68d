"""``dualmask eval SUITE``: figures of a model against baselines, as a table, a result file and a plot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

RATES = "0.2,0.3,0.5"


def parse_rates(text: str) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise ValueError(f"--rates {text}: give shares of tokens between 0 and 1, for instance {RATES}")
    return rates


def evaluate(
    suite: Annotated[str, typer.Argument(help="reconstruction | gaps | quickstart (both)", show_default=False)],
    model: Annotated[Path, typer.Option(help="Exported folder or run folder.", show_default=False)],
    data: Annotated[Path, typer.Option(help='jsonl, a {"text": …} a line.', show_default=False)],
    json_out: Annotated[Path | None, typer.Option("--json", help="Result file to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to draw (reconstruction).")] = None,
    rates: Annotated[str, typer.Option(help="Shares of tokens to delete.")] = RATES,
    limit: Annotated[int, typer.Option(help="Most sequences to evaluate, spread over the data.", min=1)] = 512,
    filler: Annotated[Path | None, typer.Option(help="Another model, whose filler restores instead.")] = None,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda")] = "auto",
) -> None:
    """Delete, place, fill, compare: the picker against random, frequent and greedy deletion.

    Every method deletes the same number of tokens and is restored by the same filler. Intervals are 95 % bootstrap
    over sequences. --filler FOLDER uses an independently trained filler, which shows whether picker and filler share
    a private code; it must have been trained with the same tokenizer.
    """
    from rich.console import Console

    from dualmask.evaluation import report, texts
    from dualmask.evaluation.suites import SUITES
    from dualmask.inference.loading import load

    if suite not in SUITES:
        raise ValueError(f"suite {suite!r} is not known: give one of {', '.join(SUITES)}")
    asked = parse_rates(rates)
    lines = texts.read_texts(data)
    loaded = load(model, device)
    other = load(filler, device) if filler else None
    if other and other.tokenizer.digest != loaded.tokenizer.digest:
        raise ValueError(f"--filler {filler}: another tokenizer than {model}; train both on the same data folder")
    where = next(loaded.model.parameters()).device
    batches = texts.batches(lines, loaded.tokenizer, loaded.config.max_length, limit=limit, device=where)
    rows = SUITES[suite](loaded, batches, asked, other)
    if json_out:
        report.write(json_out, suite, rows, model=str(model), data=str(data))
    if plot and suite != "gaps":
        report.plot(rows, plot)
    Console(file=sys.stdout).print(report.rows_table(rows))
