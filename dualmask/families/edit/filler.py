"""Encoder and MLM head: fills every [MASK] of a sequence at once, and doubts what stands there."""

# B batch, T tokens, D width, M slots

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from dualmask.core.batch import Counts
from dualmask.families.edit.config import EditConfig
from dualmask.families.edit.told import Hints
from dualmask.nn import initial
from dualmask.nn.parallel.linear import Column, Row
from dualmask.nn.parallel.vocabulary import TokenTable
from dualmask.nn.trunk import Trunk

RARELY = -3.0  # logit that a head which doubts begins with: few tokens are wrong


class Filled(NamedTuple):
    """What the filler says of a text with [MASK]s."""

    logits: Tensor  # [M, V / tensor] at the slots
    states: Tensor  # [B, T, D]
    wrong_logit: Tensor  # [B, T] float32: logit that a visible token does not belong where it stands


class Filler(nn.Module):
    def __init__(self, config: EditConfig, *, activation_checkpointing: bool) -> None:
        super().__init__()
        self.trunk = Trunk(config, config.filler_layers, activation_checkpointing=activation_checkpointing)
        self.up = Column(config.hidden, config.hidden, std=config.init_std)
        self.down = Row(config.hidden, config.hidden, std=config.init_std)
        self.norm = nn.LayerNorm(config.hidden)
        self.hint = nn.Linear(config.hidden, config.hidden, bias=False)
        self.pieces: nn.Linear | None = None
        if config.told_pieces:  # a map for each place in the gap: their order matters
            self.pieces = nn.Linear(config.told_pieces * config.hidden, config.hidden, bias=False)
            initial.begin(self.pieces.weight, initial.Constant(0.0))
        self.doubt = nn.Linear(config.hidden, 1)
        initial.begin(self.hint.weight, initial.Constant(0.0))
        initial.begin(self.doubt.weight, initial.Normal(config.init_std))
        initial.begin(self.doubt.bias, initial.Constant(RARELY))

    def forward(
        self,
        x_BTD: Tensor,
        position: Tensor,
        present: Tensor,
        slot: Tensor,
        table: TokenTable,
        hints: Hints | None = None,
        *,
        lengths: Counts | None = None,
    ) -> Filled:
        """At the slots [M] of the flattened sequence. hints: what was deleted; None: nothing is known of that. lengths:
        as ``Trunk`` has it."""
        if hints is not None:
            x_BTD = x_BTD + self.hint(hints.own)
            if self.pieces is not None:
                x_BTD = x_BTD + self.pieces(hints.pieces.flatten(2))
        states = self.trunk(x_BTD, position, present, lengths=lengths)
        h_MD = states.flatten(0, 1).index_select(0, slot)
        h_MD = self.norm(h_MD + self.down(nn.functional.gelu(self.up(h_MD), approximate="tanh")))
        return Filled(table(h_MD, logits=True), states, self.doubt(states).squeeze(-1).float())
