"""Rotary position embeddings (Su et al. 2021) for real-valued positions, which may carry a gradient."""

# H heads, E head width; […] tokens

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotary:
    cos: Tensor  # […, 1, E/2]
    sin: Tensor  # […, 1, E/2]

    def apply(self, x: Tensor) -> Tensor:
        """[…, H, E] with the pairs (i, i + E/2) rotated by the angle position × frequency_i."""
        first, second = x.chunk(2, dim=-1)
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotary(position: Tensor, head_width: int, theta: float) -> Rotary:
    """From positions […] float; angles are computed in float32 whatever the precision of the model."""
    exponent = torch.arange(0, head_width, 2, device=position.device, dtype=torch.float32) / head_width
    angle = position[..., None, None].float() * theta**-exponent
    return Rotary(angle.cos(), angle.sin())
