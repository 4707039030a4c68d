"""Rotary position embeddings (Su et al. 2021) for real-valued positions, which may carry a gradient."""

# H heads, E head width; […] tokens

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotary:
    cos: Tensor  # […, 1, E] of each pair twice
    sin: Tensor  # […, 1, E] the first half negative

    @property
    def tokens(self) -> torch.Size:
        """[…]"""
        return self.cos.shape[:-2]

    def apply(self, x: Tensor) -> Tensor:
        """[…, H, E] with the pairs (i, i + E/2) rotated by the angle position × frequency_i."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cos.to(x.dtype) + torch.cat([second, first], dim=-1) * self.sin.to(x.dtype)

    def to(self, dtype: torch.dtype) -> Rotary:
        """In the precision of what is rotated: once for all layers."""
        return Rotary(self.cos.to(dtype), self.sin.to(dtype))


def rotary(position: Tensor, head_width: int, theta: float) -> Rotary:
    """From positions […] float; angles are computed in float32 whatever the precision of the model."""
    exponent = torch.arange(0, head_width, 2, device=position.device, dtype=torch.float32) / head_width
    angle = position[..., None, None].float() * theta**-exponent
    cos, sin = angle.cos(), angle.sin()
    return Rotary(torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1))
