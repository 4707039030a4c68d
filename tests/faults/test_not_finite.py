"""NaN or infinity on one rank: every rank skips that step, and nothing of it stays behind. A module without a gradient,
if only in one window: every rank says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

pytestmark = pytest.mark.distributed

TWO_WINDOWS = ["stages.3.steps=5", "stages.3.rollout.rounds=2", "stages.3.rollout.window=1"]
BF16 = "parallel.precision=bf16"
VARIANTS = {
    **{
        f"zero{stage}-{kind}": {"set": [f"parallel.zero_stage={stage}"], "kind": kind}
        for stage in range(4)
        for kind in ("loss", "gradient")
    },
    "zero3-accumulation": {"set": ["batch.micro=2"], "kind": "gradient"},
    **{
        f"zero{stage}-last-window": {"set": [f"parallel.zero_stage={stage}", *TWO_WINDOWS], "kind": kind, "stage": 3}
        for stage, kind in ((0, "gradient"), (3, "loss"))
    },
    **{f"bf16-zero{stage}": {"set": [f"parallel.zero_stage={stage}", BF16], "kind": "loss"} for stage in range(4)},
}

SILENT = {f"silent-zero{stage}": [f"parallel.zero_stage={stage}"] for stage in (0, 2, 3)}


@pytest.fixture(scope="module")
def seen(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("nan")
    config = tiny.write_config(folder, data)
    job = {"config": str(config), "out": str(folder), "variants": VARIANTS, "silent": SILENT}
    (folder / "job.json").write_text(json.dumps(job))
    done = tiny.launch(2, Path(__file__).with_name("nan_worker.py"), folder / "job.json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_ranks_skip_it_together(variant: str, seen: list[dict]) -> None:
    for rank in seen:
        assert rank[variant]["taken"] == [True, True, False, True, True]
        assert rank[variant]["without"] == [True] * 4
        assert rank[variant]["equal"], "the run differs from one that never saw the spoilt step"


@pytest.mark.parametrize("variant", SILENT)
def test_a_module_that_falls_silent_in_one_window_is_named_by_every_rank(variant: str, seen: list[dict]) -> None:
    for rank in seen:
        assert rank[variant].startswith("stage joint, rounds 2 to 3: no gradient reached gate.")
