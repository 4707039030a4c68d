"""The Gate: for each text, whether this round edits (deletes, then inserts and fills) or generates (seed 000)."""

# B batch, T tokens, D width, F statistics

from __future__ import annotations

import torch
from torch import Tensor, nn

from dualmask.families.edit.config import EditConfig
from dualmask.families.edit.picker import DeleteLogits
from dualmask.nn import initial
from dualmask.nn.hidden import mark

STATISTICS = 7
DOUBTFUL = -3.0  # log-odds under which the filler hardly believes a token
BOUND = 5.0  # of the logit, softly: a Gate that is sure for good would learn nothing more


def statistics(logits: DeleteLogits, filler_prob: Tensor, written_prob: Tensor, deletable: Tensor) -> Tensor:
    """[B, F] what picker and filler think of the draft's tokens, as a few figures. No gradient.

    filler_prob [B, T]: the filler's probability of each token; written_prob [B, T]: that with which the model wrote it,
    1 if it was given; deletable [B, T] bool.
    """
    number = deletable.sum(1).clamp_min(1)

    def mean(value: Tensor) -> Tensor:
        return (value * deletable).sum(1) / number

    wrong = torch.sigmoid(logits.wrong.detach().float())
    gain = torch.sigmoid(logits.unary.detach().float()) - (1 - wrong)  # expected tokens set right by deleting this one
    believed = torch.logit(filler_prob.float(), eps=1e-4)
    figures = [
        mean(wrong),
        (wrong * deletable).amax(1),
        torch.log1p((gain.clamp_min(0) * deletable).sum(1)),
        (gain.masked_fill(~deletable, -1)).amax(1),
        mean((written_prob < 1).float()),
        mean(believed) / 4,
        mean((believed < DOUBTFUL).float()),
    ]
    return torch.stack(figures, dim=-1)


class Gate(nn.Module):
    """One hidden layer over the pooled filler state and the draft's statistics."""

    def __init__(self, config: EditConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden)
        self.state = nn.Linear(config.hidden, config.hidden, bias=False)
        self.statistics = nn.Linear(STATISTICS, config.hidden)
        self.decide = nn.Linear(config.hidden, 1)
        initial.begin(self.state.weight, initial.Normal(config.init_std))
        mark(self.state.weight)
        initial.begin(self.decide.weight, initial.Normal(config.init_std))
        initial.begin(self.decide.bias, initial.Constant(0.0))

    def forward(self, pooled_BD: Tensor, statistics_BF: Tensor) -> Tensor:
        """[B] logit that the round edits, float32."""
        pooled_BD = self.norm(pooled_BD.to(self.norm.weight.dtype))
        h_BD = self.state(pooled_BD) + self.statistics(statistics_BF.to(pooled_BD.dtype))
        logit = self.decide(nn.functional.gelu(h_BD, approximate="tanh")).squeeze(-1).float()
        return BOUND * torch.tanh(logit / BOUND)
