"""A stack of transformer blocks: picker, inserter, filler and each language model have one of their own."""

# B batch, T tokens, D width

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dualmask.config.model import ModelConfig
from dualmask.core.batch import Counts
from dualmask.nn import initial
from dualmask.nn.block import Block
from dualmask.nn.cache import Appendable, TrunkCache
from dualmask.nn.layout import Layout, lay_out
from dualmask.nn.parallel import sequence
from dualmask.nn.parallel.linear import Column, Row, shared
from dualmask.nn.parallel.sequence import Norm
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

    def forward(self, x: Tensor, layout: Layout, cached: Appendable | None = None) -> Tensor:
        """[…, D] from […, D]. ``cached``: embeddings of the tokens in front of these."""
        right = 2 * self.REACH - self.left
        spaced = layout.spaced(x, self.left, right, cached)
        places = spaced.shape[-2] - self.left - right
        first, *others = self.weight.unbind()
        mixed = first * spaced.narrow(-2, 0, places)
        for offset, weight in enumerate(others, 1):
            mixed = torch.addcmul(mixed, weight, spaced.narrow(-2, offset, places))
        return x + layout.unspaced(mixed, self.left, right)


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
        self.norm = Norm(config.hidden)
        self.tokens_split = False

    def forward(
        self,
        x_BTD: Tensor,
        position: Tensor,
        present: Tensor,
        cache: TrunkCache | None = None,
        *,
        lengths: Counts | None = None,
        layout: Layout | None = None,
    ) -> Tensor:
        """[B, T, D] from embeddings [B, T, D], positions [B, T] float and presence [B, T] bool; padding means nothing.

        ``cache``: holds the tokens before these (causal trunks only). lengths [B]: of rows that are padded on
        the right, where the host knows them (see ``layout.lay_out``). layout: where ``present`` does not say
        who sees whom; it is not looked at then.
        """
        assert cache is None or self.causal
        if layout is None:
            layout = lay_out(present, causal=self.causal, lengths=lengths, cache=cache)
        rotation = rotary(layout.lay(shared(position)), self.head_width, self.theta).to(x_BTD.dtype)
        x = self.neighbours(layout.lay(x_BTD), layout, cache and cache.embeddings)
        tokens = x.shape[:-1]
        x = sequence.split(x) if self.tokens_split else x
        for number, block in enumerate(self.blocks):
            cached = cache and cache.keys_values[number]
            if self.activation_checkpointing and self.training:
                # non-reentrant: the reentrant form fails under ZeRO-3 for modules that are used twice, and cuts off the
                # gradient of the cached keys and values
                x = checkpoint(block, x, rotation, layout, cached, use_reentrant=False)
            else:
                x = block(x, rotation, layout, cached)
        x = self.norm(x)
        return layout.rows(sequence.join(x, tokens) if self.tokens_split else x)


def split_tokens(module: nn.Module) -> None:
    """From now on each tensor-parallel rank keeps, in the trunks of ``module``, the states of its part of the tokens
    (``parallel.sequence``)."""
    for trunk in (one for one in module.modules() if isinstance(one, Trunk)):
        trunk.tokens_split = True
        for layer in trunk.modules():
            if isinstance(layer, Column | Row | Norm):
                layer.tokens_split = True
