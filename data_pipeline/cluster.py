"""Ray for the time of a build: one of our own on this machine, on 127.0.0.1, or the cluster at ``RAY_ADDRESS``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OBJECT_STORE_BYTES = 256 * 2**20  # Ray Data spills to disk beyond it
_BLOCK_BYTES = 4 * 2**20

# Ray makes its servers listen on every interface, even where it is told 127.0.0.1, unless it believes that it runs
# on a desktop. Read when ray is imported.
_LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@contextmanager
def running_ray(workers: int) -> Iterator[None]:
    """Joins the cluster at ``RAY_ADDRESS``, with all its cores, or starts Ray here with ``workers`` processes; leaves
    alone what runs in this process already, and stops what it started."""
    where: dict[str, Any] = {"address": os.environ.get("RAY_ADDRESS")}
    if where["address"] is None:
        os.environ.update(_LOOPBACK_ONLY)
        where = {
            "address": "local",
            "num_cpus": workers,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.data import DataContext

    started = not ray.is_initialized()
    if started:
        ray.init(**where, logging_level=logging.ERROR, log_to_driver=False)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised, and explained by the build
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
