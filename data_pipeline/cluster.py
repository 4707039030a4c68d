"""Ray for the duration of a build: a local instance on 127.0.0.1, or the cluster at ``RAY_ADDRESS``."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OBJECT_STORE_BYTES = 256 * 2**20  # of the arguments of tasks: what they make lies on disk

# Ray's servers listen on every network interface, even if the address 127.0.0.1 is given, unless this variable tells
# Ray that it runs on a desktop system. Ray reads it when it is imported.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

_QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
_JOIN_TIMEOUT_SECONDS = 150
_SOCKET_FOLDER_BYTES = 36  # Ray adds up to 70: /ray/session_…/sockets/plasma_store

log = logging.getLogger(__name__)


class ClusterError(ValueError):
    """The Ray cluster cannot be joined. The message is one line."""


def cores() -> int:
    """Those that this process may use: all, or what ``taskset`` and the like have left of them."""
    return len(os.sched_getaffinity(0))


@contextmanager
def running_ray(workers: int) -> Iterator[None]:
    """Joins the cluster at ``RAY_ADDRESS`` if that is set, otherwise starts a local Ray with ``workers`` processes.

    Uses a Ray that already runs in this process; stops at the end only what it started. Raises ClusterError.
    """
    address = os.environ.get("RAY_ADDRESS") or None
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None:
        os.environ.pop("RAY_ADDRESS", None)  # an empty one is none
        os.environ.update(LOOPBACK_ONLY)
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        if address is not None:
            _join(address, nodes=int(os.environ.get("DUALMASK_RAY_NODES", "1")))
        else:
            _start(workers)
        yield
    finally:
        ray.shutdown()


def _start(workers: int) -> None:
    import ray

    folder = _socket_folder()
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):  # Ray would write one into the home folder
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        ray.init(
            address="local",
            num_cpus=workers,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            **_QUIET,
        )
    except Exception as error:  # of any kind: it starts servers, and reads much of its environment
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ClusterError(f"Ray cannot be started in {folder}: {reason}") from error


def _socket_folder() -> str:
    """Where Ray may put its sockets: the name of a socket has 107 bytes at most. Raises ClusterError."""
    folders = [os.environ.get(name, "") for name in ("RAY_TMPDIR", "TMPDIR")]
    for folder in filter(None, [*folders, "/tmp"]):
        if len(os.fsencode(folder)) <= _SOCKET_FOLDER_BYTES and os.access(folder, os.W_OK | os.X_OK):
            return os.path.join(folder, "ray")
    tried = ", ".join(f"{name}={folder}" for name, folder in zip(("RAY_TMPDIR", "TMPDIR"), folders, strict=True))
    raise ClusterError(
        f"Ray's sockets need a folder that can be written to and whose name has at most {_SOCKET_FOLDER_BYTES} bytes, "
        f"not {tried} or /tmp: set RAY_TMPDIR to one"
    )


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
