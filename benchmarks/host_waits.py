"""What the host does in a step: how often it waits for the device, and how many operations it starts.

``python -m benchmarks.host_waits``: of a micro-batch, forward and backward together, with the depth of the model of
125 M parameters and a small width. Needs no GPU: a wait is recognised by the operation that makes it.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections import Counter
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.engines import as_on_a_gpu, build_engine, build_model, join
from benchmarks.runs import Size, Tree, joint, random_batch, small_run
from dualmask.config.schema import RunConfig
from dualmask.core import host
from dualmask.curriculum import plan_at

# results whose size, or whose value in Python, the data decide
_DATA_DEPENDENT = {
    "_local_scalar_dense", "nonzero", "nonzero_numpy", "argwhere", "masked_select", "equal", "bincount", "unique_dim",
    "unique_consecutive", "unique_dim_consecutive", "_unique", "_unique2",
}  # fmt: skip
_READS = {"tolist", "numpy", "cpu", "__array__", "__dlpack__"}  # of a tensor, by the host: no operation tells of it
_WRITES = {"tensor", "as_tensor", "from_numpy", "to"}  # on the device: they wait, too, unless the memory is pinned
_DOORS = ((host.Copy, "__init__"), (host.Copy, "wait"), (host.Work, "wait"), (host, "to_device"))
_FREE = {"detach", "alias", "lift_fresh", "_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "set_"}


class HostWork:
    """Counts within ``with``: ``waits`` by operation (those of the doors by their names), and ``operations``.

    Sees tensors of any device as if they were on a GPU. Of other threads it sees nothing: the host does not wait for
    them.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.operations = 0
        self._in_a_door = False
        self._thread = threading.get_ident()

    def __enter__(self) -> HostWork:
        self._stack = ExitStack()
        self._stack.enter_context(_Calls(self))
        self._stack.enter_context(_Operations(self))
        for owner, name in _DOORS:
            door = self._door(getattr(owner, name), f"planned {name}" if name == "wait" else None)
            self._stack.enter_context(patch.object(owner, name, door))
        from_numpy = torch.from_numpy
        self._stack.enter_context(patch("torch.from_numpy", lambda array: self._upload(from_numpy, array)))
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stack.close()

    def note(self, name: str) -> None:
        if not self._in_a_door and threading.get_ident() == self._thread:
            self.waits[name] += 1

    def _upload(self, from_numpy: Any, array: Any) -> Tensor:
        self.note("from_numpy")
        return from_numpy(array)

    def _door(self, function: Any, wait: str | None) -> Any:
        def through(*arguments: Any) -> Any:
            if threading.get_ident() != self._thread:
                return function(*arguments)
            if wait is not None:
                self.note(wait)
            before, self._in_a_door = self._in_a_door, True
            try:
                return function(*arguments)
            finally:
                self._in_a_door = before

        return through


class _Calls(TorchFunctionMode):
    """What Python asks of a tensor without an operation."""

    def __init__(self, work: HostWork) -> None:
        super().__init__()
        self._work = work

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        name = getattr(function, "__name__", "")
        if name in _READS or (name in _WRITES and _moves(name, arguments, options)):
            self._work.note(name)
        return function(*arguments, **options)


def _moves(name: str, arguments: Any, options: Any) -> bool:
    """``to`` only where it says "cpu": a tensor of the host that goes to the device was noted when it was made."""
    if name == "to":
        return "cpu" in [value for value in (*arguments[1:], *options.values()) if isinstance(value, str)]
    return not isinstance(arguments[0], Tensor)


class _Operations(TorchDispatchMode):
    """What is started on the device, in the backward pass as well."""

    def __init__(self, work: HostWork) -> None:
        super().__init__()
        self._work = work

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in _DATA_DEPENDENT or _by_mask(name, args) or _repeats(name, args, kwargs or {}):
            self._work.note(name)
        if not function.is_view and name not in _FREE:
            self._work.operations += 1
        return function(*args, **(kwargs or {}))


def _by_mask(name: str, arguments: Any) -> bool:
    """An index of booleans is a hidden ``nonzero``; writing one number by it is not, it fills."""
    if name.strip("_") not in ("index", "index_put", "index_put_impl"):
        return False
    masks = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in arguments[1])
    return masks and (name == "index" or arguments[2].ndim > 0)


def _repeats(name: str, arguments: Any, options: Any) -> bool:
    """By a tensor of numbers, without the size that comes out."""
    return name == "repeat_interleave" and len(arguments) == 1 and options.get("output_size") is None


SIZE = Size(hidden=32, layers=0, heads=4, length=32, sequences=4, vocabulary=512)
DEPTHS = {"filler_layers": 8, "inserter_layers": 3, "picker_layers": 3}  # configs/dualmask_125m.yaml
STAGES: dict[str, Tree] = {
    "filler": {"name": "filler", "train": ["filler"]},
    "inserter": {"name": "inserter", "train": ["inserter"], "losses": {"recon": 0, "ptr_count": 1}},
    "picker": joint(1, 1) | {"name": "picker"},
    "joint, 1 round": joint(1, 1),
    "joint, 4 rounds in 1 window": joint(4, 4),
    "joint, 4 rounds in 2 windows": joint(4, 2),
}


def measure(stage: Tree, zero: int = 0) -> HostWork:
    """One micro-batch of the third step: ZeRO-3 learns the order of the modules in those before."""
    run = run_of(stage, zero)
    engine = build_engine(run, build_model(run, SIZE.vocabulary))
    for step in range(3):
        plan = plan_at(run.stages, step)
        batch = engine.task.prepare(random_batch(SIZE, step), plan).to(engine.device)
        with as_on_a_gpu(), HostWork() as work:
            engine.forward_backward(batch, plan, last=True)
        engine.step(1e-4)
    engine.close()
    return work


def run_of(stage: Tree, zero: int = 0) -> RunConfig:
    model = {"family": "dualmask", "hidden": SIZE.hidden, "heads": SIZE.heads, "max_length": SIZE.length} | DEPTHS
    return small_run(stage, model, batch={"sequences": SIZE.sequences}, parallel={"zero_stage": zero})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="host_waits", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    join(timeout_seconds=600)
    table = Table("stage", "waits", "of these", "operations", title="a micro-batch, forward and backward")
    for name, stage in STAGES.items():
        work = measure(stage)
        kinds = ", ".join(f"{number} {kind}" for kind, number in work.waits.most_common())
        table.add_row(name, str(work.waits.total()), kinds, f"{work.operations:,}")
    Console(width=130).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
