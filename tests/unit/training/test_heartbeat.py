from __future__ import annotations

import threading

import pytest
import torch.distributed as dist

from dualmask.nn.parallel import mesh
from dualmask.training.errors import TrainingError
from dualmask.training.heartbeat import Heartbeat, lost_peers

CLOSED = (
    "[/src/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:29100. "
    "This is typically caused by a remote worker crashing."
)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError(CLOSED), "Connection closed by peer [127.0.0.1]:29100"),
        (caused(TrainingError("checkpoint"), RuntimeError(CLOSED)), "Connection closed by peer [127.0.0.1]:29100"),
        (dist.DistBackendError("NCCL error: remote process exited"), "NCCL error: remote process exited"),
        (dist.DistNetworkError("Broken pipe"), "Broken pipe"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (TrainingError("/data/gloomy/run: 20 steps in a row were not finite"), None),
        (OSError(28, "No space left on device"), None),
    ],
)
def test_whose_end_it_is(error: Exception, reason: str | None) -> None:
    assert lost_peers(error) == reason


def test_one_process_has_nobody_to_miss() -> None:
    mesh.single_process()
    before = threading.active_count()
    heartbeat = Heartbeat(timeout_seconds=1)
    heartbeat.follow(lambda: 3)
    assert threading.active_count() == before
    heartbeat.close()
