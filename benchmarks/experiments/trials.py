"""Arms of a comparison: a run's last stage, trained anew for each arm and seed from the same weights, then measured."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from dualmask.config.load import load_run
from dualmask.config.schema import RunConfig
from dualmask.core import manifest
from dualmask.curriculum import first_step
from dualmask.evaluation import report
from dualmask.evaluation.statistics import Row
from dualmask.inference.folder import open_folder
from dualmask.training.export import export_checkpoint

TRAIN = Path(__file__).resolve().parents[2] / "launcher" / "train.py"
LAST_STAGE = slice(-1, None)


@dataclass(frozen=True)
class Trial:
    """One arm with one seed, in a folder of its own."""

    arm: str
    seed: int
    folder: Path  # the run's output

    @classmethod
    def of(cls, arm: str, seed: int, runs: Path) -> Trial:
        words = arm.lower().replace(",", "").split()
        return cls(arm, seed, runs / "-".join([*words, str(seed)]))

    @property
    def config(self) -> Path:
        return self.folder.with_suffix(".yaml")

    @property
    def result(self) -> Path:
        return self.folder.with_suffix(".json")


def add_options(parser: argparse.ArgumentParser, *, runs: Path) -> None:
    """The options that every comparison of arms has."""
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--runs", type=Path, default=runs, help="folder of the arms' runs; default: %(default)s")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="changes one key for all arms")
    parser.add_argument("--seeds", default="1,2", help="default: %(default)s")
    parser.add_argument("--steps", type=int, help="of the last stage; default: as configured")


def run_command(
    arguments: argparse.Namespace,
    run_all: Callable[[argparse.Namespace], list[Row]],
    tables: Callable[[list[Row]], Sequence[Table]],
    width: int,
) -> int:
    """Exit code of a comparison: its tables are printed, or one line that says what cannot be done.

    ``width`` of a table where the output is not a terminal.
    """
    try:
        rows = run_all(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else width)
    for table in tables(rows):
        console.print(table)
    return 0


def trials_of(arms: Sequence[str], arguments: argparse.Namespace) -> list[Trial]:
    """Seed by seed. Raises ValueError."""
    return [Trial.of(arm, seed, arguments.runs) for seed in seeds_of(arguments.seeds) for arm in arms]


def step_changes(arguments: argparse.Namespace) -> list[str]:
    """Of ``--steps``, as ``write_config`` takes them."""
    return [f"stages.0.steps={arguments.steps}"] if arguments.steps else []


def seeds_of(text: str) -> list[int]:
    """Of ``--seeds``. Raises ValueError."""
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise ValueError(f"--seeds {text}: give whole numbers with commas between them, such as 1,2") from None


def initial_weights(run: RunConfig, origin: Path, runs: Path) -> Path:
    """The folder with the weights that the last stage began with. Raises ValueError.

    origin: a run's folder, which kept the checkpoint of that moment, or an exported folder.
    """
    if not (origin / "checkpoints").is_dir():
        return open_folder(origin, run.model.family).path
    step = first_step(run.stages, len(run.stages) - 1)
    checkpoint = origin / "checkpoints" / f"step-{step:08d}"
    if problem := manifest.problem(checkpoint):
        raise ValueError(
            f"{origin}: the checkpoint of step {step}, where stage {run.stages[-1].name} begins, cannot be used "
            f"({problem}); train with a higher checkpoint.keep_last, or give an exported folder of that moment"
        )
    folder = runs / "beginning"
    export_checkpoint(checkpoint, folder)
    return folder


def write_config(
    trial: Trial, run: RunConfig, init: Path | None, changes: Sequence[str], stages: slice = LAST_STAGE
) -> None:
    """The YAML file of one arm: some stages alone, then changed as the arm says (``stages.0.…``). Raises ValueError."""
    tree = run.model_dump(mode="json")
    tree |= {"name": trial.folder.name, "output": str(trial.folder), "seed": trial.seed}
    tree |= {"stages": tree["stages"][stages], "tracking": {"enabled": False}}
    tree |= {"init": str(init)} if init else {}
    tree["data"]["shuffle_seed"] = trial.seed
    trial.config.parent.mkdir(parents=True, exist_ok=True)
    trial.config.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    changed = load_run(trial.config, changes).model_dump(mode="json")
    trial.config.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")


def train(trial: Trial) -> None:
    """To the end, or on to it. Raises ValueError where training fails."""
    command = [sys.executable, str(TRAIN), "--config", str(trial.config), "--resume", "auto"]
    if subprocess.run(command, check=False).returncode:
        raise ValueError(f"{trial.arm}, seed {trial.seed}: training failed, see above; it goes on from there next time")


def rows_of(trial: Trial, measure: Callable[[RunConfig], list[Row]], **about: Any) -> list[Row]:
    """The rows of one arm, trained and measured if they are not there. ``about``: what else they depend on.

    Raises ValueError where training fails.
    """
    run = load_run(trial.config)
    about |= {"config": run.model_dump(mode="json")}
    if trial.result.is_file():
        finished = json.loads(trial.result.read_text(encoding="utf-8"))
        if {name: finished.get(name) for name in about} == about:
            return list(finished["rows"])
    train(trial)
    return list(report.write(trial.result, "trial", measure(run), **about)["rows"])
