"""Searches keys of a run: ``python -m launcher.sweep --config X.yaml --space space.yaml``.

Ray Tune draws the keys, each trial is a real training process that is judged while it runs, and ASHA stops those that
fall behind.

A trial that is stopped has written a checkpoint: started again, it goes on. Everything listens on 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from data_pipeline.cluster import running_ray
from data_pipeline.manifest import ManifestError
from dualmask.config.load import ConfigError, load_run
from dualmask.config.schema import RunConfig
from dualmask.config.tree import read_tree, show
from dualmask.core import manifest
from dualmask.curriculum import total_steps
from dualmask.evaluation import tables
from dualmask.training.tracking import SweepRun
from launcher.preflight import Preflight, check
from launcher.trial import Job, Trial, trial_row

KINDS = {"loguniform": "two numbers above 0, the lower first", "uniform": "two numbers, the lower first"}
Space = dict[str, tuple[str, list[Any]]]  # key → (loguniform | uniform | choice | grid, bounds or values)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        return sweep(options)
    except (ConfigError, ManifestError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="YAML file of the run; it needs eval.every_steps")
    parser.add_argument("--space", required=True, help="YAML: key of the run → {loguniform|uniform|choice|grid: [...]}")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="changes one key in every trial")
    parser.add_argument(
        "--samples", type=int, default=8, metavar="N", help="trials, for each point of the grid (default: 8)"
    )
    parser.add_argument("--concurrent", type=int, default=1, metavar="M", help="trials at the same time (default: 1)")
    parser.add_argument("--metric", help="which dev figure is searched for (default: eval.metric, else dev_loss)")
    parser.add_argument("--grace", type=int, metavar="STEPS", help="of a trial before it may be stopped (a quarter)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--out", type=Path, help="a new folder (default: the run's output with -sweep behind it)")
    options = parser.parse_args(arguments)
    for name in ("samples", "concurrent"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: give 1 or more")
    return options


def sweep(options: argparse.Namespace) -> int:
    """0 if a trial has come to a result, else 1."""
    run = load_run(options.config, options.set)
    metric = options.metric or run.eval.metric or "dev_loss"
    ready = require_judged(options, run, metric)
    space = read_space(options.space, options.config, options.set)
    out = options.out or run.output.with_name(f"{run.output.name}-sweep")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty: give another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    parent = SweepRun(run, data_digest=ready.data_digest) if run.tracking.enabled else None
    job = Job(
        config=str(Path(options.config).resolve()),
        overrides=(*options.set, *([f"tracking.parent={parent.id}"] if parent and parent.id else [])),
        keys=tuple(space),
        metric=metric,
        name=run.name,
        out=str(out.resolve()),
        where=os.getcwd(),
        threads=max((os.cpu_count() or 1) // options.concurrent, 1),
    )
    higher = run.family.dev_figures[metric] == "max"
    search(job, space, options, total_steps(run.stages), higher)
    rows = [trial_row(folder, metric, run.stages[-1].name, higher) for folder in sorted(out.glob("trial-*"))]
    judged = sorted((row for row in rows if row["value"] is not None), key=lambda row: row["value"], reverse=higher)
    best = judged[0] if judged else {"keys": {}, "value": None}
    report([*judged, *(row for row in rows if row["value"] is None)], best, job)
    if parent:
        parent.close(best["keys"], metric, best["value"])
    return 0 if judged else 1


def require_judged(options: argparse.Namespace, run: RunConfig, metric: str) -> Preflight:
    """Raises ConfigError or ManifestError for what would end every trial."""
    if run.eval.every_steps is None:
        raise ConfigError(
            f"{options.config}: a sweep compares evaluations: set eval.every_steps (--set eval.every_steps=N)"
        )
    if metric not in run.family.dev_figures:
        known = ", ".join(run.family.dev_figures)
        raise ConfigError(f"--metric {metric} is not measured in family {run.family.name}: give {known}")
    return check(options.config, options.set, None, world=1)


def read_space(path: str, config: str, overrides: list[str]) -> Space:
    """The keys to search. Every bound and choice is tried on the run. Raises ConfigError."""
    tree = read_tree(path)
    if not isinstance(tree, dict) or not tree:
        raise ConfigError(f"{path}: holds {show(tree)}, not `key: {{loguniform: [low, high]}}` lines")
    space: Space = {}
    for key, entry in tree.items():
        kind, values = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else ("", None)
        if kind not in (*KINDS, "choice", "grid") or not isinstance(values, list) or not values:
            raise ConfigError(f"{path}: {key} = {show(entry)}: give {{loguniform|uniform|choice|grid: [...]}}")
        if kind in KINDS and not _are_bounds(values, positive=kind == "loguniform"):
            raise ConfigError(f"{path}: {key}.{kind} = {show(values)}: give {KINDS[kind]}")
        for value in values:
            load_run(config, [*overrides, f"{key}={json.dumps(value)}"])
        space[str(key)] = (kind, values)
    return space


def _are_bounds(values: list[Any], *, positive: bool) -> bool:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return numbers and len(values) == 2 and values[0] < values[1] and (values[0] > 0 or not positive)


def search(job: Job, space: Space, options: argparse.Namespace, steps: int, higher: bool) -> None:
    """Runs all trials; what they came to stands in their folders."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # what a trial did stands in its own folder
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # which would print tables of its own
    with running_ray(options.concurrent), tempfile.TemporaryDirectory() as aside:
        import ray  # not before: it would listen on all interfaces (data_pipeline/cluster.py)
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.basic_variant import BasicVariantGenerator

        draws: dict[str, Any] = {
            "loguniform": lambda values: tune.loguniform(*values),
            "uniform": lambda values: tune.uniform(*values),
            "choice": tune.choice,
            "grid": tune.grid_search,
        }
        gpus = min(1.0, ray.cluster_resources().get("GPU", 0) / options.concurrent)
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trainable(), job=job), {"cpu": 1, "gpu": gpus}),
            param_space={key: draws[kind](values) for key, (kind, values) in space.items()},
            tune_config=tune.TuneConfig(
                metric=job.metric,
                mode="max" if higher else "min",
                num_samples=options.samples,
                search_alg=BasicVariantGenerator(max_concurrent=options.concurrent, random_state=options.seed),
                scheduler=ASHAScheduler(
                    time_attr="step", max_t=steps, grace_period=options.grace or max(steps // 4, 1), reduction_factor=3
                ),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=aside,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial writes its own
            ),
        )
        tuner.fit()


def _trainable() -> type:
    """A trial as Ray Tune knows it."""
    from ray import tune

    class Tuned(tune.Trainable):
        def setup(self, config: dict[str, Any], job: Job) -> None:
            self.trial = Trial(job, int(self.trial_id.rpartition("_")[2]), config)

        def step(self) -> dict[str, Any]:
            return self.trial.next()

        def cleanup(self) -> None:
            self.trial.stop()

    return Tuned


def report(rows: list[dict[str, Any]], best: dict[str, Any], job: Job) -> None:
    """Prints the trials, the best first, and writes OUT/sweep.json."""
    table = tables.make_table(f"{job.metric} on the dev part", ["trial", *job.keys, job.metric, "steps", "status"])
    for row in rows:
        drawn = (row["keys"][key] for key in job.keys)
        keys = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in drawn)
        value = "–" if row["value"] is None else f"{row['value']:.4f}"
        table.add_row(row["trial"], *keys, value, str(row["steps"]), row["status"])
    tables.show([table])
    content = {"metric": job.metric, "value": best["value"], "best": best["keys"], "trials": rows}
    manifest.write_file(Path(job.out) / "sweep.json", json.dumps(content, indent=1) + "\n")
    if best["keys"]:
        print("best: " + " ".join(f"--set {key}={json.dumps(value)}" for key, value in best["keys"].items()))


if __name__ == "__main__":
    sys.exit(main())
