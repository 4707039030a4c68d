"""Writes docs/scaling.md: the shipped large configurations on 1 to 4,096 GPUs. ``python -m launcher.scaling``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dualmask.config.hardware import GIB, Hardware, load_hardware
from dualmask.config.load import ConfigError, load_run
from dualmask.config.schema import RunConfig
from launcher.plan import DAY, HARDWARE, vocabulary
from launcher.plan_tables import short
from launcher.planner.launches import launches, module_calls
from launcher.planner.parameters import by_module, parameters
from launcher.planner.passes import Shape, walk
from launcher.planner.recommend import Choice, recommend
from launcher.planner.time import Cluster, Site
from launcher.planner.traffic import traffic

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = tuple(ROOT / "configs" / f"dualmask_{size}.yaml" for size in ("125m", "1.3b", "7b", "70b"))
GPUS = (1, 8, 64, 512, 4096)
MAIN, OTHERS = "h100-80g", ("a100-80g", "h200-141g")
TEXT = (Path(__file__).parent / "scaling.md.in").read_text(encoding="utf-8")
HEAD = (
    "| GPUs | TP × DP | W | checkpointing | micro | GiB a GPU | × ideal | sent a step | step, first stage "
    "| step, last stage | tokens a second | days |\n|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scaling", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "scaling.md")
    options = parser.parse_args(arguments)
    options.out.write_text(page(), encoding="utf-8")
    return 0


def page() -> str:
    """The whole file."""
    main, others = load_hardware(MAIN, HARDWARE), [load_hardware(name, HARDWARE) for name in OTHERS]
    runs = [load_run(path) for path in CONFIGS]
    sections = [part for path, run in zip(CONFIGS, runs, strict=True) for part in section(path, run, main)]
    values = {
        "hardware": main.name,
        "compute": f"{main.compute_share:.0%}",
        "bandwidth": f"{main.bandwidth_share:.0%}",
        "memory": f"{main.memory_share:.0%}",
        "hop": f"{main.hop_microseconds:g}",
        "launch": f"{main.launch_microseconds:g}",
        "hook": f"{main.hook_microseconds:g}",
        "host_memory": f"{main.host_memory_gib:,.0f}",
        "process": f"{main.host_process_gib:g}",
        **_floor(runs[0], main, "small"),
        **_floor(runs[-1], main, "large"),
        "plans": "\n".join(sections),
        "others": "\n".join(_others(runs, [main, *others])),
    }
    return TEXT.format(**values)


def section(path: Path, run: RunConfig, hardware: Hardware) -> Iterator[str]:
    size = sum(by_module(parameters(run.model, vocabulary(run))).values())
    tokens = sum(stage.steps for stage in run.stages) * run.batch.sequences * run.model.max_length
    yield f"### `configs/{path.name}`: {_count(size)} parameters, {_count(tokens)} tokens\n"
    yield HEAD
    reasons = []
    for number in GPUS:
        try:
            advice = recommend(run, site(run, hardware, number))
        except ConfigError as error:
            yield f"| {number:,} | – | | | | | | | | | | |"
            reasons.append(f"* {number:,}: {error}.")
            continue
        yield _line(advice.choice, tokens)
        reasons.append(f"* {number:,}: " + "; ".join(advice.reasons) + ".")
    yield "\n<details><summary>Why these</summary>\n"
    yield "\n".join(reasons)
    yield "\n</details>\n"


def _floor(run: RunConfig, hardware: Hardware, name: str) -> dict[str, Any]:
    """What the host does for one micro-batch of the last stage."""
    stage = run.stages[-1]
    shape = Shape(run.model, vocabulary(run), run.batch.sequences, run.parallel.activation_checkpointing)
    windows = walk(shape, stage)
    kernels, calls = launches(shape, stage, windows), module_calls(shape, windows)
    seconds = (kernels * hardware.launch_microseconds + calls * hardware.hook_microseconds) * 1e-6
    return {f"kernels_{name}": kernels, f"calls_{name}": calls, f"floor_{name}": f"{seconds:.1f} s"}


def site(run: RunConfig, hardware: Hardware, gpus: int) -> Site:
    width = min(gpus, hardware.gpus_per_node)
    return Site(hardware, Cluster(gpus // width, width), vocabulary(run))


def _line(choice: Choice, tokens: int) -> str:
    (_, first), *_, (stage, last) = choice.times
    sent = traffic(choice.run, stage, choice.site.vocab_size, choice.data)
    least, most = choice.seconds
    cells = [
        f"{choice.site.cluster.gpus:,}",
        f"{choice.tensor} × {choice.data}",
        str(choice.window),
        "on" if choice.checkpointing else "off",
        str(choice.micro),
        f"{choice.bytes / GIB:.0f}",
        f"{sent.gathered / sent.once:.1f}" if sent.once and choice.data > 1 else "–",
        f"{short(sent.total)}B" if sent.total else "0",
        _between(first.least, first.most, " s"),
        _between(last.least, last.most, " s"),
        _between(tokens / most, tokens / least, ""),
        _between(least / DAY, most / DAY, ""),
    ]
    return f"| {' | '.join(cells)} |"


def _others(runs: list[RunConfig], machines: list[Hardware]) -> Iterator[str]:
    """Days of each run, a column for each kind of GPU."""
    yield "| configuration | GPUs | " + " | ".join(machine.name for machine in machines) + " |"
    yield "|---|--:|" + "--:|" * len(machines)
    for run in runs:
        for number in GPUS:
            yield f"| {run.name} | {number:,} | {' | '.join(_days(run, machine, number) for machine in machines)} |"


def _days(run: RunConfig, hardware: Hardware, gpus: int) -> str:
    try:
        least, most = recommend(run, site(run, hardware, gpus)).choice.seconds
    except ConfigError:
        return "–"
    return _between(least / DAY, most / DAY, "")


def _count(value: float) -> str:
    """As models are named: 1.30B."""
    return short(value).replace(" ", "").replace("G", "B")


def _between(least: float, most: float, unit: str) -> str:
    low, high = _figure(least), _figure(most)
    return f"{low}{unit}" if low == high else f"{low} – {high}{unit}"


def _figure(value: float) -> str:
    """Two digits: the plan is no better."""
    if value >= 1000:
        return short(value)
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


if __name__ == "__main__":
    sys.exit(main())
