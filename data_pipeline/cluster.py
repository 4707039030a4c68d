"""A Ray of our own for the time of a build: on this machine, on 127.0.0.1, quiet."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECT_STORE_BYTES = 256 * 2**20  # Ray Data spills to disk beyond it
_BLOCK_BYTES = 4 * 2**20


@contextmanager
def local_ray(workers: int) -> Iterator[None]:
    """Starts Ray with ``workers`` processes unless it runs in this process already; stops what it started."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray.data import DataContext

    started = not ray.is_initialized()
    if started:
        ray.init(
            address="local",
            num_cpus=workers,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            configure_logging=True,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True  # a build is a pure function of its input
    context.target_max_block_size = _BLOCK_BYTES
    try:
        yield
    finally:
        if started:
            ray.shutdown()
