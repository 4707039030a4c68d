"""Which parameters ZeRO-3 gathers in a window of rounds, and how many it holds at a time.

The rules are those of DeepSpeed 0.19's ``PartitionedParameterCoordinator`` once it knows the order of calls: a module's
parameters are gathered before it is called, forward or backward, and given up behind it unless fewer than
``stage3_max_reuse_distance`` elements are used before it is called again. A backward pass gives up a module only if
its last forward pass was one that a gradient comes back from; what it does not give up stays until the window ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from dualmask.planning.parameters import Parameter
from dualmask.planning.passes import Pass

REUSE_DISTANCE = 10**9  # elements: DeepSpeed's stage3_max_reuse_distance
PERSISTENT = 10**5  # elements up to which a parameter stays whole: its stage3_param_persistence_threshold


@dataclass(frozen=True)
class Visit:
    owner: str  # the module that holds the parameters itself, not in a child
    backward: bool
    fed: bool = False  # forward: a gradient goes back to its inputs; backward: its own forward is repeated for it


@dataclass(frozen=True)
class Gathers:
    """Elements."""

    moved: int
    most: int  # held at a time, persistent ones left out


def owner(parameter: Parameter) -> str:
    return parameter.name.rpartition(".")[0]


def visits(window: Sequence[Pass], found: Sequence[Parameter], *, checkpointing: bool) -> Iterator[Visit]:
    """All of a window, forward and then backward."""
    names = list(dict.fromkeys(owner(p) for p in found))
    forward = [(one, _owners(one, names)) for one in window]
    for one, owners in forward:
        yield from (Visit(name, False, one.module != "lookup" and one.gradient != "none") for name in owners)
    for one, owners in reversed(forward):
        if one.gradient == "none":
            continue
        for block, part in groupby(reversed(owners), _block):
            last, *others = part
            again = checkpointing and bool(block)
            if again:  # asked for by the block's last module, which is there already
                yield from (Visit(name, False, True) for name in reversed(others))
            yield Visit(last, True, again)
            yield from (Visit(name, True) for name in others)


def count(
    order: Sequence[Visit], whole: Mapping[str, int], moving: Mapping[str, int], reuse: int = REUSE_DISTANCE
) -> Gathers:
    """``whole``: elements of each owner, of which ``moving`` are not persistent. ``reuse`` 0: nothing is kept."""
    before = list(accumulate((whole[visit.owner] for visit in order), initial=0))
    following: dict[str, int] = {}
    near = [False] * len(order)
    for place in range(len(order) - 1, -1, -1):
        name = order[place].owner
        near[place] = name in following and before[following[name]] - before[place + 1] < reuse
        following[name] = place
    waiting: dict[str, int] = {}
    held: set[str] = set()
    moved = live = most = 0
    for visit, soon in zip(order, near, strict=True):
        name = visit.owner
        if name not in held:
            held.add(name)
            moved, live = moved + moving[name], live + moving[name]
            most = max(most, live)
        waiting[name] = waiting.get(name, 0) - 1 if visit.backward and not visit.fed else int(visit.fed and not visit.backward)
        if not soon and (not visit.backward or waiting[name] == 0):
            held.remove(name)
            live -= moving[name]
    return Gathers(moved, most)


def sizes(found: Sequence[Parameter], tensor: int, persistent: int) -> tuple[dict[str, int], dict[str, int]]:
    """(all, those that are not persistent) elements of each owner on one tensor-parallel rank, twins included."""
    whole: dict[str, int] = {}
    moving: dict[str, int] = {}
    for parameter in found:
        size = parameter.size(tensor)
        for name in (owner(parameter), _twin(owner(parameter))):
            whole[name] = whole.get(name, 0) + size
            moving[name] = moving.get(name, 0) + (size if size > persistent else 0)
    return whole, moving


def _owners(one: Pass, names: Sequence[str]) -> list[str]:
    if one.module == "lookup":
        mine = ["table"]
    elif one.module == "logits":
        mine = ["projection" if "projection" in names else "table"]
        mine = [] if one.reading == "draw" else mine  # from logits that are there already
    else:
        mine = [name for name in names if name.split(".", 1)[0] == one.module]
    return [_twin(name) for name in mine] if one.twin else mine


def _twin(name: str) -> str:
    return f"teacher.{name}"


def _block(name: str) -> str:
    """``filler.trunk.blocks.3`` of ``filler.trunk.blocks.3.mlp.up``; "" outside a block."""
    head, found, tail = name.partition(".blocks.")
    return f"{head}{found}{tail.split('.', 1)[0]}" if found else ""
