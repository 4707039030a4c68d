"""``python -m launcher.quickstart``: what the quick-start run learnt. The last step of `make train`.

Evaluates on the held-out test part (once: the figures stay valid as long as the model's digest does), prints what came
of it, one text before → skeleton → masked → filled, another one from round to round, and where to look further.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dualmask.config.load import load_run
from dualmask.config.schema import RunConfig
from dualmask.core.manifest import write_file
from dualmask.evaluation import report, texts
from dualmask.evaluation.statistics import Row
from dualmask.evaluation.tables import BOXED, interval, make_table
from dualmask.families.edit.cli.page import trace_page
from dualmask.families.edit.evaluate import (
    adaptive,
    corrupted,
    deletion_report,
    deletion_suites,
    editing,
    everyday,
    example,
    rounds_report,
)
from dualmask.families.edit.evaluate.reconstruction import RATES
from dualmask.families.edit.infer.text import TextResult, Writer
from dualmask.inference.folder import weights_digest
from dualmask.inference.loading import Loaded, load

SEQUENCES = 512
TEXTS = 128  # of the suites that play rounds
ROUNDS = 8  # most of them, as `dualmask auto` has it
WORST_SHOWN = 2
RULE = "confidence"  # the stop rule that is reported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="the run's YAML file")
    run = load_run(parser.parse_args().config, [])
    loaded = load(run.output)
    lines = texts.read_texts(run.data.folder / "test.jsonl")
    result = figures(run, loaded, lines)
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 100)
    console.print(deletion_report.restoration_table(result["rows"], RATES))
    console.print(f"{SEQUENCES} held-out sequences; intervals and all figures: {run.output / 'results.json'}")
    console.print(verdict(result["rows"]))
    show(console, "One round, 30 % deleted", example.show(loaded, lines, keep_rate=0.7))
    console.print(rounds_table(result["rows"]))
    console.print(everyday_table(result["rows"]))
    show(console, "What it mends (dualmask auto), of those sentences", dict(result["mended"]))
    examples = example.auto_rounds(loaded, lines)
    write_file(run.output / "example.html", trace_page(examples, gate_threshold=0.5))
    show(console, "Round by round, as the Gate decides (dualmask auto)", from_round_to_round(examples[0]))
    console.print(where_to_look(run), markup=False)


def figures(run: RunConfig, loaded: Loaded, lines: list[str]) -> dict[str, Any]:
    """The content of results.json, measured anew only if it belongs to another model."""
    path = run.output / "results.json"
    digest = weights_digest(run.output, run.model.family)
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known.get("model_sha256") == digest:
            return known
    device = next(loaded.model.parameters()).device
    data = texts.batches(lines, loaded.tokenizer, loaded.config.max_length, limit=SEQUENCES, device=device)
    restored = deletion_suites.evaluate("quickstart", loaded, data, RATES)
    deletion_report.plot(restored, run.output / "results.png")
    right = corrupted.right_texts(lines, loaded, limit=TEXTS, typos=False)
    edited, curves = editing.evaluate(loaded, right, rate=0.1, kinds=corrupted.TOKEN_KINDS, rounds=(1,))
    rounds_report.plot_editing(curves, run.output / "editing.png")
    ordinary, mended = everyday_sentences(loaded)
    stopped = adaptive.evaluate(loaded, right)
    rounds_report.plot_adaptive(stopped, run.output / "adaptive.png")
    rows = [
        {"suite": suite, **row}
        for suite, part in {
            "quickstart": restored,
            "editing": edited,
            "everyday": ordinary,
            "adaptive": stopped,
        }.items()
        for row in part
    ]
    data_file = str(run.data.folder / "test.jsonl")
    return report.write(path, "quickstart", rows, model_sha256=digest, data=data_file, mended=mended)


def everyday_sentences(loaded: Loaded) -> tuple[list[Row], list[tuple[str, str]]]:
    """The rows of the suite, and a few of the wrong sentences with what they became: such as were put right exactly, of
    as many kinds of errors as there are, and such as were made worse, if there are any."""
    auto = everyday.model(Writer(loaded), ROUNDS)
    cases, sentences = everyday.read_cases(everyday.CASES), everyday.read_sentences(everyday.SENTENCES)
    rows, outcomes = everyday.evaluate({"auto": auto}, cases, sentences)
    right = [outcome for outcome in outcomes["auto"] if outcome.exact and not outcome.unchanged]
    by_kind = {outcome.case.kind: outcome for outcome in reversed(right)}
    worse = [outcome for outcome in outcomes["auto"] if outcome.worse][:WORST_SHOWN]
    return rows, [(outcome.case.wrong, outcome.output) for outcome in [*by_kind.values(), *worse]]


def verdict(rows: Sequence[Row]) -> str:
    """By how many points (hundredths) the picker is ahead of the best heuristic, with intervals."""
    lines = []
    for kind in ("true", "predicted"):
        shares = []
        for rate in RATES:
            ahead = [
                report.find(rows, metric="picker_ahead", method=method, gaps=kind, deleted=rate)
                for method in ("frequent", "greedy")
            ]
            least = min(ahead, key=lambda row: row["value"])
            value, low, high = (100 * least[name] for name in ("value", "lo", "hi"))
            shares.append(f"{value:+.1f} ({low:.1f} … {high:.1f}) at {rate:.0%}")
        lines.append(f"Picker over the best heuristic, {kind} gaps: {', '.join(shares)}, in points")
    return "\n".join(lines)


def rounds_table(rows: Sequence[Row]) -> Table:
    """What Gate, rounds and early stopping do."""

    def value(metric: str, **dimensions: object) -> str:
        row = report.find(rows, metric=metric, **dimensions)
        return f"{row['value']:.3f}  ({interval(row)})"

    title = f"Edits and rounds ({TEXTS} held-out texts, 10 % of the tokens corrupted)"
    table = make_table(title, ["figure", "value (95 % interval)"], left=(0, 1), **BOXED)
    for method in ("auto", "filler_threshold"):
        table.add_row(f"F0.5 of edits, {method}", value("f05", suite="editing", method=method, rounds=1))
        table.add_row(f"clean text untouched, {method}", value("clean_untouched", method=method, rounds=1))
    table.add_row("length error, auto", value("length_error", suite="editing", method="auto", rounds=1))
    table.add_row("ROC area of the Gate, corrupted or clean text", value("gate_auc", method="gate"))
    table.add_row("ROC area of the Picker, wrong or right token", value("wrong_auc", method="picker"))
    for number in (0, 1, 2, adaptive.ROUNDS):
        table.add_row(f"quality after {number} rounds", value("quality_by_rounds", rounds=number, start="all"))
    for metric, words in {"rounds_saved": "share of rounds saved", "quality_kept": "share of quality kept"}.items():
        table.add_row(f"{words}, rule {RULE}", value(metric, method=RULE, threshold=adaptive.FITTED))
    return table


def everyday_table(rows: Sequence[Row]) -> Table:
    """What becomes of ordinary sentences."""
    title = "Everyday errors (sentences of the suite everyday, which no corpus contains)"
    table = make_table(title, ["share of", "value (95 % interval)"], left=(0, 1), **BOXED)
    names = {
        "better": "wrong sentences that became better",
        "worse": "wrong sentences that became worse",
        "clean_untouched": "right sentences that stayed as they are",
        "doubled_mended": "doubled words that were mended",
    }
    whole = [row for row in rows if row["suite"] == "everyday" and "kind" not in row]
    for metric, words in names.items():
        row = report.find(whole, metric=metric)
        table.add_row(words, f"{row['value']:.3f}  ({interval(row)})")
    return table


def from_round_to_round(result: TextResult) -> dict[str, str]:
    """The drafts by name."""
    drafts = {"draft": result.draft}
    for done, draft in example.drafts(result):
        drafts[f"round {done['round']}, gate {done['gate']:.2f}"] = draft
    return drafts


def show(console: Console, title: str, lines: dict[str, str]) -> None:
    console.print(f"\n{title}")
    width = max(map(len, lines), default=0)
    for name, text in lines.items():
        console.print(f"[bold]{name:{width}}[/bold]", end=" ")
        console.print(text, markup=False, highlight=False)


def where_to_look(run: RunConfig) -> str:
    return (
        f"\nplots:  {run.output / 'results.png'}, editing.png, adaptive.png\n"
        f"rounds: {run.output / 'example.html'} shows three texts from round to round\n"
        f"MLflow: mlflow ui --backend-store-uri {run.tracking.uri}   then open http://127.0.0.1:5000\n"
        f'try:    dualmask auto --model {run.output} "This function returns the name name of file."'
    )


if __name__ == "__main__":
    main()
