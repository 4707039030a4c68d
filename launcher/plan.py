"""What a run will need, with nothing started: ``python -m launcher.plan --config X.yaml --nodes N --gpus-per-node M``.

Parameters by module; operations, traffic and bytes of a rank by stage; with ``--hardware`` time, price and the largest
micro-batch, with ``--recommend`` the degrees. Formulas stand in launcher/planner, tables in plan_tables.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from data_pipeline.remote import load_manifest
from dualmask.config.deepspeed import micro_batches
from dualmask.config.hardware import GIB, Hardware, load_hardware
from dualmask.config.load import ConfigError, load_run
from dualmask.config.schema import RunConfig
from dualmask.evaluation.report import write
from dualmask.families.edit.config import RewardStage
from launcher.plan_tables import Row, show
from launcher.planner.distances import settled
from launcher.planner.flops import step_cost
from launcher.planner.host import host_bytes
from launcher.planner.memory import at_initialize, memory
from launcher.planner.parameters import by_module, parameters
from launcher.planner.passes import Shape
from launcher.planner.recommend import Advice, Choice, largest, planned, recommend
from launcher.planner.time import Cluster, Site, run_seconds, step_time
from launcher.planner.traffic import traffic
from launcher.preflight import HARDWARE

DAY = 86_400
USUAL = "h100-80g"  # what --recommend plans for where no hardware is named
ASSUMED = (
    "texts and drafts are full length (data.crop_share, prefix and empty starts shorten some of them)",
    "operations are those of matrix products at the end of the stage; attention counts every pair of tokens",
    "schedules at their mean; later rounds have as many holes as the first; prefix and empty starts one full gap",
    "bytes of what torch gives out; what its caching allocator, CUDA itself and NCCL need comes on top",
    "collectives are rings; without --hardware ZeRO-3's reuse distance is DeepSpeed's default, unless the run has one",
)
ASSUMED_OF_TIME = (
    "rates are the maker's, shares of them and microseconds of the host assumptions of the hardware file",
    "stages take their last number of rounds from their first step on; stage reward is left out",
)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    cluster, lines, assumed = Cluster(options.nodes, options.gpus_per_node), [], list(ASSUMED)
    try:
        run = load_run(options.config, options.set)
        vocab_size = vocabulary(run)
        name = options.hardware or (USUAL if options.recommend else None)
        hardware = load_hardware(name, HARDWARE) if name else None
        advice = _recommended(run, hardware, cluster, vocab_size) if options.recommend and hardware else None
        if advice is not None:
            run = advice.choice.run
            overrides = " ".join(f"--set {line}" for line in advice.overrides)
            lines = [f"Recommended, and planned below: {overrides}", *(f"- {line}" for line in advice.reasons)]
        data_size = data_ranks(run, cluster)
        if hardware is not None:
            site = Site(hardware, cluster, vocab_size)
            best, run = largest(run, site), settled(run, vocab_size, data_size, hardware.usable_bytes)
            if refusal := Choice(run, site).refusal:
                raise ConfigError(refusal)
            lines.append(_fits(best))
            assumed += ASSUMED_OF_TIME
            if not options.hardware:
                assumed.append(f"the GPUs are {USUAL}: name others with --hardware")
        rows = plan(run, vocab_size, data_size)
        if hardware is not None:
            rows += [*_of_a_node(rows, cluster, hardware), *_on_hardware(run, site), *_choices(best, advice)]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(rows, assumed, lines)
    if options.json:
        about: dict[str, Any] = {"nodes": options.nodes, "gpus_per_node": options.gpus_per_node}
        about |= {"config": str(options.config), "hardware": hardware and hardware.model_dump()}
        write(options.json, "plan", rows, **about, assumed=assumed)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="plan", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="changes one key of it")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus-per-node", type=int, default=1, help="ranks of a node")
    named = f"adds time: a file of configs/hardware, or your own; --recommend alone takes {USUAL}"
    parser.add_argument("--hardware", metavar="NAME|FILE", help=named)
    parser.add_argument("--recommend", action="store_true", help="plans with the degrees that it recommends")
    parser.add_argument("--json", type=Path, help="result file")
    return parser.parse_args(arguments)


def vocabulary(run: RunConfig) -> int:
    """Of the configuration, or else of the data. Raises ValueError."""
    if run.model.vocab_size is not None:
        return run.model.vocab_size
    try:
        return load_manifest(run.data.mixture[0].path).vocab_size
    except ValueError as error:
        raise ConfigError(f"{error}; or give the size of the vocabulary: --set model.vocab_size=32000") from None


def data_ranks(run: RunConfig, cluster: Cluster) -> int:
    """Data-parallel ones. Raises ValueError where the ranks do not divide."""
    tensor = run.parallel.tensor
    _check(cluster)
    if cluster.gpus_per_node % tensor:
        raise ConfigError(f"parallel.tensor={tensor} must divide --gpus-per-node {cluster.gpus_per_node}")
    data_size = cluster.gpus // tensor
    micro_batches(run, data_size)
    return data_size


def _check(cluster: Cluster) -> None:
    if cluster.nodes < 1 or cluster.gpus_per_node < 1:
        raise ConfigError(f"--nodes {cluster.nodes} --gpus-per-node {cluster.gpus_per_node}: give at least one of each")


def plan(run: RunConfig, vocab_size: int, data_size: int) -> list[Row]:
    """A row for each figure; stage `reward`, whose rollouts are not counted, has bytes alone."""
    sizes = by_module(parameters(run.model, vocab_size))
    rows = _rows("parameters", "module", sizes | {"all": sum(sizes.values())})
    shape = Shape(run.model, vocab_size, run.batch.sequences, run.parallel.activation_checkpointing)
    for stage in run.stages:
        if not isinstance(stage, RewardStage):
            cost, sent = step_cost(shape, stage), traffic(run, stage, vocab_size, data_size)
            parts = {"forward": cost.forward, "backward": cost.backward, "recomputed": cost.again, "all": cost.total}
            rows += _rows("step_flops", "part", parts, stage=stage.name)
            kinds = {"parameters": sent.parameters, "gradients": sent.gradients, "activations": sent.activations}
            rows += _rows("sent", "kind", kinds | {"all": sent.total}, stage=stage.name)
            if sent.once:
                times = {
                    "bytes": sent.gathered,
                    "ideal: once a window": sent.once,
                    "× ideal": sent.gathered / sent.once,
                }
                rows += _rows("gathers", "gathered", times, stage=stage.name)
        held = memory(run, stage, vocab_size, data_size)
        rows += _rows("rank_bytes", "kind", {**asdict(held), "all": held.total}, stage=stage.name)
        made = {"device at initialize": at_initialize(run, stage, vocab_size, data_size)}
        rows += _rows("made_bytes", "kind", made, stage=stage.name)
    return rows + _rows("host_bytes", "phase", host_bytes(run, vocab_size, data_size))


def _of_a_node(rows: list[Row], cluster: Cluster, hardware: Hardware) -> Iterator[Row]:
    """What its ranks need of the host together, their processes included."""
    own = hardware.host_process_gib * GIB
    needs = {r["phase"]: cluster.gpus_per_node * (r["value"] + own) for r in rows if r["metric"] == "host_bytes"}
    limit = {} if hardware.host_memory_gib is None else {"there is": hardware.host_memory_gib * GIB}
    yield from _rows("node_host_bytes", "phase", needs | limit)


def _rows(metric: str, key: str, values: Mapping[str, float], **where: str) -> list[Row]:
    return [{"metric": metric, "value": value, "n": 1, key: name, **where} for name, value in values.items()]


def _on_hardware(run: RunConfig, site: Site) -> Iterator[Row]:
    """Time of a step and of the whole run, and its price where the hardware file has one."""
    times = [(s, step_time(run, s, site)) for s in planned(run)]
    tokens = run.batch.sequences * run.model.max_length
    for stage, time in times:
        parts = {"compute": time.compute, "optimizer": time.optimizer, "between data ranks": time.data,
                 "between tensor ranks": time.tensor, "host": time.host,
                 "least": time.least, "most": time.most}  # fmt: skip
        yield from _rows("step_seconds", "part", parts, stage=stage.name)
        speeds = {"least": tokens / time.most, "most": tokens / time.least}
        yield from _rows("tokens_per_second", "bound", speeds, stage=stage.name)
    for bound, seconds in zip(("least", "most"), run_seconds(times), strict=True):
        yield from _rows("run_days", "bound", {bound: seconds / DAY})
        if site.hardware.price_per_hour is not None:
            price = seconds / 3600 * site.cluster.gpus * site.hardware.price_per_hour
            yield from _rows("run_cost", "bound", {bound: price})


def _recommended(run: RunConfig, hardware: Hardware, cluster: Cluster, vocab_size: int) -> Advice:
    """Raises ConfigError where nothing fits."""
    _check(cluster)
    return recommend(run, Site(hardware, cluster, vocab_size))


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
