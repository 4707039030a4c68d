"""What comes out of the models: named tensors with their shapes. See docs/method.md for the symbols."""

# B batch, T tokens, G gaps = T-1, K most masks a gap, M slots with a loss

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PickerOut:
    delete_logit: Tensor  # [B, T] logit that the token is restored if it is deleted, given who else is
    keep_prob: Tensor  # [B, T] in (0, 1): p; 1 on BOS, EOS and padding
    keep: Tensor  # [B, T] float in {0, 1}: m, with the estimator's gradient


@dataclass(frozen=True)
class InserterOut:
    gap_logits: Tensor  # [B, G, K+1] log-odds of n = 0…K masks in the gap behind skeleton token j
    gap_present: Tensor  # [B, G] bool: both neighbours exist


@dataclass(frozen=True)
class FillerOut:
    """Logits over the vocabulary at chosen slots only: a [B, T, V] tensor is never made."""

    slot: Tensor  # [M] int64 index into the flattened [B·T'] sequence
    slot_weight: Tensor  # [M] float: 0 for the padding of the fixed shape
    target: Tensor  # [M] int64 ids to restore
    logits: Tensor  # [M, V / tensor-parallel] (each rank holds its part of the vocabulary)
    loss: Tensor  # [M] cross entropy
    target_prob: Tensor  # [M] probability of the target, detached


@dataclass(frozen=True)
class RoundOut:
    """One round, teacher-forced: what was deleted is known, so gap counts and slots are the true ones."""

    draft: Tensor  # [B, T] what was read: the target, or a corrupted copy of it
    deleted: Tensor  # [B, T] bool
    random_row: Tensor  # [B] bool: this skeleton is random, not the picker's own
    keep_rate: Tensor  # [B] asked share kept
    gap_count: Tensor  # [B, G] true number of deleted tokens in each gap of the skeleton
    filler: FillerOut | None = None  # None: the stage asks nothing of the filler
    inserter: InserterOut | None = None
    picker: PickerOut | None = None
