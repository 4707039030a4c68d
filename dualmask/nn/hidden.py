"""Which weights map hidden states to hidden states: those that Muon trains (training/muon.py).

Whoever builds such a layer marks its weight here, and no family has to know of optimizers. Token tables, heads,
convolutions and vectors have no mark.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

_MARK = "dualmask_hidden"


@dataclass(frozen=True)
class Rows:
    """How the rows of a weight form matrices: ``parts`` of them, whose rows alternate in blocks of ``block``.

    The fused projection of attention, laid out head by head as [q k v], has three parts in blocks of the heads' width.
    Slices of whole heads, which tensor-parallel ranks hold, are laid out in the same way.
    """

    parts: int = 1
    block: int = 1

    def split(self, weight: Tensor) -> Tensor:
        """[parts, rows / parts, columns] from [rows, columns]."""
        if self.parts == 1:
            return weight[None]
        columns = weight.shape[1]
        blocks = weight.view(-1, self.parts, self.block, columns)
        return blocks.transpose(0, 1).reshape(self.parts, -1, columns)

    def join(self, matrices: Tensor) -> Tensor:
        """The inverse of ``split``."""
        if self.parts == 1:
            return matrices[0]
        columns = matrices.shape[2]
        return matrices.view(self.parts, -1, self.block, columns).transpose(0, 1).reshape(-1, columns)


def mark(weight: Tensor, rows: Rows | None = None) -> None:
    """Says that ``weight`` [rows, columns] maps hidden states to hidden states; ``rows`` None: it is one matrix."""
    setattr(weight, _MARK, rows or Rows())


def rows_of(weight: Tensor) -> Rows | None:
    """None: not such a weight."""
    rows: Rows | None = getattr(weight, _MARK, None)
    return rows
