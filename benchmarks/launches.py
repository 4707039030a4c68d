"""Counts the kernels of training steps against the planner's: ``python -m benchmarks.launches --json out.json``.

A kernel is an operation of torch's dispatcher that computes something: neither a view nor a place to write to. On a GPU
each is one launch or a few. Small models on the CPU will do: the number does not depend on sizes. One row more is the
time of an alignment, on one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.engines import build_model, build_task, passes
from benchmarks.runs import ALL_MODULES, LOSSES, Size, joint, random_batch, small_run
from dualmask.config.schema import RunConfig
from dualmask.curriculum import plan_at
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row
from dualmask.nn.parallel import mesh
from dualmask.ops.alignment import align
from launcher.planner.launches import alignment_seconds, launches
from launcher.planner.passes import Shape, walk

SIZE = Size(hidden=64, length=32, sequences=4, vocabulary=300)
LAYERS = {"filler_layers": 8, "inserter_layers": 3, "picker_layers": 3}  # as configs/dualmask_125m.yaml
SPAN = {"family": "spanfusion", "span": {"decoder_layers": 6, "encoder_layers": 4}}
STEPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lm, 6 layers": ({"name": "lm", "train": ["lm"]}, {"family": "autoregressive", "layers": 6}),
    "filler": ({"name": "filler", "train": ["filler"]}, LAYERS),
    "picker": ({"name": "picker", "train": list(ALL_MODULES), "losses": LOSSES}, LAYERS),
    "joint, 4 rounds": (joint(4, 2, gate_rows=0.1), LAYERS),
    "span": ({"name": "span", "train": ["decoder", "encoder", "gate"], "span": {"lengths": [8]}}, SPAN),
}
NO_KERNEL = frozenset(
    {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_local_scalar_dense"}
    | {"_unsafe_view", "_reshape_alias", "lift_fresh", "detach", "alias", "is_same_size"}
)


class KernelCount(TorchDispatchMode):
    """Operations that compute something while it is on, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = function._schema
        is_view = any(value.alias_info and not value.alias_info.is_write for value in schema.returns)
        name = schema.name.removeprefix("aten::")
        self.number += function.namespace == "aten" and not is_view and name not in NO_KERNEL
        return function(*args, **(kwargs or {}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="launches", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="result file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    mesh.single_process()
    rows = [row(name) for name in STEPS] + [alignment(length) for length in (128, 1024, 2048)]
    write(arguments.json, "launches", rows)
    for one in rows:
        print(f"{one['case']:20} {one['metric']:20} {one['value']:10,.6g}  planned {one['planned']:10,.6g}")


def row(name: str) -> Row:
    stage, model = STEPS[name]
    sizes = {"hidden": SIZE.hidden, "heads": SIZE.heads, "max_length": SIZE.length}
    run = small_run(stage, sizes | model, batch={"sequences": SIZE.sequences})
    shape = Shape(run.model, SIZE.vocabulary, SIZE.sequences)
    planned = launches(shape, run.stages[0], walk(shape, run.stages[0]))
    return {"metric": "kernels", "case": name, "value": counted(run), "planned": planned, "n": 1}


def counted(run: RunConfig) -> int:
    """In the forward and backward passes of one micro-batch of the run's one stage."""
    model = build_model(run, SIZE.vocabulary)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(run.stages[0].module_of(name) is not None)
    task, plan = build_task(run, model), plan_at(run.stages, run.stages[0].steps - 1)
    with KernelCount() as count:
        passes(task, random_batch(SIZE, 0), plan)
    return count.number


def alignment(length: int) -> Row:
    """Seconds of a text of which every seventh token is wrong."""
    run = small_run(joint(1, 1), {"max_length": length}, batch={"sequences": 1})
    batch = random_batch(Size(length=length, vocabulary=32768), 0)
    draft = batch.tokens.clone()
    draft[:, 3:-3:7] += 1
    best = float("inf")
    for _ in range(9):
        start = time.process_time()
        align(draft, batch.length, batch.tokens, batch.length)
        best = min(best, time.process_time() - start)
    shape = Shape(run.model, 32768, 1)
    planned = alignment_seconds(shape, run.stages[0], walk(shape, run.stages[0]))
    case = f"text of {length}"
    return {"metric": "alignment_seconds", "case": case, "value": best / len(draft), "planned": planned, "n": 9}


if __name__ == "__main__":
    main()
