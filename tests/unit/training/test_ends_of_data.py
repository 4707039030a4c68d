"""What a run says when its data come to an end, or when the store does not answer any more."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from data_pipeline.remote import UnreachableError
from dualmask.training.errors import TrainingError
from dualmask.training.preemption import EXIT_CODE
from dualmask.training.trainer import _next
from launcher.train import explain


def test_data_that_end_are_no_traceback() -> None:
    with pytest.raises(TrainingError, match=r"the data has ended before the stages: raise epochs in data\.sources"):
        _next(iter(()))


@pytest.mark.parametrize(("met", "code"), [(False, 2), (True, EXIT_CODE)])
def test_a_store_that_is_lost_in_mid_run_asks_for_another_start(
    met: bool, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the ranks have met it is as any data that cannot be read: the command is wrong, or the store is down."""
    monkeypatch.setattr(dist, "is_initialized", lambda: met)  # tests before this one may have met
    error = UnreachableError("http://store/train-000001.tar cannot be fetched (…): start again when the store answers")
    assert explain(error) == code
    assert capsys.readouterr().err.count("start again when the store answers") == 1
