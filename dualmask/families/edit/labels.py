"""The alignments of a step's drafts with their targets, made beside what the device does (see ``ops.alignment``)."""

# B batch, T tokens of the draft, U tokens of the target

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dualmask.core import host
from dualmask.core.batch import Batch
from dualmask.ops.alignment import Ids, align_rows


class Aligner:
    """Holds drafts against the targets of a step, in a thread of its own that ends with this object."""

    def __init__(self, target: Ids, length: Ids) -> None:
        """target [B, U] ids of lengths [B]."""
        self._target, self._length = target, length
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="alignment")  # starts when there is something to do

    def begin(self, tokens: Tensor, length: Tensor) -> host.Work[Ids]:
        return host.Work(self._pool, self._align, host.Copy(tokens, length))

    def _align(self, tokens: Ids, length: Ids) -> Ids:
        return align_rows(tokens, length, self._target, self._length)


@dataclass(frozen=True)
class Labels:
    """What the host knows of a batch of drafts."""

    positions: Tensor | host.Work[Ids]  # [B, T] position in the target of each right token, -1 for the others
    deletable: int | None = None  # tokens between BOS and EOS, of all drafts together; None: not known
    aligner: Aligner | None = None  # None: nothing follows

    @classmethod
    def of(cls, draft: Batch, target: Batch) -> Self:
        """Waits for the drafts, and aligns them at once."""
        planes = host.Copy(draft.tokens, draft.length, target.tokens, target.length).wait()
        positions = host.to_device(align_rows(*planes), draft.tokens.device)
        deletable = int(np.sum(planes[1] - 2))
        return cls(positions, deletable, Aligner(*planes[2:]))

    def on(self, device: torch.device) -> Tensor:
        """The positions, awaited if they are still being made."""
        if isinstance(self.positions, Tensor):
            return self.positions
        return host.to_device(self.positions.wait(), device)

    def after(self, tokens: Tensor, length: Tensor, deletable: int | None) -> Labels:
        """Begins with those of the drafts [B, T] that a round has led to."""
        assert self.aligner is not None
        return Labels(self.aligner.begin(tokens, length), deletable, self.aligner)
