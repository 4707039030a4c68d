"""Decoder-2, the Mask Inserter: how many [MASK]s belong in each gap of a skeleton."""

# B batch, T tokens, G gaps = T-1, K most masks a gap, D width

from __future__ import annotations

import torch
from torch import Tensor, nn

from dualmask.core.batch import present
from dualmask.families.edit.config import EditConfig
from dualmask.families.edit.outputs import InserterOut
from dualmask.families.edit.told import NOT_TOLD, ToldGaps
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
        self.most, self.told_pieces = config.max_gap_count, config.told_pieces
        # 0 … K tokens were deleted from the gap: nothing at first, as where that is not told
        self.gone = Column(config.max_gap_count + 1, config.hidden, std=0.0, table=True)
        self.pieces: Column | None = None
        if config.told_pieces:
            self.pieces = Column(config.told_pieces * config.hidden, config.hidden, std=0.0, table=True)
        self.count = Row(config.hidden, config.max_gap_count + 1, std=config.init_std, head=True)

    def forward(self, x_BTD: Tensor, length: Tensor, told: ToldGaps | None = None) -> InserterOut:
        """x_BTD: embeddings of the skeleton; length [B].

        told: how many tokens were deleted from each gap, and the embeddings [B, G, P, D] of the first P of them; None:
        that is known nowhere.
        """
        width = x_BTD.shape[1]
        h_BTD = self.trunk(x_BTD, contiguous_positions(x_BTD), present(length, width))
        if told is None:
            told = self._untold(h_BTD)
        row = told.number.clamp_max(self.most)  # no row if not told
        is_row = row[..., None] == torch.arange(self.most + 1, device=row.device)  # `one_hot` would make the host wait
        told_BGD = self.gone(is_row.to(h_BTD.dtype))
        if self.pieces is not None:
            told_BGD = told_BGD + self.pieces(told.pieces.flatten(2))
        h_BGD = nn.functional.gelu(self.left(h_BTD[:, :-1]) + self.right(h_BTD[:, 1:]) + told_BGD, approximate="tanh")
        return InserterOut(self.count(h_BGD).float(), gap_present(length, width))

    def _untold(self, h_BTD: Tensor) -> ToldGaps:
        """Zeros for the pieces: every module gets a gradient."""
        number = torch.full(h_BTD[:, 1:, 0].shape, NOT_TOLD, device=h_BTD.device)
        return ToldGaps(number, h_BTD.new_zeros(1, 1, self.told_pieces, h_BTD.shape[2]))
