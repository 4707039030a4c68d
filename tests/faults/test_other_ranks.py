"""1 → 2 → 4 → 1 processes over restarts: every sequence of the epoch occurs once, and the losses are the same."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import warm
from whole import Tally, Whole

from dualmask.training import trainer

pytestmark = pytest.mark.distributed

ATTEMPTS = ((1, 2), (2, 6), (4, 9), (1, None))  # ranks, and the step at which rank 0 receives SIGTERM


def watch(folder: Path, stop_at: int | None, rank: int) -> None:
    """In each rank: records the keys of its sequences, step by step."""
    learn = trainer.run_step

    def run_step(engine: Any, batch: Any, plan: Any, **arguments: Any) -> Any:
        if rank == 0 and plan.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        result = learn(engine, batch, plan, **arguments)
        with (folder / f"keys-{os.getpid()}.jsonl").open("a") as stream:
            stream.write(json.dumps({"step": plan.step, "keys": batch.key.tolist()}) + "\n")
        return result

    trainer.run_step = run_step


def keys_by_step(folder: Path) -> dict[int, list[Any]]:
    seen: dict[int, list[Any]] = {}
    for file in folder.glob("keys-*.jsonl"):
        for line in map(json.loads, file.read_text().splitlines()):
            seen.setdefault(line["step"], []).extend(line["keys"])
    return {step: sorted(keys) for step, keys in seen.items()}


def test_every_sequence_once(alone: Whole, data: Path, tmp_path: Path, tally: Tally) -> None:
    whole = tiny.write_config(tmp_path, data, "whole")
    (tmp_path / "expected").mkdir()
    assert warm.Ranks(1, whole, before=partial(watch, tmp_path / "expected", None)).codes() == [0]
    expected = keys_by_step(tmp_path / "expected")

    config = tiny.write_config(tmp_path, data, "changing", checkpoint={"every_steps": 100})
    (tmp_path / "seen").mkdir()
    for ranks, stop_at in ATTEMPTS:
        attempt = warm.Ranks(ranks, config, before=partial(watch, tmp_path / "seen", stop_at))
        assert attempt.codes() == [0 if stop_at is None else 75] * ranks, attempt.output()[-3000:]
    seen = keys_by_step(tmp_path / "seen")
    every = [key for keys in seen.values() for key in keys]
    once = len(every) == len(set(every)) == tiny.STEPS * 8  # sequences of a step: the epoch is as long as the run
    tally("8. 1 → 2 → 4 → 1 processes: steps with their sequences, each once", once and seen == expected, tiny.STEPS)
    assert once
    assert seen == expected

    record, reference = tiny.read_record(config.with_suffix("")), alone.record
    assert [line["step"] for line in record] == list(range(tiny.STEPS))
    losses = [[line["losses"]["total"] for line in lines] for lines in (record, reference)]
    assert losses[0] == pytest.approx(losses[1], rel=0, abs=1e-5)
