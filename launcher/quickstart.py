"""``python -m launcher.quickstart``: what the quick-start run learnt. The last step of `make train`.

Evaluates on the held-out test part (once: the figures stay valid as long as the model's digest does), prints the table,
one text before → skeleton → masked → filled, and where to look further.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from typing import Any

from rich.console import Console

from dualmask.config.load import load_run
from dualmask.config.schema import RunConfig
from dualmask.evaluation import example, report, suites, texts
from dualmask.evaluation.reconstruction import RATES
from dualmask.inference.loading import Loaded, load

SEQUENCES = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="the run's YAML file")
    run = load_run(parser.parse_args().config, [])
    loaded = load(run.output)
    lines = texts.read_texts(run.data.path / "test.jsonl")
    result = figures(run, loaded, lines)
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 100)
    console.print(report.restoration_table(result["rows"], RATES))
    console.print(f"{SEQUENCES} held-out sequences; intervals and all figures: {run.output / 'results.json'}\n")
    for name, text in example.show(loaded, lines, keep_rate=0.7).items():
        console.print(f"[bold]{name:9}[/bold]", end=" ")
        console.print(text, markup=False, highlight=False)
    console.print(verdict(result["rows"]))
    console.print(where_to_look(run), markup=False)


def figures(run: RunConfig, loaded: Loaded, lines: list[str]) -> dict[str, Any]:
    """The content of results.json, measured anew only if it belongs to another model."""
    path = run.output / "results.json"
    digest = hashlib.sha256((run.output / "export" / "model.safetensors").read_bytes()).hexdigest()
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known.get("model_sha256") == digest:
            return known
    where = next(loaded.model.parameters()).device
    data = texts.batches(lines, loaded.tokenizer, loaded.config.max_length, limit=SEQUENCES, device=where)
    rows = suites.everything(loaded, data, RATES, None)
    report.plot(rows, run.output / "results.png")
    return report.write(path, "quickstart", rows, model_sha256=digest, data=str(run.data.path / "test.jsonl"))


def verdict(rows: list[dict[str, Any]]) -> str:
    """The picker at 30 % deleted against random and the best heuristic, in points (hundredths)."""
    lines = []
    for kind in ("true", "predicted"):
        value = {
            method: report.find(rows, metric="restored", method=method, gaps=kind, deleted=0.3)["value"]
            for method in report.METHODS
        }
        best = max(("frequent", "greedy"), key=value.__getitem__)
        over_random, over_best = (100 * (value["picker"] - value[other]) for other in ("random", best))
        lines.append(
            f"30 % deleted, {kind} gaps: the Picker is {over_random:+.0f} points from random "
            f"and {over_best:+.0f} from the best heuristic ({best})"
        )
    return "\n" + "\n".join(lines)


def where_to_look(run: RunConfig) -> str:
    return (
        f"\nplot:   {run.output / 'results.png'}\n"
        f"MLflow: mlflow ui --backend-store-uri {run.tracking.uri}   then open http://127.0.0.1:5000\n"
        f'try:    dualmask edit --model {run.output} --keep-rate 0.7 "This function returns the name of the file."'
    )


if __name__ == "__main__":
    main()
