"""The two language models on four ranks, tensor-parallel and ZeRO-3 together, give what one plain process gives."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import plain_language_model
import pytest
import tiny
import torch
from test_parity import SPLIT_ALL, TENSOR, WORKER

from data_pipeline.crop import Crop
from data_pipeline.reader import ShardReader, Share
from dualmask.config.load import load_run

FAMILIES = ("autoregressive", "diffusion")
STEPS = 6


@pytest.fixture(scope="module")
def config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    stage = {"name": "lm", "steps": STEPS, "train": ["lm"], "lr": {"peak": 3e-3, "warmup_steps": 2}}
    model = {"family": "autoregressive", "layers": 2}
    return tiny.write_config(tmp_path_factory.mktemp("families"), data, model=model, stages=[stage])


@pytest.fixture(scope="module")
def four_ranks(config: Path) -> dict[str, dict]:
    job = {"config": str(config), "out": str(config.parent), "tensor": 2, "vocab_size": tiny.VOCAB}
    job["variants"] = {
        family: {"set": [TENSOR, f"model.family={family}"], "deepspeed": SPLIT_ALL} for family in FAMILIES
    }
    (config.parent / "job.json").write_text(json.dumps(job))
    done = tiny.launch(4, WORKER, config.parent / "job.json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {family: torch.load(config.parent / family / "result.pt", weights_only=True) for family in FAMILIES}


@pytest.mark.distributed
@pytest.mark.parametrize("family", FAMILIES)
def test_four_ranks_learn_what_one_plain_process_learns(family: str, config: Path, four_ranks: dict[str, dict]) -> None:
    run = load_run(config, [f"model.family={family}"])
    data = ShardReader(run.data.path, Share(run.batch.sequences, seed=0), Crop(run.data.crop_share))
    losses, weights = plain_language_model.train(run, tiny.VOCAB, itertools.islice(data, STEPS))
    data.close()
    assert four_ranks[family]["losses"] == pytest.approx(losses, rel=0, abs=1e-5)
    assert four_ranks[family]["weights"].keys() == weights.keys()
    for name, weight in weights.items():
        assert (four_ranks[family]["weights"][name] - weight).abs().max() < 1e-5, name
