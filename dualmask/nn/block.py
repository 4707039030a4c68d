"""One pre-norm transformer block: self-attention and MLP, split over the tensor-parallel group."""

# D width, H heads of this rank, E head width; […] the tokens as the layout has them

from __future__ import annotations

from torch import Tensor, nn

from dualmask.config.model import ModelConfig
from dualmask.nn.cache import Appendable
from dualmask.nn.hidden import Rows
from dualmask.nn.layout import Layout
from dualmask.nn.parallel import mesh
from dualmask.nn.parallel.linear import Column, Row
from dualmask.nn.parallel.sequence import Norm, shaped
from dualmask.nn.rotary import Rotary


class Attention(nn.Module):
    """Softmax attention of each token over those of its text that the layout shows it."""

    def __init__(self, config: ModelConfig, *, output_std: float) -> None:
        super().__init__()
        self.heads = config.heads // mesh.tensor_size()
        self.head_width = config.hidden // config.heads
        # the 3D outputs are laid out head by head as [q k v], so that splitting heads splits rows
        self.qkv = Column(config.hidden, 3 * config.hidden, std=config.init_std, rows=Rows(3, self.head_width))
        self.output = Row(config.hidden, config.hidden, std=output_std)

    def forward(self, x: Tensor, rotary: Rotary, layout: Layout, cached: Appendable | None = None) -> Tensor:
        """[…, D] from […, D]. ``cached``: keys and values of the tokens in front of these."""
        qkv = shaped(self.qkv(x), rotary.tokens)
        q, k, v = qkv.unflatten(-1, (self.heads, 3, self.head_width)).unbind(-2)
        return self.output(layout.attend(rotary.apply(q), rotary.apply(k), v, cached).flatten(-2))


class MLP(nn.Module):
    def __init__(self, config: ModelConfig, *, output_std: float) -> None:
        super().__init__()
        self.up = Column(config.hidden, config.ffn_multiple * config.hidden, std=config.init_std)
        self.down = Row(config.ffn_multiple * config.hidden, config.hidden, std=output_std)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config: ModelConfig, *, output_std: float) -> None:
        super().__init__()
        self.attention_norm = Norm(config.hidden)
        self.attention = Attention(config, output_std=output_std)
        self.mlp_norm = Norm(config.hidden)
        self.mlp = MLP(config, output_std=output_std)

    def forward(self, x: Tensor, rotary: Rotary, layout: Layout, cached: Appendable | None = None) -> Tensor:
        """[…, D] from […, D]."""
        x = x + self.attention(self.attention_norm(x), rotary, layout, cached)
        return x + self.mlp(self.mlp_norm(x))
