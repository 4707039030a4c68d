"""Which model a configuration means."""

from __future__ import annotations

from torch import nn

from dualmask.config.schema import Family, ModelConfig
from dualmask.families.edit.model import DualMask
from dualmask.families.lm.model import Autoregressive, MaskedDiffusion
from dualmask.families.span.model import SpanFusion

FAMILIES: dict[Family, type[DualMask | SpanFusion | Autoregressive | MaskedDiffusion]] = {
    "dualmask": DualMask,
    "spanfusion": SpanFusion,
    "autoregressive": Autoregressive,
    "diffusion": MaskedDiffusion,
}


def build(config: ModelConfig, vocab_size: int, *, activation_checkpointing: bool = False) -> nn.Module:
    """A fresh model of ``config.family``, weights drawn from torch's generator."""
    return FAMILIES[config.family](config, vocab_size, activation_checkpointing=activation_checkpointing)
