"""NaN or infinity on one rank: every rank skips that step, without any effect on the state; and modules that get no
gradient in one window: every rank reports it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tiny
from whole import Tally

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(1200)]

TWO_WINDOWS = ["stages.3.steps=5", "stages.3.rollout.rounds=2", "stages.3.rollout.window=1"]
KINDS = ("loss", "gradient")
BF16 = "parallel.precision=bf16"
ZERO = [f"parallel.zero_stage={stage}" for stage in range(4)]


def once(kind: str) -> dict[int, tuple[int, str]]:
    return {2: (1, kind)}


VARIANTS: dict[str, dict[str, Any]] = {
    "zero3-accumulation": {"set": ["batch.micro=2"], "bad": once("gradient")},
    **{
        f"zero{stage}-last-window": {"set": [ZERO[stage], *TWO_WINDOWS], "bad": once(kind), "stage": 3}
        for stage, kind in ((0, "gradient"), (3, "loss"))
    },
    **{f"bf16-zero{stage}": {"set": [ZERO[stage], BF16], "bad": once("loss")} for stage in (0, 3)},
}


def often(stage: int, times: int) -> dict[str, Any]:
    """At drawn steps of either rank, several in a row among them."""
    draw, steps = random.Random(stage), 2 * times
    bad = {step: (draw.randrange(2), draw.choice(KINDS)) for step in draw.sample(range(steps), times)}
    return {"set": [ZERO[stage], f"stages.0.steps={steps}"], "bad": bad, "steps": steps}


MANY = {f"zero{stage}-often": often(stage, times) for stage, times in enumerate((13, 13, 12, 12))}

SILENT = {f"silent-zero{stage}": [f"parallel.zero_stage={stage}"] for stage in (0, 2, 3)}


@pytest.fixture(scope="module")
def seen(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("nan")
    config = tiny.write_config(folder, data)
    job = {"config": str(config), "out": str(folder), "variants": VARIANTS | MANY, "silent": SILENT}
    (folder / "job.json").write_text(json.dumps(job))
    done = tiny.launch(2, Path(__file__).with_name("nan_worker.py"), folder / "job.json", timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_ranks_skip_it_together(variant: str, seen: list[dict]) -> None:
    for rank in seen:
        assert rank[variant]["taken"] == [True, True, False, True, True]
        assert rank[variant]["without"] == [True] * 4
        assert rank[variant]["equal"], "the run differs from one that never saw the spoilt step"


@pytest.mark.parametrize("variant", MANY)
def test_fifty_times(variant: str, seen: list[dict], tally: Tally) -> None:
    bad, steps = MANY[variant]["bad"], MANY[variant]["steps"]
    skipped = [[not taken for taken in rank[variant]["taken"]] for rank in seen]
    for step in bad:
        tally("6. NaN or infinity on one rank", all(rank[step] for rank in skipped))
    assert skipped == [[step in bad for step in range(steps)]] * 2
    assert all(rank[variant]["equal"] for rank in seen)


@pytest.mark.parametrize("variant", SILENT)
def test_a_module_that_falls_silent_in_one_window_is_named_by_every_rank(variant: str, seen: list[dict]) -> None:
    for rank in seen:
        assert rank[variant].startswith("stage joint, rounds 2 to 3: no gradient reached gate.")
