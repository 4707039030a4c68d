"""A stack of transformer blocks: picker, inserter, filler and each language model have one of their own."""

# B batch, T tokens, D width

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dualmask.config.model import ModelConfig
from dualmask.nn import initial
from dualmask.nn.block import Block, causal_mask, key_mask
from dualmask.nn.cache import Appendable, TrunkCache
from dualmask.nn.parallel.linear import shared
from dualmask.nn.rotary import rotary


class DepthwiseConv(nn.Module):
    """Adds a depthwise convolution over neighbouring tokens (replicated over the tensor-parallel group).

    It spares a small model the long plateau before attention learns to find the neighbours. Causal: the same number of
    tokens, all to the left.
    """

    REACH = 2

    def __init__(self, width: int, *, causal: bool = False) -> None:
        super().__init__()
        self.left = 2 * self.REACH if causal else self.REACH
        self.weight = nn.Parameter(torch.empty(2 * self.REACH + 1, width))
        initial.begin(self.weight, initial.Normal(0.5))

    def forward(self, x_BTD: Tensor, present: Tensor, cached: Appendable | None = None) -> Tensor:
        width, span = x_BTD.shape[1], 2 * self.REACH
        x_BTD = x_BTD * present[..., None]
        seen = (x_BTD if cached is None else cached.append(x_BTD))[:, -(width + self.left) :]
        missing = width + self.left - seen.shape[1]
        padded = nn.functional.pad(seen, (0, 0, missing, span - self.left))
        for offset in range(span + 1):
            x_BTD = x_BTD + self.weight[offset] * padded[:, offset : offset + width]
        return x_BTD


class Trunk(nn.Module):
    """From embeddings, positions and presence to normalised hidden states."""

    def __init__(
        self, config: ModelConfig, layers: int, *, causal: bool = False, activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.causal = causal
        self.head_width = config.hidden // config.heads
        self.theta = config.rope_theta
        self.activation_checkpointing = activation_checkpointing
        # residual branches start small, so that depth does not change the scale of the states (GPT-2)
        output_std = config.init_std / (2 * layers) ** 0.5
        self.neighbours = DepthwiseConv(config.hidden, causal=causal)
        self.blocks = nn.ModuleList(Block(config, output_std=output_std) for _ in range(layers))
        self.norm = nn.LayerNorm(config.hidden)

    def forward(self, x_BTD: Tensor, position: Tensor, present: Tensor, cache: TrunkCache | None = None) -> Tensor:
        """[B, T, D] from embeddings [B, T, D], positions [B, T] float and presence [B, T] bool.

        ``cache``: holds the tokens before these (causal trunks only).
        """
        assert cache is None or self.causal
        rotation = rotary(shared(position), self.head_width, self.theta).to(x_BTD.dtype)
        seen = present if cache is None else cache.present.append(present[..., None]).squeeze(-1)
        mask = causal_mask(seen, present.shape[1]) if self.causal else key_mask(present)
        x_BTD = self.neighbours(x_BTD, present, cache and cache.embeddings)
        for number, block in enumerate(self.blocks):
            cached = cache and cache.keys_values[number]
            if self.activation_checkpointing and self.training:
                # non-reentrant: the reentrant form fails under ZeRO-3 for modules that are used twice, and cuts off the
                # gradient of the cached keys and values
                x_BTD = checkpoint(block, x_BTD, rotation, mask, cached, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, rotation, mask, cached)
        return self.norm(x_BTD)
