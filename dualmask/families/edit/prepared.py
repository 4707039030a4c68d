"""What of a step is known before the model has said anything: its holes, or its start states and their alignment.

Functions of the batch and the step alone, on the CPU: the thread that reads the data calls them ahead of the step, and
the host need not ask the device for what it has made itself.
"""

# B sequences, T tokens

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dualmask.core import host, noise
from dualmask.core.batch import Batch
from dualmask.core.errors import ErrorTables
from dualmask.curriculum import StepPlan
from dualmask.families.edit import starts
from dualmask.families.edit.config import FillerStage, RoundStage
from dualmask.families.edit.curriculum import EditPlan
from dualmask.ops import deletion
from dualmask.ops.alignment import align
from dualmask.ops.mistakes import make_mistakes


@dataclass(frozen=True)
class PreparedBatch(Batch):
    """A batch with the drafts that its step begins with."""

    draft: Tensor  # [B, T] ids
    draft_length: Tensor  # [B]
    match: Tensor  # [B, T] position in the target of each right token of the draft, -1 for the others
    step: tuple[int, int]  # stage and step that it was prepared for
    known: dict[str, np.ndarray]  # on the host, [B, …] each, wherever the tensors are

    @property
    def start(self) -> Batch:
        """The drafts as a batch."""
        return Batch(self.draft, self.draft_length, self.key, host_length=self.known["draft_length"])

    @property
    def target(self) -> Batch:
        """The texts alone."""
        return Batch(self.tokens, self.length, self.key, host_length=self.host_length)

    def is_for(self, plan: StepPlan) -> bool:
        return self.step == (plan.stage_index, plan.step)

    def rows(self, part: slice | Tensor) -> Self:
        assert isinstance(part, slice)
        return replace(super().rows(part), known={name: values[part] for name, values in self.known.items()})


@dataclass(frozen=True)
class HolesBatch(PreparedBatch):
    """Of a stage with random holes."""

    deleted: Tensor  # [B, T] bool
    keep_rate: Tensor  # [B] requested share kept

    @property
    def holes(self) -> int:
        """Deleted tokens of all drafts."""
        return int(self.known["holes"].sum())

    @property
    def deletable_tokens(self) -> int:
        """Tokens between BOS and EOS of all drafts."""
        return int((self.known["draft_length"] - 2).sum())


@dataclass(frozen=True)
class RoundsBatch(PreparedBatch):
    """Of a stage that plays rounds."""

    kind: Tensor  # [B] the start state, index into ``starts.KINDS``


def prepare(batch: Batch, plan: StepPlan, errors: ErrorTables) -> PreparedBatch:
    """A batch on the CPU for the step of ``plan``; itself if it is that already."""
    if isinstance(batch, PreparedBatch) and batch.is_for(plan):
        return batch
    plan = EditPlan.of(plan)
    texts = Batch(batch.tokens, batch.length, batch.key)
    made = _rounds(texts, plan, errors) if isinstance(plan.stage, RoundStage) else _holes(texts, plan, errors)
    return replace(made, texts_in_row=batch.texts_in_row)


def prepared(batch: Batch, plan: EditPlan, errors: ErrorTables) -> PreparedBatch:
    """The same of a batch on any device, for callers that did not prepare it ahead: they wait for it."""
    if isinstance(batch, PreparedBatch) and batch.is_for(plan):
        return batch
    device = batch.tokens.device
    return prepare(Batch(batch.tokens, batch.length, batch.key).to("cpu"), plan, errors).to(device)


def requested_rates(key: Tensor, plan: EditPlan) -> Tensor:
    """[B] the share of its tokens that a text of this key [B] keeps if it is to be shortened."""
    return deletion.keep_rates(key, plan.step, plan.keep_rate_low, plan.keep_rate_high)


def _holes(batch: Batch, plan: EditPlan, errors: ErrorTables) -> HolesBatch:
    """Random holes in the texts, or in what mistakes have made of them."""
    stage = plan.stage
    if not isinstance(stage, FillerStage) or stage.corrupted == 0:
        return with_holes(batch, batch, plan)
    wrong = noise.uniform(batch.key, "corrupted", plan.step) < stage.corrupted
    tokens, length = make_mistakes(batch, wrong, plan.step, stage.corruption, errors)
    return with_holes(batch, Batch(tokens, length, batch.key), plan)


def with_holes(target: Batch, draft: Batch, plan: EditPlan) -> HolesBatch:
    """Random holes in drafts; in the targets themselves nothing is wrong."""
    position = torch.arange(draft.tokens.shape[1], device=draft.tokens.device)
    match = torch.where(draft.present, position, -1)
    if draft is not target:
        match = align(draft.tokens, draft.length, target.tokens, target.length)
    keep_rate = requested_rates(draft.key, plan)
    deleting, width = plan.stage.deletion, draft.tokens.shape[1]
    score = deletion.random_scores(draft.key, plan.step, width, deleting.span_share, deleting.mean_span)
    deleted = deletion.best_first(score, draft.deletable, deletion.budget(draft.deletable, keep_rate))
    length, holes = host.Copy(draft.length, deleted.sum(1)).wait()
    known = {"draft_length": length, "holes": holes}
    step = (plan.stage_index, plan.step)
    return HolesBatch(
        target.tokens, target.length, target.key, draft.tokens, draft.length, match, step, known, deleted, keep_rate
    )


def _rounds(batch: Batch, plan: EditPlan, errors: ErrorTables) -> RoundsBatch:
    """The start states of a step, held against their targets."""
    stage = plan.stage
    start = starts.start_states(
        batch,
        plan.step,
        {str(kind): share for kind, share in stage.rollout.starts.items()},
        requested_rates(batch.key, plan),
        stage.deletion.span_share,
        stage.deletion.mean_span,
        stage.rollout.corruption,
        errors,
    )
    match = align(start.tokens, start.length, batch.tokens, batch.length)
    known = {"draft_length": start.length, "target": batch.tokens, "target_length": batch.length}
    step = (plan.stage_index, plan.step)
    return RoundsBatch(
        batch.tokens,
        batch.length,
        batch.key,
        start.tokens,
        start.length,
        match,
        step,
        {name: plane.numpy() for name, plane in known.items()},
        start.kind,
    )
