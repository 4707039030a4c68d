"""The benchmark of checkpoints at a tiny size: both arms save real ones, one of them is done when ``save`` returns."""

from __future__ import annotations

from pathlib import Path

from benchmarks import checkpoint
from benchmarks.engines import build_engine, build_model, join
from dualmask.evaluation.report import find
from dualmask.training.checkpoint import find_trouble


def test_both_arms_write(tmp_path: Path) -> None:
    join(cpu=True)
    run = checkpoint.configuration(hidden=16, layers=1)
    engine = build_engine(run, build_model(run, checkpoint.SIZE.vocabulary))
    rows = checkpoint.measure(run, engine, tmp_path, repeats=1)
    engine.close()
    assert {row["method"] for row in rows} == checkpoint.ARMS.keys()
    for arm in checkpoint.ARMS:
        (written,) = (tmp_path / arm / "checkpoints").iterdir()
        assert written.name == "step-00000001"
        assert find_trouble(written) is None
        held_up, whole = (find(rows, metric=metric, method=arm)["value"] for metric in ("held_up", "written"))
        assert 0 < held_up <= whole
