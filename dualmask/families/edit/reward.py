"""Stage `reward`: Gate and picker are paid for the text that comes out, by REINFORCE with a KL penalty.

Either the model plays its rounds on copies of a text, and each copy's last draft is held against the target; or people
have scored edits that exist already. Knows ids; what scores text gets a decoder.
"""

# B batch = texts · samples, T tokens

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from rapidfuzz.distance import LCSseq
from torch import Tensor, nn

from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.families.edit import multi_round
from dualmask.families.edit.decisions import decision_odds
from dualmask.families.edit.losses import reinforce
from dualmask.families.edit.losses.total import window_loss
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.outputs import RoundState
from dualmask.families.edit.reference import Reference
from dualmask.families.edit.scored import ScoredBatch
from dualmask.ops.alignment import align

Ids = Sequence[int]
Decode = Callable[[Ids], str]
Reward = Callable[[Sequence[Ids], Sequence[Ids]], list[float]]  # drafts, targets → each draft's worth in [0, 1]


def make_reward(source: Literal["exact", "bleu", "rouge"], decode: Decode) -> Reward:
    """exact: tokens of the target in their order, over the longer length (1: restored exactly). bleu: sentence BLEU
    with exponential smoothing; rouge: ROUGE-L F1, both on decoded text."""
    if source == "exact":
        return lambda *sides: [LCSseq.normalized_similarity(*pair) for pair in zip(*sides, strict=True)]
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


class RewardObjective(nn.Module):
    """Model and loss of the stage (see ``objective.Objective``). ``reward`` None: the scores come with the batches."""

    def __init__(self, model: DualMask, reward: Reward | None, typos: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self.reference = Reference(model)
        self.reward = reward
        self.register_buffer("typos", typos, persistent=False)

    def forward(
        self, batch: Batch, plan: StepPlan, rounds: range, state: RoundState | None, *, inspect: bool = False
    ) -> Any:
        """As ``objective.Objective`` returns. All rounds in one window: what is paid is the last draft."""
        if isinstance(batch, ScoredBatch) and not inspect:
            return *self._from_scores(batch, plan), None
        state = multi_round.begin(batch, plan, self.typos)
        state, outs = multi_round.unroll(self.model, state, batch, plan, rounds, self.reference)
        if inspect:
            return outs, state
        assert self.reward is not None
        assert len(outs) == plan.rounds
        samples, names = plan.stage.rollout.samples, reinforce.decisions(plan.stage, self.model.config)
        target = multi_round.copies(batch, samples)
        worth = self.reward(_ids(state.tokens, state.length), _ids(target.tokens, target.length))
        paid = torch.tensor(worth, device=state.tokens.device)
        divergence = torch.stack([out.divergence * out.live for out in outs if out.divergence is not None]).sum(0)
        report = window_loss(outs, rounds, plan)
        total = report.total + self._weighed(reinforce.loss(outs, paid, names, samples), divergence, plan)
        return total, report.parts | {"reward": paid.mean(), "divergence": divergence.mean().detach()}, None

    def _from_scores(self, batch: ScoredBatch, plan: StepPlan) -> tuple[Tensor, dict[str, Tensor]]:
        """REINFORCE on decisions that somebody else took: what the output lacks of the draft was deleted, and where
        anything was, the Gate was open. The score is what they were worth."""
        whole, given = torch.ones_like(batch.score), torch.ones_like(batch.tokens, dtype=torch.float32)
        wrong = align(batch.tokens, batch.length, batch.output, batch.output_length) < 0
        gone = wrong & batch.deletable
        x_BTD = self.model.embed(batch.tokens)
        reading = self.model.read(batch, whole, given, x_BTD)
        theirs = self.reference(x_BTD, batch, whole, reading.masked_lm, given)
        odds, old = (decision_odds(mind, gone, batch, whole, plan.temperature) for mind in (reading, theirs))
        ours, before = (each.log_prob(gone, batch.deletable, gone.any(1)) for each in (odds, old))
        decided = {
            "delete": _off_policy(ours.delete, before.delete).sum(1),
            "gate": _off_policy(ours.gate, before.gate),
        }
        names = reinforce.decisions(plan.stage, self.model.config)
        loss = -(batch.score * sum(decided[name] for name in names)).mean()
        divergence = odds.divergence(old, batch.deletable, torch.ones_like(batch.length, dtype=torch.bool))
        parts = {"scored": loss.detach(), "divergence": divergence.mean().detach()}
        return self._weighed(loss, divergence, plan), parts

    def _weighed(self, loss: Tensor, divergence: Tensor, plan: StepPlan) -> Tensor:
        assert plan.stage.reward is not None
        return plan.loss_weight["reinforce"] * (loss + plan.stage.reward.kl_coefficient * divergence.mean())


def _off_policy(log_prob: Tensor, before: Tensor) -> Tensor:
    """Log-probabilities of decisions, each weighed by min(1, P / P before): importance sampling as if the model before
    the stage had taken them. What is unlearnt already weighs nothing; without it low scores would push for ever."""
    return torch.exp(log_prob - before).clamp_max(1).detach() * log_prob


def _ids(tokens: Tensor, length: Tensor) -> list[list[int]]:
    """What stands between BOS and EOS."""
    return [row[1 : size - 1] for row, size in zip(tokens.tolist(), length.tolist(), strict=True)]
