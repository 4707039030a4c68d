"""What the picker learns from labels: does a deleted token come back, and does a token belong where it stands?

The first label is end to end: probability of the token under the filler × probability of the right count under the
inserter, both from this very batch and detached. A hole that cannot be found again is worth nothing, however easy to
fill. The second comes from the alignment of the draft with the target.
"""

# B batch, T tokens, G gaps = T-1

from __future__ import annotations

import torch
from torch import Tensor

from dualmask.core.batch import deletable, present
from dualmask.families.edit.losses.counts import count_log_prob
from dualmask.families.edit.outputs import Doubt, RoundOut
from dualmask.ops.gaps import gap_index


def labels(out: RoundOut, count_power: float = 1.0) -> Tensor:
    """P(token) · P(count)^count_power: [B, T] probability in [0, 1] where ``out.judged``; no gradient."""
    assert out.inserter is not None
    keep = present(out.length, out.draft.shape[1]) & ~out.deleted
    count_prob = count_log_prob(out.inserter.gap_logits.detach(), out.gap_count).exp()
    most = out.inserter.gap_logits.shape[-1] - 1
    count_prob = torch.where(out.gap_count <= most, count_prob, 0.0) ** count_power
    gap = gap_index(keep).clamp(0, count_prob.shape[1] - 1)
    return out.restored * count_prob.gather(1, gap) * out.judged


def loss(out: RoundOut, expected: float, count_power: float = 1.0) -> Tensor:
    """`keep_recover`: binary cross entropy of the delete logit against the labels over the judged tokens."""
    assert out.picker is not None
    label = labels(out, count_power)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(out.picker.delete_logit, label, reduction="none")
    return (entropy * out.judged * out.live[:, None]).sum() / expected


def oracle(out: RoundOut) -> Tensor:
    """`keep_oracle`: binary cross entropy of the wrong logit against "not on the alignment with the target", as a mean
    over the positions of the batch."""
    assert out.picker is not None
    wrong = (out.match < 0).float()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(out.picker.wrong_logit, wrong, reduction="none")
    where = deletable(out.length, out.draft.shape[1]) * out.live[:, None]
    return (entropy * where).sum() / out.draft.numel()


def doubt(said: Doubt, live: Tensor) -> Tensor:
    """`doubt`: binary cross entropy of the filler's own logit that a visible token is wrong, as a mean over the
    positions of the batch. live [B]: 0 for texts that teach nothing."""
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(said.logit, said.wrong.float(), reduction="none")
    return (entropy * said.where * live[:, None]).sum() / said.where.numel()
