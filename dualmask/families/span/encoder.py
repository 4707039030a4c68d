"""The SpanEncoder of SpanFusionLM: refines the states of a span, all places at once, step by step (seed 004, §2)."""

# B batch, K places of a span, D width

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dualmask.config.model import ModelConfig
from dualmask.families.span.block import SpanBlock
from dualmask.nn.parallel.linear import shared
from dualmask.nn.rotary import rotary


class SpanEncoder(nn.Module):
    """Bidirectional; reads the decoder's states of the same places by cross-attention."""

    def __init__(self, config: ModelConfig, layers: int, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.head_width = config.hidden // config.heads
        self.theta = config.rope_theta
        self.activation_checkpointing = activation_checkpointing
        output_std = config.init_std / (3 * layers) ** 0.5  # three residual branches a block
        self.blocks = nn.ModuleList(SpanBlock(config, output_std=output_std) for _ in range(layers))
        self.norm = nn.LayerNorm(config.hidden)

    def forward(self, z_BKD: Tensor, h_BKD: Tensor, position: Tensor) -> Tensor:
        """One step: states [B, K, D] from states, the decoder's states [B, K, D] and places in the whole text [B, K].

        Rotary attention sees differences only, so the same offset on both sides (seed 004, §7) changes nothing.
        """
        rotation = rotary(shared(position), self.head_width, self.theta)
        for block in self.blocks:
            if self.activation_checkpointing and self.training:
                z_BKD = checkpoint(block, z_BKD, h_BKD, rotation, use_reentrant=False)
            else:
                z_BKD = block(z_BKD, h_BKD, rotation)
        return self.norm(z_BKD)
