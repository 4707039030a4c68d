"""Which parameters ZeRO-3 gathers in a window of rounds, and how many it holds at a time.

The rules are those of DeepSpeed 0.19's ``PartitionedParameterCoordinator`` once it knows the order of calls:

* A module's parameters are gathered before it is called, forward or backward, with a bucket of those that follow.
* Behind the call they are given up, unless fewer than ``stage3_max_reuse_distance`` elements are used before the next
  call, or that call was already looked at when others were gathered ahead.
* A backward pass gives them up only if the module's last forward pass was one that a gradient comes back from. What it
  does not give up stays until the window ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Literal

from dualmask.config.deepspeed import zero_3
from dualmask.config.schema import ParallelConfig
from launcher.planner.parameters import Parameter
from launcher.planner.passes import Pass, Window, flat

TWIN = "teacher."  # in front of the names of a second model's modules
Kind = Literal["forward", "fed", "backward", "opened", "repeated"]


@dataclass(frozen=True)
class Distances:
    """Of DeepSpeed's configuration, elements; its defaults."""

    reuse: int = 10**9  # stage3_max_reuse_distance
    ahead: int = 5 * 10**7  # stage3_prefetch_bucket_size
    live: int = 10**9  # stage3_max_live_parameters: nothing is gathered ahead above it
    persistent: int = 10**5  # stage3_param_persistence_threshold: parameters up to it stay whole

    @staticmethod
    def of(parallel: ParallelConfig) -> Distances:
        """Those that DeepSpeed is given."""
        given = zero_3(parallel)
        return Distances(
            reuse=given["stage3_max_reuse_distance"],
            ahead=given["stage3_prefetch_bucket_size"],
            live=given["stage3_max_live_parameters"],
            persistent=given["stage3_param_persistence_threshold"],
        )


FORGETFUL = Distances(reuse=0, ahead=0, persistent=0)  # what it does while it does not know the order


@dataclass(frozen=True)
class Visit:
    """A call of one module. "fed": a forward pass that a gradient comes back from; "opened": its backward pass begins
    with repeating the block that it ends; "repeated": that is done."""

    owner: str  # the module that holds the parameters itself, not in a child
    kind: Kind


@dataclass(frozen=True)
class Gathers:
    """Elements."""

    moved: int
    most: int  # held at a time, persistent ones left out
    once: int  # of all modules that are called, each once: less cannot be moved


@lru_cache(maxsize=1024)
def gathers(
    window: Window, every: tuple[Parameter, ...], tensor: int, checkpointing: bool, far: Distances
) -> Gathers:  # fmt: skip
    """Of a window on each of ``tensor`` tensor-parallel ranks. ``every``: all parameters of the model."""
    order = list(visits(window, every, checkpointing=checkpointing))
    return count(order, *_sizes(every, tensor, far.persistent), far)


def visits(window: Window, every: Sequence[Parameter], *, checkpointing: bool) -> Iterator[Visit]:
    """All of a window, forward and then backward."""
    names = list(dict.fromkeys(p.owner for p in every))
    passes = [(one, _owners(one, names)) for one in flat([window])]
    yield Visit("objective", "forward")
    if all(one.module != "picker" for one, _ in passes):  # rounds call the parts of the model, others the model
        yield Visit("objective.model", "forward")
    for one, owners in passes:
        kind: Kind = "fed" if one.module != "lookup" and one.gradient != "none" else "forward"
        yield from (Visit(name, kind) for name in _called(owners))
    for one, owners in reversed(passes):
        if one.gradient == "none":
            continue
        for block, part in groupby(reversed(owners), _block):
            yield from _backward(block, list(part), again=checkpointing and bool(block))


def _backward(block: str, owners: list[str], *, again: bool) -> Iterator[Visit]:
    """Of modules in their order backward. ``again``: they are a block, which its last module's gradient repeats."""
    if not again:
        yield from (Visit(name, "backward") for name in _called(owners, block))
        return
    last, *others = owners
    yield Visit(last, "opened")
    yield from (Visit(name, "fed") for name in _called(reversed(others), block))
    yield Visit(last, "repeated")
    yield from (Visit(name, "backward") for name in _called(others, block))


def _called(owners: Iterable[str], inside: str = "") -> Iterator[str]:
    """With the modules around them, which are called first and own nothing: each call gathers a bucket ahead."""
    before = inside.split(".")
    for name in owners:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            if before[:depth] != parts[:depth] and parts[depth - 1] != "blocks":  # a list of modules is not called
                yield ".".join(parts[:depth])
        yield name
        before = parts


def count(order: Sequence[Visit], whole: Mapping[str, int], moving: Mapping[str, int], far: Distances) -> Gathers:
    """``whole``: elements of each owner, of which ``moving`` are not persistent."""
    names, near = [visit.owner for visit in order], _near(order, whole, far.reuse)
    waiting: dict[str, int] = {}  # of a module: backward passes until it is given up
    looked: dict[str, int] = {}  # the last of its calls that was looked at
    held: set[str] = set()
    moved = live = most = front = 0

    def gather(name: str) -> int:
        """Elements that had to be."""
        if name in held:
            return 0
        held.add(name)
        return moving.get(name, 0)

    for position, visit in enumerate(order):
        now, ahead = gather(visit.owner), 0
        if looked.get(visit.owner, -1) < position:
            looked[visit.owner], front = position, position + 1
        room = min(far.ahead, far.live - live - now)
        while front < len(order) and ahead < room:
            ahead += gather(names[front])
            looked[names[front]] = front
            front += 1
        moved, live = moved + now + ahead, live + now + ahead
        most = max(most, live)
        if _gives_up(visit, waiting) and not near[position] and looked[visit.owner] <= position + 1:
            held.remove(visit.owner)
            live -= moving.get(visit.owner, 0)
    return Gathers(moved, most, sum(moving.get(name, 0) for name in set(names)))


def _gives_up(visit: Visit, waiting: dict[str, int]) -> bool:
    """Whether the call ends with giving up what is not near. DeepSpeed counts a module's backward passes from its last
    forward pass, whether or not a gradient came back from that one."""
    if visit.kind == "opened":
        return False
    if visit.kind in ("forward", "fed"):
        waiting[visit.owner] = int(visit.kind == "fed")
        return True
    waiting[visit.owner] = 0 if visit.kind == "repeated" else waiting.get(visit.owner, 0) - 1
    return waiting[visit.owner] == 0


def _near(order: Sequence[Visit], whole: Mapping[str, int], reuse: int) -> list[bool]:
    """Of each call: fewer than ``reuse`` elements are used before the module's next one."""
    before = list(accumulate((whole.get(visit.owner, 0) for visit in order), initial=0))
    following: dict[str, int] = {}
    near = [False] * len(order)
    for position in range(len(order) - 1, -1, -1):
        name = order[position].owner
        near[position] = name in following and before[following[name]] - before[position + 1] < reuse
        following[name] = position
    return near


def _sizes(every: Sequence[Parameter], tensor: int, persistent: int) -> tuple[dict[str, int], dict[str, int]]:
    """(all, those not persistent) elements of each owner on one tensor-parallel rank, twins included."""
    whole: dict[str, int] = {}
    moving: dict[str, int] = {}
    for parameter in every:
        size = parameter.size(tensor)
        for name in (parameter.owner, TWIN + parameter.owner):
            whole[name] = whole.get(name, 0) + size
            moving[name] = moving.get(name, 0) + (size if size > persistent else 0)
    return whole, moving


def _owners(one: Pass, names: Sequence[str]) -> list[str]:
    if one.reading in ("likeliest", "draw"):
        return []  # of logits that are there already
    tables = {"lookup": "table", "logits": "projection" if "projection" in names else "table"}
    module = tables.get(one.module, one.module)
    return [(TWIN if one.twin else "") + name for name in names if name.split(".", 1)[0] == module]


def _block(name: str) -> str:
    """``filler.trunk.blocks.3`` of ``filler.trunk.blocks.3.mlp.up``; "" outside a block."""
    trunk, blocks, rest = name.partition(".blocks.")
    return f"{trunk}{blocks}{rest.split('.', 1)[0]}" if blocks else ""
