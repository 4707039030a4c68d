"""The planner's bytes against measured ones: ``python -m benchmarks.plan_memory --json out.json --plot out.svg``.

Every shape is a run of one stage that real ranks play for some steps (``benchmarks.memory_of_ranks``): on the CPU over
gloo, on a GPU where torch sees one for each rank. Kinds: the states between backward and optimizer step, what autograd
keeps for backward at most, and ``total``, all bytes at the step's peak. Ends with exit code 1 where one of them is more
than 10 % off.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.memory_of_ranks import Seen, measure_runs
from benchmarks.ranks import result_of
from benchmarks.runs import Tree, joint, small_run
from dualmask.config.schema import RunConfig
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row
from launcher.planner.memory import peaks
from launcher.planner.passes import Draws

if TYPE_CHECKING:
    from rich.table import Table

ALLOWED = 0.1  # share by which a prediction may be off
STATES = ("weights", "gradients", "master", "adam")
KINDS = (*STATES, "activations", "total")


@dataclass(frozen=True)
class Shape:
    """Sections of a run file, and the ranks that play it."""

    stage: Tree
    model: Tree = field(default_factory=dict)
    batch: Tree = field(default_factory=dict)
    parallel: Tree = field(default_factory=dict)
    ranks: int = 1
    vocab_size: int = 2048

    @property
    def tensor(self) -> int:
        return int(self.parallel.get("tensor", 1))

    @property
    def run(self) -> RunConfig:
        return small_run(
            {"steps": 9, "lr": {"peak": 1e-3}} | self.stage,
            TRUNK | ({} if "family" in self.model else LAYERS) | self.model,
            batch={"sequences": 16} | self.batch,
            parallel={"zero_stage": 0} | self.parallel,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )


TRUNK = {"hidden": 128, "heads": 4, "max_length": 128}
LAYERS = {"filler_layers": 4, "inserter_layers": 2, "picker_layers": 2}  # of DualMaskLM
HALF = {"keep_rate_low": 0.5, "keep_rate_high": 0.5}  # the number of holes is no matter of chance
FILLER: Tree = {"name": "filler", "train": ["filler"], "deletion": HALF}
INSERTER: Tree = {"name": "inserter", "train": ["inserter"], "losses": {"ptr_count": 1}, "deletion": HALF}
PICKER: Tree = {"name": "picker", "train": ["inserter", "picker"], "losses": {"ptr_count": 1, "keep_recover": 1}}
LM: Tree = {"name": "lm", "train": ["lm"]}
SPAN: Tree = {"name": "span", "train": ["decoder", "encoder", "gate"]}
PARTS: Tree = {"family": "spanfusion", "span": {"decoder_layers": 3, "encoder_layers": 2}}
WIDE: Tree = {"hidden": 384, "heads": 8, "filler_layers": 6, "inserter_layers": 1, "picker_layers": 1, "max_length": 32}


def language_model(family: str, layers: int) -> Tree:
    return {"family": family, "layers": layers}


def parallel(zero: int, tensor: int = 1, *, bf16: bool = False, checkpointing: bool = False) -> Tree:
    precision = "bf16" if bf16 else "fp32"
    return {
        "zero_stage": zero,
        "tensor": tensor,
        "precision": precision,
        "activation_checkpointing": checkpointing,
    }


SHAPES: dict[str, Shape] = {
    "filler": Shape(FILLER),
    "filler, bf16": Shape(FILLER, {"hidden": 256, "max_length": 96}, parallel=parallel(0, bf16=True)),
    "filler, checkpointing": Shape(FILLER, {"filler_layers": 8}, parallel=parallel(1, checkpointing=True)),
    "filler, mostly weights": Shape(FILLER, WIDE, {"sequences": 4}, parallel(1)),
    "inserter behind a frozen filler": Shape(INSERTER, parallel=parallel(1)),
    "picker, frozen filler": Shape(PICKER, {"hidden": 192, "max_length": 64}),
    "joint, L 4 W 1": Shape(joint(4, 1), parallel=parallel(1)),
    "joint, L 4 W 2, micro-batches": Shape(joint(4, 2), batch={"micro": 4, "sequences": 8}),
    "joint, L 4 W 4, checkpointing": Shape(joint(4, 4), parallel=parallel(3, bf16=True, checkpointing=True)),
    "autoregressive": Shape(LM, language_model("autoregressive", 4), parallel=parallel(2)),
    "diffusion, bf16": Shape(LM, language_model("diffusion", 6), parallel=parallel(3, bf16=True)),
    "decoder": Shape({"name": "decoder", "train": ["decoder"]}, PARTS, parallel=parallel(1)),
    "span, own teacher": Shape(SPAN | {"span": {"lengths": [16], "teacher": "ema"}}, PARTS, parallel=parallel(3)),
    "span, checkpointing": Shape(SPAN | {"span": {"lengths": [16]}}, PARTS, parallel=parallel(0, checkpointing=True)),
    "filler, ZeRO-1 of 2": Shape(FILLER, {"hidden": 256}, {"sequences": 32}, parallel(1, bf16=True), ranks=2),
    "filler, ZeRO-3 of 2, mostly weights": Shape(FILLER, WIDE, {"sequences": 8}, parallel(3), ranks=2),
    "joint, L 2 W 2, ZeRO-3 of 2": Shape(joint(2, 2), batch={"sequences": 32}, parallel=parallel(3), ranks=2),
    "filler, tensor 2": Shape(FILLER, {"filler_layers": 8}, parallel=parallel(0, 2), ranks=2),
    "joint, L 2 W 2, tensor 2": Shape(joint(2, 2), parallel=parallel(1, 2), ranks=2),
    "autoregressive, tensor 2, bf16": Shape(
        LM, language_model("autoregressive", 4), parallel=parallel(3, 2, bf16=True), ranks=2
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="plan_memory", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--plot", type=Path, help="picture, as PNG or SVG")
    parser.add_argument(
        "--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="NAME", help="some of them"
    )
    arguments = parser.parse_args()
    played = play({name: SHAPES[name] for name in arguments.shapes})
    measured_rows = [row for name, seen in played for row in rows(name, SHAPES[name], seen)]
    show(measured_rows)
    write(arguments.json, "plan_memory", measured_rows, allowed=ALLOWED)
    if arguments.plot:
        plot(measured_rows, arguments.plot)
    return int(any(abs(row["value"] - 1) > ALLOWED for row in measured_rows))


def play(shapes: Mapping[str, Shape], timeout: float = 1800) -> Iterator[tuple[str, Seen]]:
    """Name and measured bytes of each: all that are spread alike on the same ranks, one after the other."""
    for ranks, tensor in sorted({(shape.ranks, shape.tensor) for shape in shapes.values()}):
        chosen = {name: shape for name, shape in shapes.items() if (shape.ranks, shape.tensor) == (ranks, tensor)}
        measure = partial(measure_runs, {name: (shape.run, shape.vocab_size) for name, shape in chosen.items()}, tensor)
        yield from result_of(f"the ranks of {', '.join(chosen)}", measure, ranks, timeout=timeout).items()


def predicted(shape: Shape, draws: Sequence[Draws] | None) -> dict[str, float]:
    """The greatest of each kind."""
    run = shape.run
    points = peaks(run, run.stages[0], shape.vocab_size, shape.ranks // shape.tensor, draws)
    return {kind: max(float(getattr(point, kind)) for point in points) for kind in KINDS}


def rows(name: str, shape: Shape, seen: Seen) -> Iterator[Row]:
    """``value``: predicted over measured bytes; ``expected``: the same for what the planner expects the data to draw
    (rounds behind the first are then as full of holes). A kind that is not there has no row."""
    draws = [Draws(**each) for each in seen["draws"]] if seen["draws"] else None
    planned, expected = predicted(shape, draws), predicted(shape, None)
    for kind, measured in seen["bytes"].items():
        if not measured:
            assert planned[kind] == 0, f"{name}: {kind} are planned and not there"
            continue
        where = {"shape": name, "kind": kind, "ranks": shape.ranks, "n": 1}
        where |= {"predicted": planned[kind], "measured": measured, "expected": expected[kind] / measured}
        yield {"metric": "rank_bytes_ratio", "value": planned[kind] / measured, **where}


def show(measured_rows: Sequence[Row]) -> None:
    from rich.console import Console  # not at the top: benchmarks.gpu_check runs where there is none

    Console().print(table(measured_rows))


def table(measured_rows: Sequence[Row]) -> Table:
    from rich.table import Table

    result = Table(
        "shape",
        title="Bytes of a rank, MB: predicted / measured",
        caption="ratio: of the totals, for what the data drew; expected: for what is to be expected of them",
    )
    for kind in (*KINDS, "ratio", "expected"):
        result.add_column(kind, justify="right", no_wrap=True)
    for name in dict.fromkeys(row["shape"] for row in measured_rows):
        by_kind = {row["kind"]: row for row in measured_rows if row["shape"] == name}
        cells = [
            f"{by_kind[k]['predicted'] / 1e6:.1f} / {by_kind[k]['measured'] / 1e6:.1f}" if k in by_kind else ""
            for k in KINDS
        ]
        total = by_kind["total"]
        result.add_row(name, *cells, f"{total['value']:.3f}", f"{total['expected']:.3f}")
    return result


def plot(measured_rows: Sequence[Row], path: Path) -> None:
    """Predicted over measured, a mark for each shape and kind, and the band that is allowed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5.5), layout="constrained")
    panel = figure.add_subplot()
    for number, kind in enumerate(KINDS):
        points = [(row["measured"] / 1e6, row["predicted"] / 1e6) for row in measured_rows if row["kind"] == kind]
        panel.plot(
            *zip(*points, strict=True), color=f"C{number}", linestyle="none", marker="o", markersize=4, label=kind
        )
    ends = [scale * pick(row["measured"] / 1e6 for row in measured_rows) for pick, scale in ((min, 0.8), (max, 1.25))]
    panel.plot(ends, ends, color="grey", linewidth=0.8)
    low, high = ([end * (1 + side) for end in ends] for side in (-ALLOWED, ALLOWED))
    panel.fill_between(ends, low, high, color="grey", alpha=0.2, label="± 10 %")
    panel.set(xscale="log", yscale="log", xlabel="measured, MB", ylabel="predicted, MB", title="Bytes of a rank")
    panel.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
