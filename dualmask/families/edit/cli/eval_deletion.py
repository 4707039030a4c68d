"""``dualmask eval reconstruction | gaps | quickstart``: the picker against random, frequent and greedy deletion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualmask.serving.eval_options import Measured, numbers
from dualmask.serving.options import with_options

RATES = "0.2,0.3,0.5"

Rates = Annotated[str, typer.Option(help="Shares of tokens to delete.")]
Limit = Annotated[int, typer.Option(help="Most sequences to evaluate, spread over the data.", min=1)]
Filler = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Another model, whose filler restores instead.", show_default=False)
]


@with_options
def reconstruction(measured: Measured, rates: Rates = RATES, limit: Limit = 512, filler: Filler = None) -> None:
    """Which deleted tokens come back: the picker against random, frequent and greedy deletion.

    Every method deletes the same number of tokens and is restored by the same filler. Intervals are 95 % bootstrap
    over sequences. --filler uses an independently trained filler, which shows whether picker and filler share a private
    code; it must have been trained with the same tokenizer.

    \b
    dualmask eval reconstruction --model runs/quickstart --data data/embedded/test.jsonl --plot plot.png
    """
    _measure("reconstruction", measured, rates, limit, filler)


@with_options
def gaps(measured: Measured, rates: Rates = RATES, limit: Limit = 512, filler: Filler = None) -> None:
    """Are the holes found again: F1 of the non-empty gaps, and the error of the length.

    \b
    dualmask eval gaps --model runs/quickstart --data data/embedded/test.jsonl --rates 0.2 --json gaps.json
    """
    _measure("gaps", measured, rates, limit, filler)


@with_options
def quickstart(measured: Measured, rates: Rates = RATES, limit: Limit = 512, filler: Filler = None) -> None:
    """What `make train` reports: reconstruction and gaps in one pass."""
    _measure("quickstart", measured, rates, limit, filler)


def _measure(suite: str, measured: Measured, rates: str, limit: int, filler: Path | None) -> None:
    from dualmask.evaluation import tables, texts
    from dualmask.families.edit.evaluate import deletion_report, deletion_suites
    from dualmask.inference.loading import load

    meaning = f"shares of tokens between 0 and 1, for instance {RATES}"
    shares = numbers("--rates", rates, float, lambda rate: 0 < rate < 1, meaning)
    lines = texts.read_texts(measured.data)
    loaded = load(measured.model, measured.device)
    other = load(filler, measured.device) if filler else None
    if other and other.tokenizer.digest != loaded.tokenizer.digest:
        raise ValueError(
            f"--filler {filler}: another tokenizer than {measured.model}; train both on the same data folder"
        )
    device = next(loaded.model.parameters()).device
    batches = texts.batches(lines, loaded.tokenizer, loaded.config.max_length, limit=limit, device=device)
    rows = deletion_suites.evaluate(suite, loaded, batches, shares, other)
    measured.write(suite, rows)
    if measured.plot and suite != "gaps":
        deletion_report.plot(rows, measured.plot)
    tables.show([deletion_report.rows_table(rows)], width=None)
