"""A block of the SpanEncoder: self-attention over a span's states, cross-attention to the decoder's states, MLP."""

# B batch, K places of a span, D width, H heads of this rank, E head width

from __future__ import annotations

from torch import Tensor, nn

from dualmask.config.model import ModelConfig
from dualmask.nn.block import MLP, Attention
from dualmask.nn.hidden import Rows
from dualmask.nn.layout import PaddedRows
from dualmask.nn.parallel import mesh
from dualmask.nn.parallel.linear import Column, Row
from dualmask.nn.rotary import Rotary

FULL = PaddedRows()  # spans have no padding


class CrossAttention(nn.Module):
    """Softmax attention from one sequence of states to another of the same places."""

    def __init__(self, config: ModelConfig, *, output_std: float) -> None:
        super().__init__()
        self.heads = config.heads // mesh.tensor_size()
        self.head_width = config.hidden // config.heads
        # laid out head by head, as in self-attention
        self.query = Column(config.hidden, config.hidden, std=config.init_std)
        rows = Rows(2, self.head_width)
        self.key_value = Column(config.hidden, 2 * config.hidden, std=config.init_std, rows=rows)
        self.output = Row(config.hidden, config.hidden, std=output_std)

    def forward(self, z_BKD: Tensor, h_BKD: Tensor, rotary: Rotary) -> Tensor:
        q = self.query(z_BKD).unflatten(-1, (self.heads, self.head_width))
        k, v = self.key_value(h_BKD).unflatten(-1, (self.heads, 2, self.head_width)).unbind(-2)
        return self.output(FULL.attend(rotary.apply(q), rotary.apply(k), v).flatten(-2))


class SpanBlock(nn.Module):
    def __init__(self, config: ModelConfig, *, output_std: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden)
        self.attention = Attention(config, output_std=output_std)
        self.cross_norm = nn.LayerNorm(config.hidden)
        self.cross = CrossAttention(config, output_std=output_std)
        self.mlp_norm = nn.LayerNorm(config.hidden)
        self.mlp = MLP(config, output_std=output_std)

    def forward(self, z_BKD: Tensor, h_BKD: Tensor, rotary: Rotary) -> Tensor:
        z_BKD = z_BKD + self.attention(self.attention_norm(z_BKD), rotary, FULL)
        z_BKD = z_BKD + self.cross(self.cross_norm(z_BKD), h_BKD, rotary)
        return z_BKD + self.mlp(self.mlp_norm(z_BKD))
