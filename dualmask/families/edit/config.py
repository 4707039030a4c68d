"""The keys of one stage: what learns, from which losses, on which texts. Pure: imports neither torch nor an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dualmask.config.schedule import Schedule, constant
from dualmask.config.section import Positive, Section, Share, Weight
from dualmask.families.span.config import SpanStageConfig

Module = Literal["filler", "inserter", "picker", "gate", "lm", "decoder", "encoder"]
StartKind = Literal["rewrite", "skeleton", "prefix", "empty", "corrupted", "clean"]


class LearningRate(Section):
    peak: Annotated[float, Field(gt=0.0)]
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Literal["constant", "linear", "cosine"] = "linear"
    final_share: Share = Field(0.1, description="learning rate at the last step over the peak")


class LossWeights(Section):
    """Weights of the losses of docs/method.md; 0 leaves a loss out (it is still measured where that is free)."""

    recon: Schedule = constant(1.0)
    kept_weight: Share = Field(0.0, description="weight of kept tokens inside `recon`")
    comp_hinge: Schedule = constant(0.0)
    comp_kl: Schedule = constant(0.0)
    ptr_count: Schedule = constant(0.0)
    ptr_match: Schedule = constant(0.0)
    ptr_uniform: Schedule = constant(0.0)
    keep_recover: Schedule = constant(0.0)
    keep_oracle: Schedule = constant(0.0)
    gate: Schedule = constant(0.0)
    gate_cost: Schedule = constant(0.0)
    gate_oracle: Schedule = constant(0.0)
    reinforce: Schedule = constant(0.0)


class DeletionConfig(Section):
    """How a training example loses its tokens."""

    keep_rate_low: Schedule = constant(0.1)
    keep_rate_high: Schedule = constant(0.9)
    span_share: Share = Field(
        0.5, description="of the random skeletons: share that loses spans instead of single tokens"
    )
    mean_span: Annotated[float, Field(ge=1.0)] = Field(3.0, description="mean length of a deleted span, tokens")
    temperature: Schedule = Field(constant(1.0), description="Gumbel noise on the picker's order, and of the estimator")
    count_power: Share = Field(
        1.0, description="`keep_recover` label: P(token) · P(count) to this power; 0: holes need not be found again"
    )
    max_delete_rate: Schedule = Field(
        constant(0.9), description="r_max of `comp_kl`: the largest share that may be deleted"
    )


class CorruptionConfig(Section):
    """What makes a text wrong. Of a corrupted sequence a share of the tokens is hit, each by one of the kinds below."""

    rate_low: Share = 0.05
    rate_high: Share = 0.2
    substitute: Weight = Field(4.0, description="weight: replaced by a token of another place of the same text")
    drop: Weight = Field(1.0, description="weight: left out")
    double: Weight = Field(1.0, description="weight: written twice")
    swap: Weight = Field(1.0, description="weight: exchanged with the token behind it")
    typo: Weight = Field(1.0, description="weight: characters of the token substituted, dropped, doubled or swapped")
    shuffle_share: Share = Field(0.1, description="share of corrupted sequences that also have one span shuffled")
    mean_span: Annotated[float, Field(ge=2.0)] = Field(4.0, description="mean length of a shuffled span, tokens")

    @model_validator(mode="after")
    def _consistent(self) -> CorruptionConfig:
        if self.rate_low > self.rate_high:
            raise ValueError(f"rate_low={self.rate_low} exceeds rate_high={self.rate_high}")
        if not self.substitute + self.drop + self.double + self.swap + self.typo > 0:
            raise ValueError("substitute, drop, double, swap and typo are all 0: give one of them a weight")
        return self


class StopConfig(Section):
    """When a text is finished before its last round (families/edit/stopping.py). None: that criterion is off."""

    confidence: Share | None = Field(None, description="mean probability of the tokens of the last fill reaches this")
    edit_distance: Share | None = Field(None, description="share of the text that the last round changed is below this")
    in_training: bool = Field(False, description="a finished text stays as it is, and teaches nothing, until the end")


class RolloutConfig(Section):
    """The rounds of a training example that the picker takes part in (dualmask/families/edit/multi_round.py)."""

    rounds: Annotated[int, Field(gt=0, le=64)] = Field(1, description="L: rounds at the end of the stage")
    first_rounds: Positive = Field(1, description="rounds at the beginning of the stage")
    add_round_every: Positive | None = Field(None, description="steps after which one more round is unrolled")
    add_round_at: Share | None = Field(
        None, description="instead of steps: one more round once the mean `restored_prob` of 50 steps reaches this"
    )
    window: Positive = Field(2, description="W: rounds per backward pass (truncated BPTT)")
    earlier_weight: Share = Field(1.0, description="weight of `recon` in a round that is not the last of its window")
    first_round: Literal["generate", "gate"] = Field(
        "generate", description="round 0 of a text: forced to generate (seed 000), or as the Gate decides"
    )
    starts: dict[StartKind, Weight] = Field(
        {"rewrite": 0.3, "skeleton": 0.3, "prefix": 0.1, "empty": 0.05, "corrupted": 0.2, "clean": 0.05},
        description="shares of the start states: the text to be shortened to the asked keep rate and restored, random "
        "skeleton, prefix, nothing, corrupted text, clean text",
    )
    corruption: CorruptionConfig = CorruptionConfig()
    teacher_forced_deletions: Share = Field(
        0.3, description="share of texts whose wrong tokens are deleted as the labels say"
    )
    random_deletions: Share = Field(
        0.0, description="share of texts to be shortened that lose random tokens, not those that the picker chooses"
    )
    on_policy_counts: Share = Field(
        0.5, description="share of texts whose masks are counted by the inserter, not by the labels"
    )
    own_draft_weight: Weight = Field(
        1.0, description="weight of labels on the model's own drafts, over those of round 0; 0: it has none there"
    )
    cross_round_gradient: bool = Field(True, description="filled tokens carry a gradient into the next round")
    top_k: Positive = Field(32, description="most likely tokens of a slot that are drawn from and carry that gradient")
    fill_temperature: Schedule = Field(
        constant(0.5), description="of the tokens filled in training, and their softness"
    )
    gate_rows: Share = Field(0.5, description="share of texts on which both decisions of the Gate are tried")
    gate_estimator: Literal["two_branch", "straight_through", "reinforce"] = Field(
        "two_branch", description="how the Gate learns: both decisions compared, or the reconstruction gradient"
    )
    count_estimator: Literal["straight_through", "none", "reinforce"] = "straight_through"
    token_estimator: Literal["gumbel", "straight_through", "none", "reinforce"] = "gumbel"
    samples: Positive = Field(1, description="copies of each text that decide for themselves; `reinforce` needs 4")
    stop: StopConfig = StopConfig()

    @model_validator(mode="after")
    def _consistent(self) -> RolloutConfig:
        if self.first_rounds > self.rounds:
            raise ValueError(f"first_rounds={self.first_rounds} exceeds rounds={self.rounds}")
        if self.add_round_every and self.add_round_at is not None:
            raise ValueError("add_round_every and add_round_at exclude each other: remove one")
        if not any(self.starts.values()):
            raise ValueError(f"starts={self.starts} are all 0: give one start state a share")
        return self


class RewardConfig(Section):
    """Stage `reward`: what the Gate and the Picker are paid for (dualmask/families/edit/reward.py)."""

    source: Literal["exact", "bleu", "rouge", "scores"] = Field(
        "exact", description="of the last draft: tokens restored in order, BLEU, ROUGE-L; or a file of human scores"
    )
    scores: Path | None = Field(None, description='jsonl, {"draft", "output", "score"} a line (source: scores)')
    kl_coefficient: Weight = Field(
        0.1, description="reward that a nat of divergence from the decisions of the model before the stage costs"
    )

    @model_validator(mode="after")
    def _scores(self) -> RewardConfig:
        if (self.source == "scores") != (self.scores is not None):
            raise ValueError(f"source={self.source}, scores={self.scores}: a file belongs to source=scores, only there")
        return self


_TAUGHT: dict[str, tuple[Module, ...]] = {
    "lm": ("lm",),
    "decoder": ("decoder",),
    "span": ("decoder", "encoder", "gate"),
}


class StageConfig(Section):
    name: Literal["filler", "inserter", "picker", "joint", "reward", "lm", "decoder", "span"]
    steps: Positive
    train: tuple[Module, ...] = Field(min_length=1, description="modules that learn; the others are frozen")
    start_from: dict[Module, Module] = Field({}, description="module: trunk it is copied from when the stage begins")
    lr: LearningRate
    lr_scale: dict[Module, Annotated[float, Field(gt=0.0)]] = Field(
        {}, description="learning rate of a module over the stage's"
    )
    losses: LossWeights = LossWeights()
    deletion: DeletionConfig = DeletionConfig()
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig | None = Field(None, description="stage reward: what is paid; other stages: none")
    span: SpanStageConfig | None = Field(None, description="stage span: how spans are taught; other stages: none")
    picker_gradient: Share = Field(
        0.0, description="share of the reconstruction gradient that reaches the picker's decision (0: labels only)"
    )

    @property
    def gate_decides(self) -> bool:
        """The Gate learns from what its decisions cost; labels alone teach it while others decide."""
        asked = (self.losses.gate, self.losses.gate_cost, self.losses.reinforce)
        return "gate" in self.train and any(weight.start > 0 or weight.end > 0 for weight in asked)

    @property
    def soft_tokens(self) -> bool:
        """Filled tokens carry a gradient into the next round of a window."""
        how = self.rollout
        return how.cross_round_gradient and how.token_estimator in ("gumbel", "straight_through")

    @model_validator(mode="after")
    def _consistent(self) -> StageConfig:
        if self.lr.warmup_steps > self.steps:
            raise ValueError(f"lr.warmup_steps={self.lr.warmup_steps} must not exceed steps={self.steps}")
        if frozen := sorted(set(self.lr_scale) - set(self.train)):
            raise ValueError(f"lr_scale names {frozen}, which train={list(self.train)} leaves frozen")
        if (self.name == "reward") != (self.reward is not None):
            raise ValueError(f"stage {self.name}: the section reward belongs to the stage reward, and only there")
        if (self.name == "span") != (self.span is not None):
            raise ValueError(f"stage {self.name}: the section span belongs to the stage span, and only there")
        self._modules()
        if self.reward is not None:
            self._paid(self.reward)
        elif "reinforce" in (self.rollout.gate_estimator, self.rollout.count_estimator, self.rollout.token_estimator):
            self.check_reinforce()
        if self.gate_decides and self.rollout.gate_estimator == "straight_through" and self.picker_gradient == 0:
            raise ValueError(
                "rollout.gate_estimator=straight_through learns from the reconstruction gradient, of which "
                "picker_gradient=0 leaves nothing: raise picker_gradient"
            )
        if self.span is None and "gate" in self.train and "picker" not in self.train:
            raise ValueError(f"the gate learns beside the picker: add picker to train={list(self.train)}")
        low, high = self.deletion.keep_rate_low, self.deletion.keep_rate_high
        if low.start > high.start or low.end > high.end:
            raise ValueError(
                f"deletion.keep_rate_low={low.start}…{low.end} exceeds keep_rate_high={high.start}…{high.end}"
            )
        if 1 in (min(low.start, high.start), min(low.end, high.end)):
            raise ValueError(
                "deletion.keep_rate_low and keep_rate_high are both 1: nothing would be deleted; lower one"
            )
        return self

    def _modules(self) -> None:
        """A stage trains what it can teach. Raises ValueError."""
        able = _TAUGHT.get(self.name, ("filler", "inserter", "picker", "gate"))
        if foreign := sorted(set(self.train) - set(able)):
            raise ValueError(f"stage {self.name} cannot train {foreign}: it trains some of {list(able)}")
        if self.name == "filler" and "filler" not in self.train:
            raise ValueError(f"stage filler must train the filler, train={list(self.train)}")

    def check_reinforce(self) -> None:
        """What an estimator `reinforce` needs. Raises ValueError."""
        if self.rollout.samples < 4:
            raise ValueError(
                f"stage {self.name}, rollout.samples={self.rollout.samples}: reinforce compares at least 4 copies of a "
                "text; set it to 4"
            )
        if self.losses.reinforce.start <= 0 and self.losses.reinforce.end <= 0:
            raise ValueError(f"stage {self.name}, losses.reinforce=0: an estimator reinforce learns by it; set it to 1")

    def _paid(self, reward: RewardConfig) -> None:
        """What REINFORCE needs: copies that differ, decisions of the model's own, one window up to the last draft."""
        how, temperature = self.rollout, self.deletion.temperature
        if foreign := sorted(set(self.train) - {"picker", "gate"}):
            raise ValueError(f"stage reward teaches picker and gate: remove {foreign} from train={list(self.train)}")
        if not min(self.losses.reinforce.start, self.losses.reinforce.end) > 0:
            raise ValueError("losses.reinforce must be above 0 in stage reward, which learns by it: set it to 1")
        if min(temperature.start, temperature.end) < 0.1:
            raise ValueError(
                f"deletion.temperature={temperature.start}…{temperature.end}: copies hardly differ below 0.1; raise it"
            )
        if reward.source == "scores":
            if how.rounds > 1:
                raise ValueError(f"rollout.rounds={how.rounds}: source=scores has one round; set it to 1")
            return
        if how.samples < 4:
            raise ValueError(f"rollout.samples={how.samples}: a reward is compared with at least 3 others; set it to 4")
        if how.window < how.rounds:
            raise ValueError(
                f"rollout.window={how.window} must reach to the last of rollout.rounds={how.rounds}: only it is paid"
            )
        if how.teacher_forced_deletions > 0 or how.on_policy_counts < 1 or how.gate_rows > 0:
            raise ValueError(
                "a reward is for the model's own decisions: set rollout.teacher_forced_deletions=0, "
                "on_policy_counts=1, gate_rows=0"
            )
