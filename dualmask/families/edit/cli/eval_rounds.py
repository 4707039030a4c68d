"""``dualmask eval editing | adaptive``: what the rounds, the Gate and early stopping are worth."""

from __future__ import annotations

from typing import Annotated

import typer

from dualmask.serving.eval_options import Measured, numbers
from dualmask.serving.options import with_options

Limit = Annotated[int, typer.Option(help="Most texts to evaluate, spread over the data.", min=8)]


@with_options
def editing(
    measured: Measured,
    corruption_rate: Annotated[float, typer.Option(help="Share of the tokens that is made wrong.")] = 0.1,
    kinds: Annotated[
        str, typer.Option(help="Of errors, equally often; also typo, confuse, natural.")
    ] = "substitute,drop,double,swap",
    typos: Annotated[bool, typer.Option("--typos", help="Misspelt words too: the kind typo.")] = False,
    rounds: Annotated[str, typer.Option(help="Rounds that `auto` and `edit` play.")] = "1,2,4",
    limit: Limit = 256,
) -> None:
    """Are wrong tokens found and put right, and is what was right left alone?

    Held-out texts are corrupted; an edit counts as right if it has the span and the words of one that leads back to
    the text. Methods: auto; edit (the Gate always open), gate_off (never), shuffled_gate (its decisions dealt to other
    texts); filler_threshold (every token that the filler takes for unlikely gets one mask; its threshold is chosen on
    other texts); keep (nothing is done); oracle (the filler is told what is wrong: the most that it allows).
    clean_untouched is measured on the same texts without errors. Intervals are 95 % bootstrap over texts. --plot draws
    the ROC curves of the Gate and of the picker.

    \b
    dualmask eval editing --model runs/quickstart --data data/embedded/test.jsonl --json out.json --plot roc.png
    dualmask eval editing --model M --data F.jsonl --kinds typo,confuse
    """
    from dualmask.evaluation import tables, texts
    from dualmask.families.edit.evaluate import corrupted, rounds_report
    from dualmask.families.edit.evaluate import editing as suite
    from dualmask.inference.loading import load

    turns = numbers("--rounds", rounds, int, lambda number: 1 <= number <= 1000, "whole numbers from 1 on, such as 1,4")
    errors = list(dict.fromkeys([*kinds.split(","), *(["typo"] if typos else [])]))
    corrupted.corruption(corruption_rate, errors)  # what is wrong is said before a model is loaded
    lines = texts.read_texts(measured.data)
    loaded = load(measured.model, measured.device)
    right = corrupted.right_texts(lines, loaded, limit=limit, typos=not set(corrupted.GROWING).isdisjoint(errors))
    rows, curves = suite.evaluate(loaded, right, rate=corruption_rate, kinds=errors, rounds=turns)
    measured.write("editing", rows, corruption_rate=corruption_rate, kinds=errors)
    if measured.plot:
        rounds_report.plot_editing(curves, measured.plot)
    tables.show(rounds_report.editing_tables(rows))


@with_options
def adaptive(
    measured: Measured,
    rounds: Annotated[int, typer.Option(help="Most rounds.", min=2, max=100)] = 8,
    mean_span: Annotated[float, typer.Option(help="Mean tokens of a skeleton's longer holes.", min=1, max=100)] = 3.0,
    limit: Limit = 256,
) -> None:
    """Do more rounds help, and can a text's own rounds say when it has had enough?

    Drafts begin as prefixes, skeletons, corrupted and clean texts. Quality is the share of the target that is
    recovered in order. kept: quality over that of all rounds; saved: share of the rounds not played; over fixed:
    quality above that of equally many rounds for every text. Rules: unchanged (nothing was left to do, or a draft came
    back); confidence and edit_distance (the same, or a threshold is passed); entropy (the filler's alone: the
    baseline); …_shuffled (a rule's numbers of rounds, dealt to other texts). Thresholds are chosen on other texts, to
    keep 95 % of the quality.

    \b
    dualmask eval adaptive --model runs/quickstart --data data/embedded/test.jsonl --json out.json --plot out.png
    dualmask eval adaptive --model M --data F.jsonl --mean-span 12
    """
    from dualmask.evaluation import tables, texts
    from dualmask.families.edit.evaluate import adaptive as suite
    from dualmask.families.edit.evaluate import corrupted, rounds_report
    from dualmask.inference.loading import load

    lines = texts.read_texts(measured.data)
    loaded = load(measured.model, measured.device)
    right = corrupted.right_texts(lines, loaded, limit=limit, typos=False)
    rows = suite.evaluate(loaded, right, rounds=rounds, mean_span=mean_span)
    measured.write("adaptive", rows, rounds=rounds, mean_span=mean_span)
    if measured.plot:
        rounds_report.plot_adaptive(rows, measured.plot)
    tables.show(rounds_report.adaptive_tables(rows))
