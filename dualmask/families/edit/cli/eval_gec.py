"""``dualmask eval gec``: are sentences corrected as people correct them?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualmask.inference.folder import PRETRAINED
from dualmask.serving.eval_options import Measured
from dualmask.serving.options import MODEL


def gec(
    *,
    model: Annotated[Path, MODEL] = PRETRAINED,
    data: Annotated[
        Path, typer.Option(metavar="F", help='jsonl, a {"text": …, "references": [… ]} a line.', show_default=False)
    ],
    rounds: Annotated[int, typer.Option(help="Most rounds of `auto`.", min=1, max=1000)] = 8,
    limit: Annotated[
        int | None, typer.Option(help="Most sentences, spread over the data. Default: all.", min=2, show_default=False)
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Result file to write.", show_default=False)] = None,
    show: Annotated[bool, typer.Option("--show", help="Print what became of each sentence that was changed.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Are sentences corrected as people correct them?

    The sentences come with one or several corrections each, words and marks apart by spaces, as in JFLEG or CoNLL-2014.
    gleu: see Napoles et al. 2015, mean over references; f05, precision, recall: of edits of words, by the best
    reference of each sentence; better, worse: share of sentences that came nearer to their nearest reference, or went
    away from it. Methods: auto; auto_tuned (its thresholds chosen on the other half of the sentences); keep (nothing is
    done); doubled_rule (of two equal neighbouring words the second is dropped); speller (symspellpy). Then the median
    time for 60 characters on one core, and the size of the weights. Intervals are 95 % bootstrap over sentences.

    \b
    dualmask eval gec --data jfleg-dev.jsonl --json gec.json --show
    """
    from dualmask.evaluation import tables
    from dualmask.families.edit.evaluate import everyday, gec_model, gec_report
    from dualmask.families.edit.evaluate import gec as suite
    from dualmask.families.edit.evaluate.speller import speller
    from dualmask.families.edit.infer.text import Writer
    from dualmask.inference.loading import load
    from dualmask.serving.texts import print_text

    sentences = suite.read_sentences(data, limit)
    texts = [sentence.text for sentence in sentences]
    spelt = speller()(texts)  # says what is missing before a model is loaded
    loaded = load(model, device)
    writer = Writer(loaded)
    outputs = {"auto": gec_model.run(writer, texts, rounds)}
    outputs["auto_tuned"], points = gec_model.tuned(loaded, sentences, rounds)
    outputs |= {"keep": texts, "doubled_rule": everyday.doubled_rule(texts), "speller": spelt}
    rows = [*suite.evaluate(outputs, sentences), *gec_model.cost_rows(loaded, writer, texts, rounds)]
    Measured(model, data, json_out, device=device).write("gec", rows, rounds=rounds, points=[vars(p) for p in points])
    if show:
        for sentence, text in zip(sentences, outputs["auto_tuned"], strict=True):
            if text != sentence.text:
                print_text(f"{suite.gained(sentence, text):+} {sentence.text} → {text}", one_line=True)
    tables.show(gec_report.gec_tables(rows))
