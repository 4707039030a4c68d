"""A Ray cluster of several nodes on the loopback interface, whose processes can be killed one by one."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import tenacity

from data_pipeline.cluster import LOOPBACK_ONLY

TASK = "ray::make_block"  # the name of a process that works for a build
_OBJECT_STORE_BYTES = 80 * 2**20
_ON_A_BUSY_MACHINE = tenacity.Retrying(stop=tenacity.stop_after_attempt(4), reraise=True)  # Ray waits 30 s for a node


class Nodes:
    """``environment`` leads a build to them; the first holds Ray's head, and is the one that drivers join."""

    def __init__(self) -> None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # a process keeps the first one that it sees
        self._folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # else Ray's tools would find any cluster
        with _changed(os.environ, self._of_ray()):  # Ray reads some of it when it is imported
            from ray.cluster_utils import Cluster

            self._cluster = Cluster()
        self.nodes: list[Any] = []

    def _of_ray(self) -> dict[str, str]:
        values = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"],
            "RAY_AUTH_MODE": "token",
        }
        return {**LOOPBACK_ONLY, **values, "RAY_TMPDIR": self._folder}

    def add(self, **more: Any) -> None:
        """A node of one core."""
        options = {"num_cpus": 1, "object_store_memory": _OBJECT_STORE_BYTES, "node_ip_address": "127.0.0.1"}
        with _changed(os.environ, self._of_ray()):
            add = self._cluster.add_node
            self.nodes.append(_ON_A_BUSY_MACHINE(add, **{**options, "include_dashboard": False, **more}))

    @property
    def environment(self) -> dict[str, str]:
        return {**self._of_ray(), "RAY_ADDRESS": self._cluster.address, "DUALMASK_RAY_NODES": str(len(self.nodes))}

    def tasks(self, node: Any = None) -> list[psutil.Process]:
        """The processes that work for a build, on one node or on all."""
        found = []
        for each in self.nodes if node is None else [node]:
            for process in _below(self._raylet(each)):
                with suppress(psutil.NoSuchProcess):
                    found += [process] if process.name() == TASK else []
        return found

    def kill_raylet(self, node: Any) -> None:
        """kill -9 of the process that speaks for a node; what it has started notices that by itself."""
        self.nodes.remove(node)
        with suppress(psutil.NoSuchProcess):
            self._raylet(node).kill()

    def power_off(self, node: Any) -> None:
        """kill -9 of a node's processes, all at once."""
        self.nodes.remove(node)
        raylet = self._raylet(node)
        for process in [raylet, *_below(raylet)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def power_off_head(self) -> None:
        """The first node with what it does for all others."""
        head = self.nodes[0]
        self.power_off(head)
        for name in ("gcs_server", "monitor", "dashboard", "log_monitor"):
            for info in head.all_processes.get(name, []):
                info.process.kill()

    def close(self) -> None:
        self._cluster.shutdown()
        for process in psutil.process_iter():  # a worker that was starting when its raylet was killed stays
            with suppress(psutil.Error):
                if process.environ().get("RAY_TMPDIR") == self._folder:
                    process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @staticmethod
    def _raylet(node: Any) -> psutil.Process:
        (info,) = node.all_processes["raylet"]
        return psutil.Process(info.process.pid)


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@contextmanager
def _changed(environment: os._Environ[str], values: dict[str, str]) -> Iterator[None]:
    before = dict(environment)
    environment.update(values)
    try:
        yield
    finally:
        environment.clear()
        environment.update(before)


@contextmanager
def ray_nodes(number: int) -> Iterator[Nodes]:
    nodes = Nodes()
    try:
        for _ in range(number):
            nodes.add()
        yield nodes
    finally:
        nodes.close()
