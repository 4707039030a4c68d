"""Encoder and MLM head: fills every [MASK] of a sequence at once."""

# B batch, T tokens, D width, M slots

from __future__ import annotations

from torch import Tensor, nn

from dualmask.families.edit.config import EditConfig
from dualmask.nn.parallel.linear import Column, Row
from dualmask.nn.parallel.vocabulary import TokenTable
from dualmask.nn.trunk import Trunk


class Filler(nn.Module):
    def __init__(self, config: EditConfig, *, activation_checkpointing: bool) -> None:
        super().__init__()
        self.trunk = Trunk(config, config.filler_layers, activation_checkpointing=activation_checkpointing)
        self.up = Column(config.hidden, config.hidden, std=config.init_std)
        self.down = Row(config.hidden, config.hidden, std=config.init_std)
        self.norm = nn.LayerNorm(config.hidden)

    def forward(
        self, x_BTD: Tensor, position: Tensor, present: Tensor, slot: Tensor, table: TokenTable
    ) -> tuple[Tensor, Tensor]:
        """Logits [M, V / tensor] at the slots [M] of the flattened sequence, and the states [B, T, D]."""
        states = self.trunk(x_BTD, position, present)
        h_MD = states.flatten(0, 1).index_select(0, slot)
        h_MD = self.norm(h_MD + self.down(nn.functional.gelu(self.up(h_MD), approximate="tanh")))
        return table(h_MD, logits=True), states
