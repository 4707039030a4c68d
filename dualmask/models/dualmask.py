"""DualMaskLM, one round (method.md §1): delete, count, fill. Decisions are masks over the batch, never branches."""

# B batch, T tokens, G gaps = T-1, D width, M slots

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from dualmask.batch import Batch, present
from dualmask.config.schema import ModelConfig, StageConfig
from dualmask.curriculum import StepPlan
from dualmask.models.filler import Filler
from dualmask.models.inserter import Inserter
from dualmask.models.picker import DeleteLogits, Picker, decide, describe
from dualmask.ops import deletion, gaps, noise
from dualmask.ops.probe import filler_probability
from dualmask.outputs import FillerOut, InserterOut, PickerOut, RoundOut
from dualmask.parallel.vocabulary import TokenTable, cross_entropy
from dualmask.tokenizer import MASK_ID

MODULES = ("filler", "inserter", "picker")


class DualMask(nn.Module):
    """Picker, inserter and filler over one token table. ``model(batch, plan)`` is the teacher-forced training round."""

    def __init__(self, config: ModelConfig, vocab_size: int, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.table = TokenTable(vocab_size, config.hidden, std=config.init_std)
        self.filler = Filler(config, activation_checkpointing=activation_checkpointing)
        self.inserter = Inserter(config, activation_checkpointing=activation_checkpointing)
        self.picker = Picker(config, activation_checkpointing=activation_checkpointing)

    def forward(self, batch: Batch, plan: StepPlan) -> RoundOut:
        stage = plan.stage
        keep_rate = deletion.keep_rates(batch.key, plan.step, plan.keep_rate_low, plan.keep_rate_high)
        deleted, random_row = self._random_deletion(batch, plan, keep_rate)
        draft, picker = batch, None
        if "picker" in stage.train:
            draft = self._corrupt(batch, plan)
            picker = self.pick(
                draft, keep_rate, step=plan.step, temperature=plan.temperature, forced=(random_row, deleted)
            )
            deleted = (picker.keep < 0.5) & batch.deletable
        keep = batch.present & ~deleted
        counts = gaps.gap_counts(keep, deleted)
        inserter = None
        if "inserter" in stage.train or picker is not None:
            inserter = self.count(gaps.drop(draft.tokens, keep))
        filler = None
        if picker is not None or plan.loss_weight["recon"] > 0:
            filler = self._fill(batch, draft, plan, deleted, random_row, picker, inserter)
        return RoundOut(draft.tokens, deleted, random_row, keep_rate, counts, filler, inserter, picker)

    def pick(
        self,
        batch: Batch,
        keep_rate: Tensor,
        *,
        step: int,
        temperature: float,
        forced: tuple[Tensor, Tensor] | None = None,
    ) -> PickerOut:
        """The picker's deletion of ``batch``. ``forced`` (rows [B], deleted [B, T]): there the deletion is given,
        and the picker only judges it."""
        logits = self.delete_logits(batch, keep_rate)
        spread = noise.logistic(batch.key, "pick", step, batch.tokens.shape[1])
        deleted = decide(self.config, logits, batch.deletable, keep_rate, spread, temperature)
        if forced is not None:
            rows, other = forced
            deleted = torch.where(rows[:, None], other, deleted)
        return describe(self.config, logits.given(deleted), deleted, batch.deletable, keep_rate, spread, temperature)

    def delete_logits(self, batch: Batch, keep_rate: Tensor) -> DeleteLogits:
        """What the picker thinks of ``batch`` before it decides."""
        return self.picker(self.table(batch.tokens), batch.present, keep_rate, self._opinion(batch))

    def _opinion(self, batch: Batch) -> Tensor:
        """[B, T] the filler's probability of each token; 0.5 says nothing."""
        if self.config.picker_probes == 0:
            return torch.full(batch.tokens.shape, 0.5, device=batch.tokens.device)
        return filler_probability(self.fill, cross_entropy, batch, self.config.picker_probes)

    def count(self, skeleton: gaps.Skeleton) -> InserterOut:
        return self.inserter(self.table(skeleton.tokens), skeleton.length)

    def fill(self, tokens: Tensor, length: Tensor, slot: Tensor) -> Tensor:
        """[M, V / tensor] logits at the slots [M] (flattened places) of tokens [B, W] that hold [MASK]s."""
        position = gaps.contiguous_positions(tokens)
        return self.filler(self.table(tokens), position, present(length, tokens.shape[1]), slot, self.table)

    def _random_deletion(self, batch: Batch, plan: StepPlan, keep_rate: Tensor) -> tuple[Tensor, Tensor]:
        how = plan.stage.deletion
        score = deletion.random_scores(batch.key, plan.step, batch.tokens.shape[1], how.span_share, how.mean_span)
        deleted = deletion.best_first(score, batch.deletable, deletion.budget(batch.deletable, keep_rate))
        random_row = noise.uniform(batch.key, "random row", plan.step) < how.random_share
        if "picker" not in plan.stage.train:
            random_row = torch.ones_like(random_row)
        return deleted, random_row

    def _corrupt(self, batch: Batch, plan: StepPlan) -> Batch:
        how = plan.stage.deletion
        wrong = deletion.substitute(
            batch.tokens, batch.deletable, batch.key, plan.step, how.corrupt_share, how.corrupt_rate
        )
        return replace(batch, tokens=wrong)

    def _fill(
        self,
        batch: Batch,
        draft: Batch,
        plan: StepPlan,
        deleted: Tensor,
        random_row: Tensor,
        picker: PickerOut | None,
        inserter: InserterOut | None,
    ) -> FillerOut:
        """In place: with the true counts the r-th deleted token of a gap and its r-th [MASK] are one slot."""
        keep = batch.present & ~deleted
        masked = torch.where(deleted, MASK_ID, draft.tokens)
        x_BTD = self.table(masked)
        position = gaps.contiguous_positions(masked)
        if plan.stage.picker_gradient > 0 and picker is not None:
            x_BTD = x_BTD + self._reveal_gradient(draft, picker.keep, random_row) * plan.stage.picker_gradient
        if plan.loss_weight["recon"] > 0 and inserter is not None and "inserter" in plan.stage.train:
            position = gaps.straight_through_positions(keep, gaps.gap_rate(inserter.gap_logits, inserter.gap_present))
        wanted = deleted if plan.stage.losses.kept_weight == 0 else batch.deletable
        slot = wanted.flatten().nonzero().squeeze(1)
        logits = self.filler(x_BTD, position, batch.present, slot, self.table)
        target = batch.tokens.flatten()[slot]
        loss = cross_entropy(logits, target)
        weight = torch.where(deleted.flatten()[slot], 1.0, plan.stage.losses.kept_weight)
        return FillerOut(slot, weight, target, logits, loss, torch.exp(-loss.detach()))

    def _reveal_gradient(self, batch: Batch, keep: Tensor, random_row: Tensor) -> Tensor:
        """[B, T, D] zero forward; backward what mixing ``m·emb(x) + (1−m)·emb([MASK])`` says about each decision m.

        A random skeleton says nothing about the picker's decisions.
        """
        contrast = (self.table(batch.tokens) - self.table(torch.full_like(batch.tokens, MASK_ID))).detach()
        return ((keep - keep.detach()) * ~random_row[:, None])[..., None] * contrast


def trainable(name: str, stage: StageConfig) -> str | None:
    """The module that parameter ``name`` learns with in this stage, or None if it is frozen.

    The token table learns with the filler: it is the filler's input and output.
    """
    module = name.split(".", 1)[0]
    module = "filler" if module == "table" else module
    return module if module in stage.train else None


def start_from(state: dict[str, Tensor], stage: StageConfig) -> dict[str, Tensor]:
    """A state dict in which the trunks named by ``stage.start_from`` are copies of others. Layers beyond the source's
    depth stay as they are."""
    copied = dict(state)
    for module, source in stage.start_from.items():
        prefix = f"{source}.trunk."
        for name, value in state.items():
            twin = f"{module}.trunk." + name[len(prefix) :]
            if name.startswith(prefix) and twin in state:
                copied[twin] = value.clone()
    return copied
