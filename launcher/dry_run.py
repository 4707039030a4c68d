"""What a run would do, without doing it: stages, learning rates, DeepSpeed's settings, parameter counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import yaml

from dualmask.config.deepspeed import deepspeed_config
from dualmask.curriculum import learning_rate, total_steps
from dualmask.families.task import build
from dualmask.nn.parallel import mesh
from launcher.preflight import Preflight


def describe(ready: Preflight, world: int) -> str:
    """YAML. Raises ValueError for contradictions that only DeepSpeed's settings show."""
    run = ready.run
    mesh.single_process()
    with torch.device("meta"):
        model = build(run.model, ready.vocab_size)
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    stages = []
    for stage in run.stages:
        learning: Counter[str] = Counter()
        for name, number in counts.items():
            learning[stage.module_of(name) or "frozen"] += number
        lr = {"first": learning_rate(stage, 0), "peak": stage.lr.peak, "last": learning_rate(stage, stage.steps - 1)}
        stages.append({"name": stage.name, "steps": stage.steps, "lr": lr, "parameters": dict(learning)})
    data_size = world // run.parallel.tensor
    cuda = run.device != "cpu" and torch.cuda.is_available()
    settings = deepspeed_config(run, run.stages[0], data_size=data_size, cuda=cuda, user=ready.deepspeed)
    plan: dict[str, Any] = {
        "run": run.name,
        "output": str(run.output),
        "steps": total_steps(run.stages),
        "tokens_per_step": run.batch.sequences * run.model.max_length,
        "ranks": {"data": data_size, "tensor": run.parallel.tensor},
        "parameters": sum(counts.values()),
        "stages": stages,
        "deepspeed": settings,
    }
    return yaml.safe_dump(plan, sort_keys=False)
