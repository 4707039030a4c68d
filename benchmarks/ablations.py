"""What parts of the last stage are worth: ``python -m benchmarks.ablations --config C --from RUN --json out.json``.

The last stage of a configuration is trained anew, once for each arm and seed, from the weights with which it began: the
checkpoint that RUN kept of that moment, or an exported folder. Then every arm is measured on held-out texts. An arm
that is finished is not trained again, and one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from dualmask import manifest
from dualmask.config.load import load_run
from dualmask.config.schema import RunConfig
from dualmask.curriculum import first_step
from dualmask.evaluation import adaptive, corrupted, editing, reconstruction, report, texts
from dualmask.evaluation.baselines import picker
from dualmask.evaluation.statistics import Row
from dualmask.export import export_checkpoint
from dualmask.inference.folder import open_folder
from dualmask.inference.loading import load

TRAIN = Path(__file__).resolve().parents[1] / "launcher" / "train.py"
ARMS = {
    "full": [],
    "no own-draft labels": ["rollout.own_draft_weight=0"],
    "no random skeletons": ["rollout.starts.skeleton=0", "rollout.random_deletions=0"],
    "no cross-round gradient": ["rollout.cross_round_gradient=false"],
    "no Gate cost": ["losses.gate_cost=0"],
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


@dataclass(frozen=True)
class Trial:
    """One arm with one seed, in a folder of its own."""

    arm: str
    seed: int
    folder: Path  # the run's output

    @property
    def config(self) -> Path:
        return self.folder.with_suffix(".yaml")

    @property
    def result(self) -> Path:
        return self.folder.with_suffix(".json")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file of the whole run")
    parser.add_argument("--from", dest="origin", type=Path, required=True, help="the run's folder, or an exported one")
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"), help="folder of the arms' runs")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="changes one key for all arms")
    parser.add_argument("--arms", default=",".join(ARMS), help="some of: %(default)s")
    parser.add_argument("--seeds", default="1,2", help="default: %(default)s")
    parser.add_argument("--steps", type=int, help="of the stage; default: as configured")
    parser.add_argument("--limit", type=int, default=256, help="most held-out texts; default: %(default)s")
    asked = parser.parse_args()
    try:
        rows = run_all(asked)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report.write(asked.json, "ablations", rows, config=str(asked.config), origin=str(asked.origin))
    Console(width=None if sys.stdout.isatty() else 120).print(table(rows))
    return 0


def run_all(asked: argparse.Namespace) -> list[Row]:
    """Trains and measures what is not there yet. Raises ValueError."""
    arms, seeds = asked.arms.split(","), [int(seed) for seed in asked.seeds.split(",")]
    if unknown := sorted(set(arms) - set(ARMS)):
        raise ValueError(f"--arms: {unknown[0]!r} is not one of {', '.join(ARMS)}")
    run = load_run(asked.config, asked.set)
    init = beginning(run, asked.origin, asked.runs)
    steps = [f"steps={asked.steps}"] if asked.steps else []
    trials = [
        Trial(arm, seed, asked.runs / f"{arm.replace(' ', '-')}-{seed}".lower()) for seed in seeds for arm in arms
    ]
    rows = []
    for number, trial in enumerate(trials, 1):
        print(f"{number} of {len(trials)}: {trial.arm}, seed {trial.seed}", file=sys.stderr, flush=True)
        write_config(trial, run, init, steps)
        rows += play(trial, asked.limit)
    return rows


def beginning(run: RunConfig, origin: Path, runs: Path) -> Path:
    """The folder with the weights that the last stage began with. Raises ValueError."""
    if not (origin / "checkpoints").is_dir():
        return open_folder(origin).path
    step = first_step(run.stages, len(run.stages) - 1)
    checkpoint = origin / "checkpoints" / f"step-{step:08d}"
    if trouble := manifest.problem(checkpoint):
        raise ValueError(
            f"--from {origin}: the checkpoint of step {step}, where stage {run.stages[-1].name} begins, cannot be used "
            f"({trouble}); train with a higher checkpoint.keep_last, or give an exported folder of that moment"
        )
    folder = runs / "beginning"
    export_checkpoint(checkpoint, folder)
    return folder


def write_config(trial: Trial, run: RunConfig, init: Path, steps: Sequence[str]) -> None:
    """The YAML file of one arm: the last stage alone, changed as the arm says. Raises ValueError."""
    tree = run.model_dump(mode="json")
    tree |= {"name": trial.folder.name, "output": str(trial.folder), "seed": trial.seed, "init": str(init)}
    tree |= {"stages": tree["stages"][-1:], "tracking": {"enabled": False}}
    tree["data"]["shuffle_seed"] = trial.seed
    trial.config.parent.mkdir(parents=True, exist_ok=True)
    trial.config.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    changes = [f"stages.0.{change}" for change in [*ARMS[trial.arm], *steps]]
    changed = load_run(trial.config, changes).model_dump(mode="json")
    trial.config.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")


def play(trial: Trial, limit: int) -> list[Row]:
    """The figures of one arm, trained and measured if they are not there. Raises ValueError where training fails."""
    run = load_run(trial.config)
    about = {"config": run.model_dump(mode="json"), "limit": limit}
    if trial.result.is_file():
        known = json.loads(trial.result.read_text(encoding="utf-8"))
        if {name: known.get(name) for name in about} == about:
            return list(known["rows"])
    command = [sys.executable, str(TRAIN), "--config", str(trial.config), "--resume", "auto"]
    if subprocess.run(command, check=False).returncode:
        raise ValueError(f"{trial.arm}, seed {trial.seed}: training failed, see above; it goes on from there next time")
    rows = [{"arm": trial.arm, "seed": trial.seed, **row} for row in measure(run, limit)]
    report.write(trial.result, "ablation", rows, **about)
    return rows


def measure(run: RunConfig, limit: int) -> list[Row]:
    """The FIGURES of a finished run."""
    loaded = load(run.output)
    lines = texts.read_texts(run.data.path / "test.jsonl")
    where = next(loaded.model.parameters()).device
    whole = texts.batches(lines, loaded.tokenizer, loaded.config.max_length, limit=limit, device=where)
    right = corrupted.right_texts(lines, loaded, limit=limit, typos=False)
    rows = reconstruction.evaluate(loaded.model, whole, {"picker": picker(loaded.model)}, [DELETED])
    suites = {
        "reconstruction": rows,
        "editing": editing.evaluate(loaded, right, rate=0.1, kinds=corrupted.TOKEN_KINDS, rounds=(1,))[0],
        "adaptive": adaptive.evaluate(loaded, right),
    }
    found = []
    for figure, wanted in FIGURES.items():
        suite, row = next(
            (suite, row)
            for suite, rows in suites.items()
            for row in rows
            if wanted.items() <= row.items() and "kind" not in row
        )
        found.append({"figure": figure, "suite": suite, **row})
    return found


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
