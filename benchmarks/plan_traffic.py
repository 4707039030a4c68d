"""The planner's traffic against real collectives: ``python -m benchmarks.plan_traffic --json out.json``.

Small models on a few CPU ranks over gloo, steps that are the same again and again, every collective counted. ZeRO-3's
distances are scaled down with the models, so that parameters are given up and gathered again as they are in large ones.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ranks import result_of
from benchmarks.runs import ALL_MODULES, LOSSES, joint, small_run
from benchmarks.traffic_of_ranks import Counted, measure_cases
from dualmask.config.schema import RunConfig
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row
from launcher.planner.gathers import Distances
from launcher.planner.traffic import traffic

KINDS = ("gathered", "held", "scattered", "reduced", "tensor_reduced", "tensor_gathered")
VOCABULARY = 300
MODEL = {"hidden": 64, "heads": 4, "filler_layers": 2, "inserter_layers": 1, "picker_layers": 2, "max_length": 24}
ONE_TRUNK = {"hidden": 64, "heads": 4, "layers": 3, "max_length": 24}
SPAN = {"hidden": 64, "heads": 4, "max_length": 24, "family": "spanfusion",
        "span": {"decoder_layers": 2, "encoder_layers": 2}}  # fmt: skip
STAGES: dict[str, dict[str, Any]] = {
    "filler": {"name": "filler", "train": ["filler"]},
    "inserter": {"name": "inserter", "train": ["inserter"], "losses": {"ptr_count": 1}},
    "picker": {"name": "picker", "train": list(ALL_MODULES), "losses": LOSSES},
    "frozen filler": {"name": "picker", "train": ["inserter", "picker"], "losses": LOSSES, "picker_gradient": 0.1},
    "joint": joint(4, 2, gate_rows=1),
    "ragged": joint(3, 2, gate_rows=1) | {"picker_gradient": 0},
    "lm": {"name": "lm", "train": ["lm"]},
    "span": {"name": "span", "train": ["decoder", "encoder", "gate"], "span": {"lengths": [8]}},
}  # fmt: skip


NOTHING_PERSISTS = Distances(persistent=0)


@dataclass(frozen=True)
class Case:
    """Ranks that share the work of a stage."""

    stage: str
    zero: int = 3
    checkpointing: bool = False
    micro: int | None = None
    far: Distances = NOTHING_PERSISTS
    model: dict[str, Any] = field(default_factory=lambda: MODEL)

    def run(self, tensor: int) -> RunConfig:
        parallel = {"zero_stage": self.zero, "activation_checkpointing": self.checkpointing, "tensor": tensor}
        stage = {"steps": 1, "lr": {"peak": 1e-3}} | STAGES[self.stage]
        return small_run(stage, self.model, batch={"sequences": 8, "micro": self.micro}, parallel=parallel)

    @property
    def deepspeed(self) -> dict[str, Any]:
        distances = {
            "stage3_max_reuse_distance": self.far.reuse,
            "stage3_prefetch_bucket_size": self.far.ahead,
            "stage3_max_live_parameters": self.far.live,
            "stage3_param_persistence_threshold": self.far.persistent,
        }
        return {"zero_optimization": distances}


# a block of MODEL has 49,408 elements; DeepSpeed's defaults are 20 and 1 of a block of 5 · 10^7
NEAR = Distances(reuse=0, ahead=0, persistent=0)
SCALED = Distances(reuse=60_000, ahead=5_000, live=200_000, persistent=1_000)
KEPT = replace(SCALED, reuse=10**7, live=10**7)  # for the whole window
DATA = {
    "filler": Case("filler"),
    "filler, small ones whole": Case("filler", far=Distances(persistent=5_000)),
    "filler, accumulated": Case("filler", micro=2),
    "filler, checkpointed": Case("filler", checkpointing=True, far=SCALED),
    "inserter behind a frozen filler": Case("inserter", far=NEAR),
    "picker": Case("picker", far=NEAR),
    "picker behind a frozen filler": Case("frozen filler", far=NEAR),
    "joint": Case("joint"),
    "joint, given up at once": Case("joint", far=NEAR),
    "joint, given up late": Case("joint", far=replace(SCALED, reuse=150_000)),
    "joint, checkpointed": Case("joint", checkpointing=True, far=SCALED),
    "joint, checkpointed, kept": Case("joint", checkpointing=True, far=KEPT),
    "windows of unlike length": Case("ragged", far=Distances(persistent=5_000)),
    "language model": Case("lm", far=SCALED, model=ONE_TRUNK | {"family": "diffusion"}),
    "language model, kept": Case("lm", far=KEPT, model=ONE_TRUNK | {"family": "diffusion"}),
    "span": Case("span", model=SPAN, far=SCALED),
    "ZeRO-2, joint": Case("joint", zero=2),
    "ZeRO-1, accumulated": Case("filler", zero=1, micro=2),
    "ZeRO-0, joint": Case("joint", zero=0),
}
TENSOR = {
    "filler": Case("filler"),
    "filler, checkpointed": Case("filler", checkpointing=True),
    "inserter behind a frozen filler": Case("inserter"),
    "picker, accumulated": Case("picker", micro=2),
    "picker behind a frozen filler": Case("frozen filler", far=NEAR),
    "joint": Case("joint"),
    "joint, checkpointed, ZeRO-1": Case("joint", zero=1, checkpointing=True),
    "language model": Case("lm", model=ONE_TRUNK | {"family": "autoregressive"}),
    "span": Case("span", model=SPAN),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    arguments = parser.parse_args()
    rows = compare(DATA, ranks=2, tensor=1) + compare(TENSOR, ranks=4, tensor=2)
    write(arguments.json, "plan_traffic", rows)
    for row in rows:
        where = f"DP {row['data']} TP {row['tensor']}  {row['case']}"
        print(
            f"{where:48} {row['metric']:16} {row['value']:12,.0f}  planned {row['planned']:12,.0f}  {row['ratio']:.3f}"
        )


def compare(cases: dict[str, Case], *, ranks: int, tensor: int) -> list[Row]:
    """A row for each case and kind of which something was measured or planned: bytes of whole tensors, of a rank."""
    rows: list[Row] = []
    data = ranks // tensor
    for name, (counted, draws) in measure(cases, ranks=ranks, tensor=tensor).items():
        case = cases[name]
        run = case.run(tensor)
        planned = traffic(run, run.stages[0], VOCABULARY, data, draws=draws or None, far=case.far)
        for kind in KINDS:
            real, expected = counted.get(kind, 0), getattr(planned, kind)
            if (tensor if kind.startswith("tensor") else data) == 1 or max(real, expected) < 1024:
                continue  # one rank sends nothing; norms and losses of a step
            rows.append(
                {"metric": kind, "value": real, "n": 1, "planned": expected, "ratio": expected / max(real, 1),
                 "case": name, "data": data, "tensor": tensor}
            )  # fmt: skip
    return rows


def measure(cases: dict[str, Case], *, ranks: int, tensor: int) -> dict[str, Counted]:
    """What the ranks of each case counted. Raises RuntimeError if a rank fails."""
    settings = {name: (case.run(tensor), case.deepspeed) for name, case in cases.items()}
    count = partial(measure_cases, settings, VOCABULARY, tensor)
    return result_of(f"the {ranks} ranks", count, ranks, timeout=1200, cpu=True)


if __name__ == "__main__":
    main()
