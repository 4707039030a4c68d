"""Decoder-2, the Mask Inserter: how many [MASK]s belong in each gap of a skeleton."""

# B batch, T tokens, G gaps = T-1, K most masks a gap, D width

from __future__ import annotations

from torch import Tensor, nn

from dualmask.core.batch import present
from dualmask.families.edit.config import EditConfig
from dualmask.families.edit.outputs import InserterOut
from dualmask.nn.parallel.linear import Column, Row
from dualmask.nn.trunk import Trunk
from dualmask.ops.gaps import contiguous_positions, gap_present


class Inserter(nn.Module):
    """A categorical count per gap, read from the states of the gap's two neighbours (method.md §1)."""

    def __init__(self, config: EditConfig, *, activation_checkpointing: bool) -> None:
        super().__init__()
        self.trunk = Trunk(config, config.inserter_layers, activation_checkpointing=activation_checkpointing)
        self.left = Column(config.hidden, config.hidden, std=config.init_std)
        self.right = Column(config.hidden, config.hidden, std=config.init_std)
        self.count = Row(config.hidden, config.max_gap_count + 1, std=config.init_std, head=True)

    def forward(self, x_BTD: Tensor, length: Tensor) -> InserterOut:
        """x_BTD: embeddings of the skeleton; length [B]."""
        width = x_BTD.shape[1]
        h_BTD = self.trunk(x_BTD, contiguous_positions(x_BTD), present(length, width))
        h_BGD = nn.functional.gelu(self.left(h_BTD[:, :-1]) + self.right(h_BTD[:, 1:]), approximate="tanh")
        return InserterOut(self.count(h_BGD).float(), gap_present(length, width))
