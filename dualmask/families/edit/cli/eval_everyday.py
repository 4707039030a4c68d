"""``dualmask eval everyday``: is an ordinary error in an ordinary sentence put right?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualmask.inference.folder import PRETRAINED
from dualmask.serving.eval_options import Measured
from dualmask.serving.options import MODEL


def everyday(
    *,
    model: Annotated[Path, MODEL] = PRETRAINED,
    data: Annotated[
        Path | None,
        typer.Option(metavar="F.tsv", help="Other cases: kind, wrong, right, with tabs between.", show_default=False),
    ] = None,
    sentences: Annotated[
        Path | None,
        typer.Option(metavar="F.txt", help="Other clean sentences whose words are doubled.", show_default=False),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Most rounds of `auto`.", min=1, max=1000)] = 8,
    json_out: Annotated[Path | None, typer.Option("--json", help="Result file to write.", show_default=False)] = None,
    show: Annotated[bool, typer.Option("--show", help="Print what became of each sentence.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Are everyday errors mended, and are clean sentences left alone?

    182 sentences with one error each, of 13 kinds, come with dualmask; and 50 of which one word is doubled. better: the
    right sentence, or fewer words away from it than the wrong one is; worse: more words away; clean_untouched: share of
    the right sentences that come back as they are. Methods: auto; keep (nothing is done); doubled_rule (of two equal
    neighbouring words the second is dropped, without a model). Intervals are 95 % bootstrap over sentences.

    \b
    dualmask eval everyday --model runs/quickstart --show
    dualmask eval everyday --model M --data my_cases.tsv --json everyday.json
    """
    from dualmask.evaluation import tables
    from dualmask.families.edit.evaluate import everyday as suite
    from dualmask.families.edit.evaluate import everyday_report
    from dualmask.families.edit.infer.text import Writer
    from dualmask.inference.loading import load
    from dualmask.serving.texts import print_text

    data, sentences = data or suite.CASES, sentences or suite.SENTENCES
    cases, clean = suite.read_cases(data), suite.read_sentences(sentences)
    auto = suite.model(Writer(load(model, device)), rounds)
    correctors = {"auto": auto, "keep": suite.keep, "doubled_rule": suite.doubled_rule}
    rows, outcomes = suite.evaluate(correctors, cases, clean)
    Measured(model, data, json_out, device=device).write("everyday", rows, sentences=str(sentences), rounds=rounds)
    if show:
        for line in everyday_report.sentences(outcomes["auto"]):
            print_text(line, one_line=True)
    tables.show(everyday_report.everyday_tables(rows))
