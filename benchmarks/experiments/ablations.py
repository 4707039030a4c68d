"""What parts of the last stage are worth.

``python -m benchmarks.experiments.ablations --config C --from RUN --json out.json``

The last stage of a configuration is trained anew, once for each arm and seed, from the weights with which it began: the
checkpoint that RUN kept of that moment, or an exported folder. Then every arm is measured on held-out texts. An arm
that is finished is not trained again, and one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from benchmarks.experiments import trials
from benchmarks.experiments.trials import Trial, write_config
from dualmask.config.load import load_run
from dualmask.config.schema import RunConfig
from dualmask.evaluation import report, texts
from dualmask.evaluation.statistics import Row
from dualmask.families.edit.evaluate import adaptive, corrupted, editing, reconstruction
from dualmask.families.edit.evaluate.baselines import picker
from dualmask.inference.loading import load

ARMS = {
    "full": [],
    "no own-draft labels": ["stages.0.rollout.own_draft_weight=0"],
    "no random skeletons": ["stages.0.rollout.starts.skeleton=0", "stages.0.rollout.random_deletions=0"],
    "no cross-round gradient": ["stages.0.rollout.cross_round_gradient=false"],
    "no Gate cost": ["stages.0.losses.gate_cost=0"],
}
DELETED = 0.3
FIGURES: dict[str, dict[str, Any]] = {
    "restored, true gaps": {"metric": "restored", "gaps": "true"},
    "restored, predicted gaps": {"metric": "restored", "gaps": "predicted"},
    "gap F1": {"metric": "gap_f1"},
    "F0.5 of edits": {"metric": "f05", "method": "auto", "rounds": 1},
    "recall of edits": {"metric": "recall", "method": "auto", "rounds": 1},
    "clean untouched": {"metric": "clean_untouched", "method": "auto", "rounds": 1},
    "length error": {"metric": "length_error", "method": "auto", "rounds": 1},
    "Gate's ROC area": {"metric": "gate_auc", "method": "gate"},
    "Picker's ROC area": {"metric": "wrong_auc", "method": "picker"},
    "quality, 1 round": {"metric": "quality_by_rounds", "rounds": 1, "start": "all"},
    f"quality, {adaptive.ROUNDS} rounds": {"metric": "quality_by_rounds", "rounds": adaptive.ROUNDS, "start": "all"},
    "rounds saved": {"metric": "rounds_saved", "method": "confidence", "threshold": adaptive.FITTED},
    "quality kept": {"metric": "quality_kept", "method": "confidence", "threshold": adaptive.FITTED},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file of the whole run")
    parser.add_argument("--from", dest="origin", type=Path, required=True, help="the run's folder, or an exported one")
    trials.add_options(parser, runs=Path("runs/ablations"))
    parser.add_argument("--arms", default=",".join(ARMS), help="some of: %(default)s")
    parser.add_argument("--limit", type=int, default=256, help="most held-out texts; default: %(default)s")
    return trials.run_command(parser.parse_args(), run_all, lambda rows: [table(rows)], width=120)


def run_all(arguments: argparse.Namespace) -> list[Row]:
    """Trains and measures what is not there yet, and writes the result. Raises ValueError."""
    arms = arguments.arms.split(",")
    if unknown := sorted(set(arms) - set(ARMS)):
        raise ValueError(f"--arms: {unknown[0]!r} is not one of {', '.join(ARMS)}")
    run = load_run(arguments.config, arguments.set)
    init = trials.initial_weights(run, arguments.origin, arguments.runs)
    all_trials = trials.trials_of(arms, arguments)
    rows: list[Row] = []
    for number, trial in enumerate(all_trials, 1):
        print(f"{number} of {len(all_trials)}: {trial.arm}, seed {trial.seed}", file=sys.stderr, flush=True)
        rows += rows_of(trial, run, init, arguments)
    about = {"config": str(arguments.config), "origin": str(arguments.origin)}
    report.write(arguments.json, "ablations", rows, **about)
    return rows


def rows_of(trial: Trial, run: RunConfig, init: Path, arguments: argparse.Namespace) -> list[Row]:
    write_config(trial, run, init, [*ARMS[trial.arm], *trials.step_changes(arguments)])
    figures = trials.rows_of(trial, lambda run: measure(run, arguments.limit), limit=arguments.limit)
    return [{"arm": trial.arm, "seed": trial.seed, **row} for row in figures]


def measure(run: RunConfig, limit: int) -> list[Row]:
    """The FIGURES of a finished run."""
    loaded = load(run.output)
    lines = texts.read_texts(run.data.path / "test.jsonl")
    device = next(loaded.model.parameters()).device
    whole = texts.batches(lines, loaded.tokenizer, loaded.config.max_length, limit=limit, device=device)
    right = corrupted.right_texts(lines, loaded, limit=limit, typos=False)
    rows = reconstruction.evaluate(
        loaded.model, whole, lambda batch: {"picker": partial(picker, loaded.model, batch)}, [DELETED]
    )
    suites = {
        "reconstruction": rows,
        "editing": editing.evaluate(loaded, right, rate=0.1, kinds=corrupted.TOKEN_KINDS, rounds=(1,))[0],
        "adaptive": adaptive.evaluate(loaded, right),
    }
    figures = []
    for figure, dimensions in FIGURES.items():
        suite, row = next(
            (suite, row)
            for suite, rows in suites.items()
            for row in rows
            if dimensions.items() <= row.items() and "kind" not in row
        )
        figures.append({"figure": figure, "suite": suite, **row})
    return figures


def table(rows: Sequence[Row]) -> Table:
    """Figures by arm: the mean over the seeds, and each seed's."""
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    out = Table(title=f"Mean over seeds, and seeds {', '.join(map(str, seeds))}", title_justify="left", box=SIMPLE)
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    out.add_column("figure")
    for arm in arms:
        out.add_column(arm, justify="right", max_width=15)
    for figure in FIGURES:
        cells = []
        for arm in arms:
            values = [row["value"] for row in rows if row["figure"] == figure and row["arm"] == arm]
            each = " ".join(f"{value:.3f}" for value in values)
            cells.append(f"[bold]{sum(values) / len(values):.3f}[/bold]\n{each}")
        out.add_row(figure, *cells)
    return out


if __name__ == "__main__":
    sys.exit(main())
