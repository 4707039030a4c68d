"""What parts of the recipe are worth.

``python -m benchmarks.experiments.ablations --config C --json out.json``
``python -m benchmarks.experiments.ablations --config C --from RUN --json out.json``

All stages of a configuration are trained anew, once for each arm and seed. With RUN it is the last stage alone, from
the weights with which it began: the checkpoint that RUN kept of that moment, or an exported folder. Then every arm is
measured on held-out texts. An arm that is finished is not trained again, and one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from benchmarks.experiments import trials
from benchmarks.experiments.trials import write_config
from dualmask.config.load import load_run
from dualmask.config.schema import RunConfig
from dualmask.evaluation import report, texts
from dualmask.evaluation.statistics import Row
from dualmask.families.edit.evaluate import adaptive, corrupted, editing, everyday, reconstruction
from dualmask.families.edit.evaluate.baselines import picker
from dualmask.families.edit.infer.text import Writer
from dualmask.inference.loading import load

Changes = Callable[[RunConfig], list[str]]
ARMS: dict[str, list[str]] = {  # of the last stage
    "full": [],
    "no own-draft labels": ["stages.0.rollout.own_draft_weight=0"],
    "no random skeletons": ["stages.0.rollout.starts.skeleton=0", "stages.0.rollout.random_deletions=0"],
    "no cross-round gradient": ["stages.0.rollout.cross_round_gradient=false"],
    "no Gate cost": ["stages.0.losses.gate_cost=0"],
}
ADAMW_LR = 0.5  # of Muon's; not searched
ADAMW_STEPS = 1.15  # as many more fit into the time of Muon's, as the profile of a step on two cores has it
RECIPE: dict[str, Changes] = {
    "full": lambda run: [],
    "no doubt in stage filler": lambda run: _of(run, "filler", "losses.doubt=0"),
    "not told what is deleted": lambda run: _of(run, "picker joint", "rollout.told_deletions=0"),
    "random tokens as mistakes": lambda run: _without_people(run),
    "AdamW": lambda run: _with_adamw(run),
}
DELETED = 0.3
ROUNDS = 8  # of `auto` on everyday sentences
FIGURES: dict[str, dict[str, Any]] = {
    "restored, true gaps": {"metric": "restored", "gaps": "true"},
    "restored, predicted gaps": {"metric": "restored", "gaps": "predicted"},
    "gap F1": {"metric": "gap_f1"},
    "F0.5 of edits": {"metric": "f05", "method": "auto", "rounds": 1},
    "precision of edits": {"metric": "precision", "method": "auto", "rounds": 1},
    "recall of edits": {"metric": "recall", "method": "auto", "rounds": 1},
    "clean untouched": {"metric": "clean_untouched", "method": "auto", "rounds": 1},
    "length error": {"metric": "length_error", "method": "auto", "rounds": 1},
    "Gate's ROC area": {"metric": "gate_auc", "method": "gate"},
    "Picker's ROC area": {"metric": "wrong_auc", "method": "picker"},
    "quality, 1 round": {"metric": "quality_by_rounds", "rounds": 1, "start": "all"},
    f"quality, {adaptive.ROUNDS} rounds": {"metric": "quality_by_rounds", "rounds": adaptive.ROUNDS, "start": "all"},
    "rounds saved": {"metric": "rounds_saved", "method": "confidence", "threshold": adaptive.FITTED},
    "quality kept": {"metric": "quality_kept", "method": "confidence", "threshold": adaptive.FITTED},
    "everyday, better": {"metric": "better", "method": "auto"},
    "everyday, worse": {"metric": "worse", "method": "auto"},
    "doubled words mended": {"metric": "doubled_mended", "method": "auto"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file of the whole run")
    parser.add_argument("--from", dest="origin", type=Path, help="a run's folder, or an exported one: last stage alone")
    trials.add_options(parser, runs=Path("runs/ablations"))
    parser.add_argument("--arms", help=f"some of: {','.join(RECIPE)}; with --from: {','.join(ARMS)}; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="of all steps, without --from; default: %(default)s")
    parser.add_argument("--limit", type=int, default=256, help="most held-out texts; default: %(default)s")
    return trials.run_command(parser.parse_args(), run_all, lambda rows: [table(rows)], width=120)


def run_all(arguments: argparse.Namespace) -> list[Row]:
    """Trains and measures what is not there yet, and writes the result. Raises ValueError."""
    run = load_run(arguments.config, arguments.set)
    changes = changes_of(run, arguments)
    arms = arguments.arms.split(",") if arguments.arms else list(changes)
    if unknown := sorted(set(arms) - set(changes)):
        raise ValueError(f"--arms: {unknown[0]!r} is not one of {', '.join(changes)}")
    init = trials.initial_weights(run, arguments.origin, arguments.runs) if arguments.origin else None
    all_trials = trials.trials_of(arms, arguments)
    rows: list[Row] = []
    for number, trial in enumerate(all_trials, 1):
        print(f"{number} of {len(all_trials)}: {trial.arm}, seed {trial.seed}", file=sys.stderr, flush=True)
        write_config(trial, run, init, changes[trial.arm], trials.LAST_STAGE if init else slice(None))
        figures = trials.rows_of(trial, lambda run: measure(run, arguments.limit), limit=arguments.limit)
        rows += [{"arm": trial.arm, "seed": trial.seed, **row} for row in figures]
    about = {"config": str(arguments.config), "origin": str(arguments.origin)}
    report.write(arguments.json, "ablations", rows, **about)
    return rows


def changes_of(run: RunConfig, arguments: argparse.Namespace) -> Mapping[str, list[str]]:
    """By arm, as ``trials.write_config`` takes them."""
    if arguments.origin:
        return {arm: [*changes, *trials.step_changes(arguments)] for arm, changes in ARMS.items()}
    scales = {arm: arguments.scale * (ADAMW_STEPS if arm == "AdamW" else 1.0) for arm in RECIPE}
    return {arm: [*changes(run), *_scaled(run, scales[arm])] for arm, changes in RECIPE.items()}


def _scaled(run: RunConfig, scale: float) -> list[str]:
    steps = {"steps": lambda stage: stage.steps, "lr.warmup_steps": lambda stage: stage.lr.warmup_steps}
    return [
        f"stages.{number}.{key}={max(1, round(scale * of(stage)))}"
        for number, stage in enumerate(run.stages)
        for key, of in steps.items()
    ]


def _of(run: RunConfig, names: str, *changes: str) -> list[str]:
    """The changes, in each stage of one of the names."""
    numbers = [number for number, stage in enumerate(run.stages) if stage.name in names.split()]
    return [f"stages.{number}.{change}" for number in numbers for change in changes]


def _without_people(run: RunConfig) -> list[str]:
    """Mistakes that people make are other tokens of the text instead."""
    changes = []
    for number, stage in enumerate(run.stages):
        for key in ("corruption", "rollout.corruption"):
            section = attrgetter(key)(stage) if hasattr(stage, key.partition(".")[0]) else None
            if section is not None:
                changes += [f"stages.{number}.{key}.confuse=0"]
                changes += [f"stages.{number}.{key}.substitute={section.substitute + section.confuse}"]
    return changes


def _with_adamw(run: RunConfig) -> list[str]:
    peaks = [f"stages.{number}.lr.peak={ADAMW_LR * stage.lr.peak}" for number, stage in enumerate(run.stages)]
    return ["optimizer.name=adamw", *peaks]


def measure(run: RunConfig, limit: int) -> list[Row]:
    """The FIGURES of a finished run."""
    loaded = load(run.output)
    lines = texts.read_texts(run.data.folder / "test.jsonl")
    device = next(loaded.model.parameters()).device
    whole = texts.batches(lines, loaded.tokenizer, loaded.config.max_length, limit=limit, device=device)
    right = corrupted.right_texts(lines, loaded, limit=limit, typos=False)
    rows = reconstruction.evaluate(
        loaded.model, whole, lambda batch: {"picker": partial(picker, loaded.model, batch)}, [DELETED]
    )
    sentences = everyday.read_cases(everyday.CASES), everyday.read_sentences(everyday.SENTENCES)
    suites = {
        "everyday": everyday.evaluate({"auto": everyday.model(Writer(loaded), ROUNDS)}, *sentences)[0],
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
