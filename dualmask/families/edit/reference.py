"""Picker and Gate as a stage found them, frozen: what the decisions of stage `reward` are held against."""

# B batch, T tokens, D width

from __future__ import annotations

import torch
from torch import Tensor, nn

from dualmask.core.batch import Batch
from dualmask.families.edit.gate import Gate
from dualmask.families.edit.masked_lm import MaskedLMScores
from dualmask.families.edit.model import DraftScores, DualMask, judge
from dualmask.families.edit.picker import Picker


class Reference(nn.Module):
    """Token table and filler are not copied: they are frozen in the stages that have a reference."""

    def __init__(self, model: DualMask) -> None:
        super().__init__()
        with next(model.parameters()).device:  # meta, where the trainer fills it as it fills the model
            self.picker = Picker(model.config, activation_checkpointing=False)
            self.gate = Gate(model.config)
        for copy, original in ((self.picker, model.picker), (self.gate, model.gate)):
            copy.load_state_dict(original.state_dict())
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(
        self, x_BTD: Tensor, batch: Batch, keep_rate: Tensor, masked_lm: MaskedLMScores, written_prob: Tensor
    ) -> DraftScores:
        return judge(self.picker, self.gate, x_BTD, batch, keep_rate, masked_lm, written_prob)
