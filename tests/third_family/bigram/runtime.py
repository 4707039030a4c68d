"""The model, and what its one stage teaches: tensor-parallel layers, one task."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bigram import BigramConfig
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import Tokenizer
from dualmask.curriculum import StepPlan
from dualmask.families.task import Preview, Runtime, Task, WindowLoss, lines_of
from dualmask.nn.parallel.linear import Column, Row, shared
from dualmask.nn.parallel.vocabulary import TokenTable, log_normaliser
from dualmask.nn.token_losses import mean_token_loss, next_tokens


class MLP(nn.Module):
    def __init__(self, config: BigramConfig) -> None:
        super().__init__()
        self.up = Column(config.hidden, config.widening * config.hidden, std=config.init_std)
        self.down = Row(config.widening * config.hidden, config.hidden, std=config.init_std)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD + self.down(torch.relu(self.up(x_BTD)))


class Bigram(nn.Module):
    depth = 0  # blocks with keys and values to keep

    def __init__(self, config: BigramConfig, vocab_size: int, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.table = TokenTable(vocab_size, config.hidden, std=config.init_std)
        self.mlp = MLP(config)

    def logits(self, states: Tensor, slot: Tensor) -> Tensor:
        return self.table(states.flatten(0, 1).index_select(0, slot), logits=True)

    def next_logits(self, tokens: Tensor, position: Tensor, present: Tensor, cache: Any = None) -> Tensor:
        return self.table(self.mlp(self.table(tokens[:, -1:]))[:, -1], logits=True)


class BigramTask(Task):
    model: Bigram

    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: Any) -> WindowLoss:
        out = next_tokens(batch, self.model.mlp(self.model.table(batch.tokens)), self.model.logits)
        nll = mean_token_loss(out, batch, given=1)
        flatness = log_normaliser(shared(out.logits)).mean()
        return WindowLoss(nll + plan.stage.smoothing * flatness, {"nll": nll.detach()})

    def preview(self, batch: Batch, plan: StepPlan, tokenizer: Tokenizer) -> Preview:
        return Preview([lines_of({"text": tokenizer.decode(row)}) for row in batch.tokens.tolist()])


def task(model: Bigram, stage: Any, run: Any, tokenizer: Tokenizer | None) -> BigramTask:
    return BigramTask(model)


RUNTIME = Runtime(build=Bigram, task=task)
