"""What a run will need, with nothing started: ``python -m launcher.plan --config X.yaml --nodes N --gpus-per-node M``.

Parameters by module, operations of a step and bytes of a rank by stage. Formulas stand in dualmask/planning; here they
are printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_pipeline.manifest import Manifest
from dualmask.config.deepspeed import micro_batches
from dualmask.config.load import ConfigError, load_run
from dualmask.config.schema import RunConfig, StageConfig
from dualmask.evaluation.report import write
from dualmask.planning.flops import Shape, step_cost
from dualmask.planning.memory import memory
from dualmask.planning.parameters import by_module, parameters

Row = dict[str, Any]
ASSUMED = (
    "texts and drafts are full length (data.crop_share, prefix and empty starts shorten some of them)",
    "operations are those of matrix products at the end of the stage; attention counts every pair of places",
    "schedules at their mean; later rounds have as many holes as the first; prefix and empty starts one full gap",
    "bytes of what torch gives out; what its caching allocator, CUDA itself and NCCL need comes on top",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="plan", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="changes one key of it")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus-per-node", type=int, default=1, help="ranks of a node")
    parser.add_argument("--json", type=Path, help="result file")
    asked = parser.parse_args(arguments)
    try:
        run = load_run(asked.config, asked.set)
        data_size = data_ranks(run, asked.nodes, asked.gpus_per_node)
        rows = plan(run, vocabulary(run), data_size)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(rows)
    if asked.json:
        about = {"nodes": asked.nodes, "gpus_per_node": asked.gpus_per_node, "config": str(asked.config)}
        write(asked.json, "plan", rows, **about, assumed=list(ASSUMED))
    return 0


def vocabulary(run: RunConfig) -> int:
    """Of the configuration, or else of the data. Raises ValueError."""
    if run.model.vocab_size is not None:
        return run.model.vocab_size
    try:
        return Manifest.load(run.data.path).vocab_size
    except ValueError as error:
        raise ConfigError(f"{error}; or give the size of the vocabulary: --set model.vocab_size=32000") from None


def data_ranks(run: RunConfig, nodes: int, gpus_per_node: int) -> int:
    """Data-parallel ones. Raises ValueError where the ranks do not divide."""
    tensor = run.parallel.tensor
    if nodes < 1 or gpus_per_node < 1:
        raise ConfigError(f"--nodes {nodes} --gpus-per-node {gpus_per_node}: give at least one of each")
    if gpus_per_node % tensor:
        raise ConfigError(f"parallel.tensor={tensor} must divide --gpus-per-node {gpus_per_node}")
    data_size = nodes * gpus_per_node // tensor
    micro_batches(run, data_size)
    return data_size


def plan(run: RunConfig, vocab_size: int, data_size: int) -> list[Row]:
    """A row for each figure; stage `reward` has bytes alone."""
    found = parameters(run.model, vocab_size)
    rows: list[Row] = [
        {"metric": "parameters", "value": size, "n": 1, "module": module} for module, size in by_module(found).items()
    ]
    rows.append({"metric": "parameters", "value": sum(row["value"] for row in rows), "n": 1, "module": "all"})
    for stage in run.stages:
        if stage.reward is None:  # its rollouts are not counted
            rows += _stage(run, stage, vocab_size)
        rows += memory_rows(run, stage, vocab_size, data_size)
    return rows


def _stage(run: RunConfig, stage: StageConfig, vocab_size: int) -> list[Row]:
    shape = Shape(run.model, vocab_size, run.batch.sequences, run.parallel.activation_checkpointing)
    cost = step_cost(shape, stage)
    parts = {"forward": cost.forward, "backward": cost.backward, "recomputed": cost.again, "all": cost.total}
    return [
        {"metric": "step_flops", "value": value, "n": 1, "part": part, "stage": stage.name}
        for part, value in parts.items()
    ]


def memory_rows(run: RunConfig, stage: StageConfig, vocab_size: int, data_size: int) -> list[Row]:
    """Bytes of a rank at the peak of a step, by kind. As on a GPU, unless the run says ``device: cpu``."""
    held = memory(run, stage, vocab_size, data_size)
    return [
        {"metric": "rank_bytes", "value": value, "n": 1, "kind": kind, "stage": stage.name}
        for kind, value in {**asdict(held), "all": held.total}.items()
    ]


def show(rows: Sequence[Row]) -> None:
    console = Console()
    console.print(_table("Parameters", [row for row in rows if row["metric"] == "parameters"], "module", "module"))
    steps = [row for row in rows if row["metric"] == "step_flops"]
    console.print(_table("Operations of a step (whole global batch, FLOP)", steps, "stage", "part"))
    held = [row for row in rows if row["metric"] == "rank_bytes"]
    console.print(_table("A rank at the peak of a step (bytes)", held, "kind", "stage"))
    console.print("Assumed:", *(f"\n- {line}" for line in ASSUMED), sep="")


def _table(title: str, rows: Sequence[Row], line: str, column: str) -> Table:
    """A line for each value of ``line``, a column for each of ``column``; one column where they are the same."""
    names = ["number"] if line == column else list(dict.fromkeys(row[column] for row in rows))
    table = Table(line, title=title)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for value in dict.fromkeys(row[line] for row in rows):
        cells = [_short(row["value"]) for row in rows if row[line] == value]
        table.add_row(value, *cells)
    return table


def _short(value: float) -> str:
    for power, unit in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.2f} {unit}"
    return f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
