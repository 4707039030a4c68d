"""Stage `reward`: Gate and picker are paid for the text that comes out, by REINFORCE with a KL penalty.

Either the model plays its rounds on copies of a text, and each copy's last draft is held against the target; or people
have scored edits that exist already. Knows ids; what scores text gets a decoder.
"""

# B batch = texts · samples, T tokens

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from rapidfuzz.distance import LCSseq
from torch import Tensor

from dualmask.core import host
from dualmask.core.batch import Batch
from dualmask.core.errors import ErrorTables
from dualmask.curriculum import StepPlan
from dualmask.families.edit.config import EditAlarms, RewardStage
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.decisions import decision_odds
from dualmask.families.edit.losses import reinforce
from dualmask.families.edit.losses.total import window_loss
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.outputs import RoundState
from dualmask.families.edit.reference import Reference
from dualmask.families.edit.scored import ScoredBatch, ScoredTexts
from dualmask.families.edit.task import RoundsTask, copies
from dualmask.families.task import WindowLoss
from dualmask.ops.alignment import align

Ids = Sequence[int]
Decode = Callable[[Ids], str]
Reward = Callable[[Sequence[Ids], Sequence[Ids]], list[float]]  # drafts, targets → each draft's worth in [0, 1]


def make_reward(source: Literal["exact", "bleu", "rouge", "scores"], decode: Decode | None) -> Reward:
    """exact: tokens of the target in their order, over the longer length (1: restored exactly). bleu: sentence BLEU
    with exponential smoothing; rouge: ROUGE-L F1, both on decoded text."""
    if source == "exact":
        return lambda *sides: [LCSseq.normalized_similarity(*pair) for pair in zip(*sides, strict=True)]
    assert decode is not None
    score = _bleu() if source == "bleu" else _rouge()

    def of_text(drafts: Sequence[Ids], targets: Sequence[Ids]) -> list[float]:
        return [score(decode(draft), decode(target)) for draft, target in zip(drafts, targets, strict=True)]

    return of_text


def _bleu() -> Callable[[str, str], float]:
    from sacrebleu.metrics import BLEU

    metric = BLEU(smooth_method="exp", effective_order=True)
    return lambda draft, target: metric.sentence_score(draft, [target]).score / 100


def _rouge() -> Callable[[str, str], float]:
    from rouge_score.rouge_scorer import RougeScorer

    metric = RougeScorer(["rougeL"])
    return lambda draft, target: float(metric.score(target, draft)["rougeL"].fmeasure)


class RewardTask(RoundsTask):
    """The model plays its rounds on copies of each text, in one window: what is paid is the last draft."""

    def __init__(
        self, model: DualMask, reward: Reward, alarms: EditAlarms | None = None, errors: ErrorTables | None = None
    ) -> None:
        super().__init__(model, alarms, errors)
        self.before = Reference(model)
        self.reward = reward

    @property
    def reference(self) -> Reference:
        return self.before

    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: RoundState | None) -> WindowLoss:
        plan = EditPlan.of(plan)
        outs, state = self.play(batch, plan, rounds, state)
        assert len(outs) == plan.rounds
        samples, names = plan.stage.rollout.samples, reinforce.decisions(plan.stage, self.model.config)
        target = copies(batch, samples)
        worth = self.reward(_ids(state.tokens, state.length), _ids(target.tokens, target.length))
        paid = host.to_device(np.array(worth, dtype=np.float32), state.tokens.device)
        divergence = torch.stack([out.divergence * out.live for out in outs if out.divergence is not None]).sum(0)
        loss = window_loss(outs, rounds, plan)
        total = loss.total + penalised(reinforce.loss(outs, paid, names, samples), divergence, plan)
        return WindowLoss(total, loss.parts | {"reward": paid.mean(), "divergence": divergence.mean().detach()})


class ScoredEditsTask(RewardTask):
    """REINFORCE on decisions that somebody else took: what the output lacks of the draft was deleted, and where
    anything was, the Gate was open. The score is what they were worth."""

    def __init__(self, model: DualMask, edits: ScoredTexts | None, alarms: EditAlarms | None = None) -> None:
        """``edits`` None: the caller brings batches of scored edits."""
        super().__init__(model, lambda drafts, targets: [0.0 for _ in drafts], alarms)
        self.edits = edits

    def prepare(self, batch: Batch, plan: StepPlan) -> Batch:
        return batch

    def batch(self, plan: StepPlan) -> Batch | None:
        return None if self.edits is None else self.edits.at(plan.step_in_stage)

    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: RoundState | None) -> WindowLoss:
        assert isinstance(batch, ScoredBatch)
        plan = EditPlan.of(plan)
        whole, given = torch.ones_like(batch.score), torch.ones_like(batch.tokens, dtype=torch.float32)
        wrong = align(batch.tokens, batch.length, batch.output, batch.output_length) < 0
        gone = wrong & batch.deletable
        x_BTD = self.model.embed(batch.tokens)
        reading = self.model.read(batch, whole, given, x_BTD)
        reference = self.before(x_BTD, batch, whole, reading.masked_lm, given)
        odds, old = (decision_odds(mind, gone, batch, None, plan.temperature) for mind in (reading, reference))
        ours, before = (each.log_prob(gone, batch.deletable, gone.any(1)) for each in (odds, old))
        decided = {
            "delete": _off_policy(ours.delete, before.delete).sum(1),
            "gate": _off_policy(ours.gate, before.gate),
        }
        names = reinforce.decisions(plan.stage, self.model.config)
        loss = -(batch.score * sum(decided[name] for name in names)).mean()
        divergence = odds.divergence(old, batch.deletable, torch.ones_like(batch.length, dtype=torch.bool))
        parts = {"scored": loss.detach(), "divergence": divergence.mean().detach()}
        return WindowLoss(penalised(loss, divergence, plan), parts)


def penalised(loss: Tensor, divergence: Tensor, plan: EditPlan) -> Tensor:
    """A REINFORCE loss with the price of a divergence [B] from the decisions of the model before the stage."""
    assert isinstance(plan.stage, RewardStage)
    return plan.loss_weight["reinforce"] * (loss + plan.stage.reward.kl_coefficient * divergence.mean())


def _off_policy(log_prob: Tensor, before: Tensor) -> Tensor:
    """Log-probabilities of decisions, each weighed by min(1, P / P before): importance sampling as if the model before
    the stage had taken them. What is unlearnt already weighs nothing; without it low scores would push for ever."""
    return torch.exp(log_prob - before).clamp_max(1).detach() * log_prob


def _ids(tokens: Tensor, length: Tensor) -> list[list[int]]:
    """What stands between BOS and EOS."""
    rows, sizes = host.Copy(tokens, length).wait()
    return [row[1 : size - 1].tolist() for row, size in zip(rows, sizes.tolist(), strict=True)]
