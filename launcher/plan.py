"""What a run will need, with nothing started: ``python -m launcher.plan --config X.yaml --nodes N --gpus-per-node M``.

Parameters by module; operations, traffic and bytes of a rank by stage; with ``--hardware`` time, price and the largest
micro-batch, with ``--recommend`` the degrees. Formulas stand in launcher/planner, tables in plan_tables.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from data_pipeline.manifest import Manifest
from dualmask.config.deepspeed import micro_batches
from dualmask.config.hardware import Hardware, load_hardware
from dualmask.config.load import ConfigError, load_run
from dualmask.config.schema import RunConfig, StageConfig
from dualmask.evaluation.report import write
from launcher.plan_tables import Row, show
from launcher.planner.flops import step_cost
from launcher.planner.memory import memory
from launcher.planner.parameters import by_module, parameters
from launcher.planner.passes import Shape
from launcher.planner.recommend import GIB, Advice, Choice, Site, largest, planned, recommend
from launcher.planner.time import Cluster, run_seconds, step_time
from launcher.planner.traffic import traffic

HARDWARE = Path(__file__).resolve().parents[1] / "configs" / "hardware"
DAY = 86_400
ASSUMED = (
    "texts and drafts are full length (data.crop_share, prefix and empty starts shorten some of them)",
    "operations are those of matrix products at the end of the stage; attention counts every pair of places",
    "schedules at their mean; later rounds have as many holes as the first; prefix and empty starts one full gap",
    "bytes of what torch gives out; what its caching allocator, CUDA itself and NCCL need comes on top",
    "collectives are rings; DeepSpeed's distances are its defaults (launcher/planner/gathers.py)",
)
ASSUMED_OF_TIME = (
    "no figure of time was measured on a GPU: rates are the maker's, shares of them assumptions of the hardware file",
    "stages take their last number of rounds from their first step on; stage reward is left out",
)


def main(arguments: list[str] | None = None) -> int:
    asked = _arguments(arguments)
    cluster = Cluster(asked.nodes, asked.gpus_per_node)
    said: list[str] = []
    assumed = list(ASSUMED)
    try:
        run = load_run(asked.config, asked.set)
        vocab_size = vocabulary(run)
        hardware = load_hardware(asked.hardware, HARDWARE) if asked.hardware else None
        advice = None
        if asked.recommend:
            advice, lines = _recommended(run, hardware, cluster, vocab_size)
            run, said = advice.choice.run, lines
        rows = plan(run, vocab_size, data_ranks(run, asked.nodes, asked.gpus_per_node))
        if hardware is not None:
            site = Site(hardware, cluster, vocab_size)
            best = largest(run, site)
            said.append(_fits(best))
            rows += [*on_hardware(run, site), *_choices(best, advice)]
            assumed += ASSUMED_OF_TIME
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(rows, assumed, said)
    if asked.json:
        about: dict[str, Any] = {"nodes": asked.nodes, "gpus_per_node": asked.gpus_per_node}
        about |= {"config": str(asked.config), "hardware": hardware and hardware.model_dump()}
        write(asked.json, "plan", rows, **about, assumed=assumed)
    return 0


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="plan", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="changes one key of it")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus-per-node", type=int, default=1, help="ranks of a node")
    parser.add_argument("--hardware", metavar="NAME|FILE", help="adds time: a file of configs/hardware, or your own")
    parser.add_argument("--recommend", action="store_true", help="plans with the degrees that it recommends")
    parser.add_argument("--json", type=Path, help="result file")
    return parser.parse_args(arguments)


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
    check_cluster(nodes, gpus_per_node)
    if gpus_per_node % tensor:
        raise ConfigError(f"parallel.tensor={tensor} must divide --gpus-per-node {gpus_per_node}")
    data_size = nodes * gpus_per_node // tensor
    micro_batches(run, data_size)
    return data_size


def check_cluster(nodes: int, gpus_per_node: int) -> None:
    """Raises ConfigError."""
    if nodes < 1 or gpus_per_node < 1:
        raise ConfigError(f"--nodes {nodes} --gpus-per-node {gpus_per_node}: give at least one of each")


def plan(run: RunConfig, vocab_size: int, data_size: int) -> list[Row]:
    """A row for each figure; stage `reward` has bytes alone."""
    found = parameters(run.model, vocab_size)
    rows: list[Row] = [
        {"metric": "parameters", "value": size, "n": 1, "module": module} for module, size in by_module(found).items()
    ]
    rows.append({"metric": "parameters", "value": sum(row["value"] for row in rows), "n": 1, "module": "all"})
    for stage in run.stages:
        if stage.reward is None:  # its rollouts are not counted
            rows += _flops(run, stage, vocab_size)
            rows += _sent(run, stage, vocab_size, data_size)
        rows += memory_rows(run, stage, vocab_size, data_size)
    return rows


def _flops(run: RunConfig, stage: StageConfig, vocab_size: int) -> list[Row]:
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


def _sent(run: RunConfig, stage: StageConfig, vocab_size: int, data_size: int) -> list[Row]:
    sent = traffic(run, stage, vocab_size, data_size)
    kinds = {"parameters": sent.parameters, "gradients": sent.gradients, "activations": sent.activations}
    return [
        {"metric": "sent", "value": value, "n": 1, "kind": kind, "stage": stage.name}
        for kind, value in (kinds | {"all": sent.total}).items()
    ]


def on_hardware(run: RunConfig, site: Site) -> Iterator[Row]:
    """Time of a step and of the whole run, and its price where the hardware file has one."""
    times = [(s, step_time(run, s, site.vocab_size, site.hardware, site.cluster)) for s in planned(run)]
    tokens = run.batch.sequences * run.model.max_length
    for stage, time in times:
        parts = {"compute": time.compute, "optimizer": time.optimizer, "between data ranks": time.data,
                 "between tensor ranks": time.tensor, "least": time.least, "most": time.most}  # fmt: skip
        for part, value in parts.items():
            yield {"metric": "step_seconds", "value": value, "n": 1, "part": part, "stage": stage.name}
        for bound, seconds in (("least", time.most), ("most", time.least)):
            value = tokens / seconds
            yield {"metric": "tokens_per_second", "value": value, "n": 1, "bound": bound, "stage": stage.name}
    for bound, seconds in zip(("least", "most"), run_seconds(times), strict=True):
        yield {"metric": "run_days", "value": seconds / DAY, "n": 1, "bound": bound}
        if site.hardware.price_per_hour is not None:
            value = seconds / 3600 * site.cluster.gpus * site.hardware.price_per_hour
            yield {"metric": "run_cost", "value": value, "n": 1, "bound": bound}


def _recommended(
    run: RunConfig, hardware: Hardware | None, cluster: Cluster, vocab_size: int
) -> tuple[Advice, list[str]]:
    """The advice, and what is to be said of it. Raises ConfigError where nothing fits."""
    if hardware is None:
        raise ConfigError("--recommend asks what fits: name the GPUs, too, for instance --hardware h100-80g")
    check_cluster(cluster.nodes, cluster.gpus_per_node)
    advice = recommend(run, Site(hardware, cluster, vocab_size))
    wanted = " ".join(f"--set {line}" for line in advice.overrides)
    return advice, [f"Recommended, and planned below: {wanted}", *(f"- {line}" for line in advice.reasons)]


def _fits(best: Choice) -> str:
    limit = best.site.hardware.usable_bytes / GIB
    if best.fits:
        return f"The largest batch.micro that fits: {best.micro} ({best.bytes / GIB:.1f} of {limit:.1f} GiB)"
    return f"Does not fit, even with batch.micro=1: {best.bytes / GIB:.1f} of {limit:.1f} GiB; see --recommend"


def _choices(best: Choice, advice: Advice | None) -> Iterator[Row]:
    """The largest micro-batch that fits with the degrees of the run, and the degrees that were recommended."""
    yield {"metric": "largest_micro", "value": best.micro if best.fits else 0, "n": 1, "gib": best.bytes / GIB}
    for line in advice.overrides if advice else ():
        key, _, value = line.partition("=")
        yield {"metric": "recommended", "value": int(yaml.safe_load(value)), "n": 1, "key": key}


if __name__ == "__main__":
    sys.exit(main())
