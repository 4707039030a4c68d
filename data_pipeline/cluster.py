"""Ray for the duration of a build: a local instance on 127.0.0.1, or the cluster at ``RAY_ADDRESS``."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OBJECT_STORE_BYTES = 256 * 2**20  # Ray Data spills to disk beyond it
_BLOCK_BYTES = 4 * 2**20

# Ray's servers listen on every network interface, even if the address 127.0.0.1 is given, unless this variable tells
# Ray that it runs on a desktop system. Ray reads it when it is imported.
_LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

_QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
_JOIN_TIMEOUT_SECONDS = 150

log = logging.getLogger(__name__)


class ClusterError(ValueError):
    """The Ray cluster cannot be joined. The message is one line."""


@contextmanager
def running_ray(workers: int) -> Iterator[None]:
    """Joins the cluster at ``RAY_ADDRESS`` if that is set, otherwise starts a local Ray with ``workers`` processes.

    Uses a Ray that already runs in this process; stops at the end only what it started. Raises ClusterError.
    """
    address = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None:
        os.environ.update(_LOOPBACK_ONLY)
    import ray
    from ray.data import DataContext

    started = not ray.is_initialized()
    if started and address is not None:
        _join(address, nodes=int(os.environ.get("DUALMASK_RAY_NODES", "1")))
    elif started:
        ray.init(
            address="local",
            num_cpus=workers,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **_QUIET,
        )
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, and explained by the build
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True  # a build is a pure function of its input
    context.raise_original_map_exception = True  # so that the build can tell a full disk from a bad file
    context.target_max_block_size = _BLOCK_BYTES
    try:
        yield
    finally:
        if started:
            ray.shutdown()


def _join(address: str, nodes: int) -> None:
    """Waits until the cluster, which may still be starting, has ``nodes`` nodes."""
    import ray

    end, alive = time.monotonic() + _JOIN_TIMEOUT_SECONDS, 0
    while alive < nodes:
        try:
            ray.init(address=address, ignore_reinit_error=True, **_QUIET)
            alive = sum(node["Alive"] for node in ray.nodes())
        except ConnectionError:
            pass  # the head node has not started yet
        if time.monotonic() > end:
            raise ClusterError(f"RAY_ADDRESS={address} has {alive} of {nodes} nodes after {_JOIN_TIMEOUT_SECONDS} s")
        time.sleep(0.5)
    log.info("Ray: %d nodes, %d cores", alive, ray.cluster_resources().get("CPU", 0))
