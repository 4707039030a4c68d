"""The benchmark of checkpoints at a tiny size: both arms save real ones, one of them is done when ``save`` returns."""

from __future__ import annotations

from pathlib import Path

import torch
from stages import make_engine

from benchmarks import checkpoint
from dualmask.config.deepspeed import deepspeed_config
from dualmask.families.task import build
from dualmask.training.checkpoint import find_trouble
from dualmask.training.engine import init_distributed


def test_both_arms_write(tmp_path: Path) -> None:
    init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cpu"))
    run = checkpoint.configuration(hidden=16, layers=1)
    settings = deepspeed_config(run, run.stages[0], data_size=1, cuda=False)
    engine = make_engine(run, build(run.model, checkpoint.VOCABULARY), settings)
    seen = checkpoint.measure(run, engine, tmp_path, repeats=1)
    engine.close()
    assert seen.keys() == checkpoint.ARMS.keys()
    for arm, metrics in seen.items():
        (written,) = (tmp_path / arm / "checkpoints").iterdir()
        assert written.name == "step-00000001"
        assert find_trouble(written) is None
        assert 0 < metrics["held_up"][0] <= metrics["written"][0]
