"""Decoder-1, the Mask Picker: which tokens can be restored if they are deleted, and which do not belong there."""

# B batch, T tokens, D width

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualmask.core.batch import Batch
from dualmask.families.edit.config import EditConfig
from dualmask.families.edit.filler import RARELY
from dualmask.families.edit.masked_lm import MaskedLMScores
from dualmask.families.edit.outputs import PickerOut
from dualmask.nn import initial
from dualmask.nn.trunk import Trunk
from dualmask.ops import deletion
from dualmask.ops.estimators import calibrate, relaxed_keep, straight_through
from dualmask.ops.gaps import contiguous_positions
from dualmask.ops.repeats import FEATURES, REACH, repeats

RATE_FEATURES = 16
COLDEST = 0.1  # temperature below which decisions are described as at this one


def rate_features(keep_rate: Tensor) -> Tensor:
    """[B, RATE_FEATURES] sines and cosines of the requested keep rate [B]."""
    frequency = math.pi * 2.0 ** torch.arange(RATE_FEATURES // 2, device=keep_rate.device)
    angle = keep_rate[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


@dataclass(frozen=True)
class DeleteLogits:
    """What the picker thinks before anything is decided (see ``ops.deletion``)."""

    unary: Tensor  # [B, T] logit that what belongs there comes back if the token is deleted
    pairwise: Tensor  # [B, T, 2·REACH] what deleted neighbours add to it
    wrong: Tensor  # [B, T] logit that the token does not belong where it stands

    def gain(self) -> Tensor:
        """[B, T] > 0: a hole is more likely to be filled rightly than the token is to be right."""
        return self.unary + self.wrong

    def ranking(self) -> Tensor:
        """[B, T] ``unary`` as a ranking for a requested number of deletions: what is probably wrong comes first."""
        return torch.where(self.wrong > 0, self.unary.clamp_min(0) + 2 + self.wrong, self.unary)

    def given(self, deleted: Tensor) -> Tensor:
        return deletion.given_neighbours(self.unary, self.pairwise, deleted)

    def odds(self, deleted: Tensor, deletable: Tensor, keep_rate: Tensor | None, temperature: float) -> Tensor:
        """[B, T] log-odds with which ``decide`` deletes each token at this temperature.

        Exact at keep rate 1. Where a number is requested, tokens are chosen together; then it is the calibrated logit
        of each, given the others.
        """
        bounded = max(temperature, COLDEST)
        if keep_rate is None:
            return self.gain() / bounded
        given = self.given(deleted) / bounded
        calibrated = given - calibrate(-given, deletable, keep_rate)
        return torch.where(keep_rate[:, None] < 1, calibrated, self.gain() / bounded)


class Picker(nn.Module):
    def __init__(self, config: EditConfig, *, activation_checkpointing: bool) -> None:
        super().__init__()
        self.trunk = Trunk(config, config.picker_layers, activation_checkpointing=activation_checkpointing)
        self.rate = nn.Linear(RATE_FEATURES, config.hidden)
        self.opinion = nn.Linear(4, config.hidden)
        # the picker starts as the heuristics do. To restore: of the filler's logit of the token; to doubt: of that, of
        # its logit of the likeliest token, and of how sure the model was when it wrote the token itself
        self.trust = initial.parameter([1.0, -0.5, 0.5, -0.5])
        self.repeats = nn.Linear(FEATURES, config.hidden, bias=False)
        # nats of doubt about the second of two equal blocks of tokens, and about the first
        self.twice = initial.parameter([4.0] * REACH + [0.0] * REACH)
        self.delete = nn.Linear(config.hidden, 1 + len(deletion.OFFSETS))
        self.doubt = nn.Linear(config.hidden, 1)
        # a copied trunk must first do what it did before
        for unread in (self.rate.weight, self.rate.bias, self.opinion.weight, self.opinion.bias, self.repeats.weight):
            initial.begin(unread, initial.Constant(0.0))
        initial.begin(self.delete.weight, initial.Normal(config.init_std))
        initial.begin(self.delete.bias, initial.Constant(0.0))
        initial.begin(self.doubt.weight, initial.Normal(config.init_std))
        initial.begin(self.doubt.bias, initial.Constant(RARELY))

    def forward(
        self, x_BTD: Tensor, batch: Batch, keep_rate: Tensor, masked_lm: MaskedLMScores, written_prob: Tensor
    ) -> tuple[DeleteLogits, Tensor]:
        """Logits in float32, and states [B, T, D], from the embeddings of the whole text, the requested keep rate [B],
        the masked-LM scores of each token (all 0.5 where there are none) and the probability [B, T] with which the
        model wrote each token in an earlier round (1: it was given)."""
        is_written = (written_prob < 1).float()
        written = is_written * torch.logit(written_prob.float(), eps=1e-4)
        believed, best = (torch.logit(prob.float(), eps=1e-4) for prob in (masked_lm.prob, masked_lm.best))
        rate = self.rate(rate_features(keep_rate).to(x_BTD.dtype))
        position = contiguous_positions(batch.present)
        twice = repeats(batch.tokens, batch.deletable)
        opinion = self.opinion(torch.stack([believed, best, is_written, written], dim=-1).to(x_BTD.dtype))
        known = rate[:, None] + opinion + self.repeats(twice.to(x_BTD.dtype))
        h_BTD = self.trunk(x_BTD + known, position, batch.present, lengths=batch.lengths)
        logits = self.delete(h_BTD).float()
        unary = logits[..., 0] + self.trust[0] * believed
        doubt = self.doubt(h_BTD).squeeze(-1).float() + twice @ self.twice.float()
        wrong = doubt + self.trust[1] * believed + self.trust[2] * best + self.trust[3] * written
        return DeleteLogits(unary, logits[..., 1:], wrong), h_BTD


@torch.no_grad()
def decide(
    config: EditConfig,
    logits: DeleteLogits,
    deletable: Tensor,
    keep_rate: Tensor | None,
    logistic_noise: Tensor,
    temperature: float,
) -> Tensor:
    """[B, T] bool: what the picker deletes. ``logistic_noise`` [B, T] is scaled by the temperature (0: none).

    keep_rate [B] 1: what gains by it, however much that is. Below 1: the requested number, chosen together
    (``selection: budget``), or each token for itself, the requested share on average (``free``). None: 1 for all texts,
    which spares the device the search for a number.
    """
    gains = (logits.gain() + temperature * logistic_noise > 0) & deletable
    if keep_rate is None:
        return gains
    unary = logits.ranking() + temperature * logistic_noise
    if config.selection == "budget":
        chosen = deletion.choose(unary, logits.pairwise, deletable, deletion.budget(deletable, keep_rate))
    else:
        chosen = (unary > calibrate(-logits.ranking(), deletable, keep_rate)) & deletable
    return torch.where(keep_rate[:, None] < 1, chosen, gains)


def describe(
    config: EditConfig,
    logits: DeleteLogits,
    deleted: Tensor,
    deletable: Tensor,
    keep_rate: Tensor | None,
    logistic_noise: Tensor,
    temperature: float,
) -> PickerOut:
    """The decision as the losses see it: probabilities, and the decision with the estimator's gradient.

    Where a share is requested, the keep probability is calibrated to it per sequence, so that the label-taught logit
    may keep its own meaning (probability of being restored). At keep rate 1 (None: of all) it is that of gaining
    nothing.
    """
    delete_logit = logits.given(deleted)
    keep_logit = -(delete_logit + logits.wrong)
    if keep_rate is not None:
        calibrated = calibrate(-delete_logit, deletable, keep_rate) - delete_logit
        keep_logit = torch.where(keep_rate[:, None] < 1, calibrated, keep_logit)
    relaxed = relaxed_keep(config.estimator, keep_logit, -logistic_noise, max(temperature, COLDEST))
    relaxed = relaxed.masked_fill(~deletable, 1.0)
    keep_prob = torch.sigmoid(keep_logit).masked_fill(~deletable, 1.0)
    return PickerOut(delete_logit, logits.wrong, keep_prob, straight_through((~deleted).float(), relaxed))
