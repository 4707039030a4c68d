"""One pre-norm transformer block: self-attention and MLP, split over the tensor-parallel group."""

# B batch, T queries, S keys, D width, H heads of this rank, E head width

from __future__ import annotations

import torch
from torch import Tensor, nn

from dualmask.config.model import ModelConfig
from dualmask.nn.cache import Appendable
from dualmask.nn.hidden import Rows
from dualmask.nn.parallel import mesh
from dualmask.nn.parallel.linear import Column, Row
from dualmask.nn.rotary import Rotary


class Attention(nn.Module):
    """Softmax attention of each token over those where ``mask`` [B, 1, 1 or T, S] is True."""

    def __init__(self, config: ModelConfig, *, output_std: float) -> None:
        super().__init__()
        self.heads = config.heads // mesh.tensor_size()
        self.head_width = config.hidden // config.heads
        # the 3D outputs are laid out head by head as [q k v], so that splitting heads splits rows
        self.qkv = Column(config.hidden, 3 * config.hidden, std=config.init_std, rows=Rows(3, self.head_width))
        self.output = Row(config.hidden, config.hidden, std=output_std)

    def forward(self, x_BTD: Tensor, rotary: Rotary, mask: Tensor, cache: Appendable | None = None) -> Tensor:
        """[B, T, D] from [B, T, D]. ``cache``: keys and values of the tokens before these (then S > T)."""
        batch, width, _ = x_BTD.shape
        qkv = self.qkv(x_BTD).view(batch, width, self.heads, 3, self.head_width)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        q, k = rotary.apply(q), rotary.apply(k)
        if cache is not None:
            k, v = cache.append(torch.stack([k, v]))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).reshape(batch, width, -1))


class MLP(nn.Module):
    def __init__(self, config: ModelConfig, *, output_std: float) -> None:
        super().__init__()
        self.up = Column(config.hidden, config.ffn_multiple * config.hidden, std=config.init_std)
        self.down = Row(config.ffn_multiple * config.hidden, config.hidden, std=output_std)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(nn.functional.gelu(self.up(x_BTD), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config: ModelConfig, *, output_std: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden)
        self.attention = Attention(config, output_std=output_std)
        self.mlp_norm = nn.LayerNorm(config.hidden)
        self.mlp = MLP(config, output_std=output_std)

    def forward(self, x_BTD: Tensor, rotary: Rotary, mask: Tensor, cache: Appendable | None = None) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotary, mask, cache)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


def key_mask(present: Tensor) -> Tensor:
    """[B, 1, 1, T] bool for attention; True for the keys that may be attended to."""
    return present[:, None, None, :].to(torch.bool)


def causal_mask(present: Tensor, width: int) -> Tensor:
    """[B, 1, T, S] bool: the last ``width`` = T of the tokens ``present`` [B, S] attend to themselves and to the left.

    Padding attends to itself too: the softmax of a row without keys would be NaN, and spread to other rows.
    """
    position = torch.arange(present.shape[1], device=present.device)
    query = position[-width:, None]
    return (((position < query) & present[:, None, :]) | (position == query))[:, None]
