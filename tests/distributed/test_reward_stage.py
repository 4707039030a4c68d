"""Stage `reward` in a real run: ZeRO-3 on two ranks, cut off and resumed, exported; and from a file of scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from dualmask.core.tokenizer import Tokenizer
from dualmask.training.export import export

pytestmark = pytest.mark.distributed

FILLER: dict[str, Any] = {"name": "filler", "steps": 1, "train": ["filler"], "lr": {"peak": 1e-3}}


def reward(steps: int, rollout: dict[str, Any], **reward: Any) -> dict[str, Any]:
    own = {"teacher_forced_deletions": 0, "on_policy_counts": 1, "gate_rows": 0, "first_round": "gate"}
    return {
        "name": "reward",
        "steps": steps,
        "train": ["picker", "gate"],
        "lr": {"peak": 3e-3, "decay": "constant"},
        "losses": {"recon": 0, "reinforce": 1},
        "deletion": {"temperature": 0.5},
        "rollout": own | rollout,
        "reward": {"kl_coefficient": 0.1} | reward,
    }


def test_two_ranks_and_a_second_life(data: Path, tmp_path: Path) -> None:
    """The reference is part of a checkpoint, not of the model."""
    stages = [FILLER, reward(6, {"rounds": 2, "window": 2, "samples": 4}, source="rouge")]
    often = {"every_steps": 4, "keep_last": 9}
    whole = tiny.write_config(tmp_path, data, "whole", stages=stages, checkpoint=often)
    assert tiny.finish(tiny.start_ranks(2, whole)) == [0, 0]
    again = tiny.write_config(tmp_path, data, "again", stages=stages)
    middle = tmp_path / "whole" / "checkpoints" / "step-00000004"
    assert tiny.finish(tiny.start_ranks(2, again, "--resume", middle)) == [0, 0]
    first, second = (tiny.read_record(tmp_path / name) for name in ("whole", "again"))
    assert second == first[4:]
    assert first[1]["losses"]["divergence"] == pytest.approx(0, abs=1e-6), "it begins where its reference stands"
    assert first[-1]["losses"]["divergence"] > 1e-6
    assert all(0 <= line["losses"]["reward"] <= 1 for line in first[1:])
    weights = load_file(tmp_path / "again" / "export" / "model.safetensors")
    assert {name.split(".")[0] for name in weights} == {"table", "filler", "inserter", "picker", "gate"}
    shutil.rmtree(tmp_path / "again" / "export")
    export(tmp_path / "again", tmp_path / "out")  # from the checkpoint
    from_checkpoint = load_file(tmp_path / "out" / "model.safetensors")
    assert from_checkpoint.keys() == weights.keys()
    assert all(torch.equal(from_checkpoint[name], weights[name]) for name in weights)


def write_scores(path: Path, data: Path) -> list[dict[str, Any]]:
    tokenizer = Tokenizer(data / "tokenizer.model")
    texts = [tokenizer.decode(range(100 + number, 108 + number)) for number in range(6)]
    edits = [{"draft": text, "output": text[: 3 * (at % 2)], "score": at % 3} for at, text in enumerate(texts)]
    path.write_text("".join(json.dumps(edit) + "\n" for edit in edits))
    return edits


def test_a_file_of_scores(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    write_scores(file, data)
    stages = [FILLER, reward(4, {}, source="scores", scores=str(file))]
    config = tiny.write_config(tmp_path, data, "scored", stages=stages)
    done = tiny.train(1, config)
    assert done.returncode == 0, done.stderr
    record = tiny.read_record(tmp_path / "scored")
    assert len(record) == 5
    assert "scored" in record[-1]["losses"]
    assert record[1]["keys"] != record[2]["keys"]
    file.write_text(file.read_text() + '{"draft": "a", "output": "b"}\n')
    refused = tiny.train(1, config, "--resume", "never")
    assert refused.returncode == 2
    assert "scores.jsonl line 7" in refused.stderr.splitlines()[-1]
