"""The keys of DualMaskLM: the model, and of each stage what learns, from which losses, on which texts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dualmask.config.alarms import AlarmConfig
from dualmask.config.corruption import CorruptionConfig
from dualmask.config.model import ModelConfig
from dualmask.config.schedule import Schedule, constant
from dualmask.config.section import Positive, Section, Share, Weight
from dualmask.config.stage import StageConfig

Module = Literal["filler", "inserter", "picker"]
StartKind = Literal["rewrite", "skeleton", "prefix", "empty", "corrupted", "clean"]


class LossWeights(Section):
    """Weights of the losses of docs/method.md; 0 leaves a loss out (it is still measured where that is free)."""

    recon: Schedule = constant(1.0)
    kept_weight: Share = Field(0.0, description="weight of kept tokens inside `recon`")
    comp_hinge: Schedule = constant(0.0)
    comp_kl: Schedule = constant(0.0)
    ptr_count: Schedule = constant(0.0)
    ptr_match: Schedule = constant(0.0)
    ptr_uniform: Schedule = constant(0.0)
    doubt: Schedule = constant(0.0)
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


class StopConfig(Section):
    """When a text is finished before its last round (families/edit/stopping.py). None: that criterion is off."""

    confidence: Share | None = Field(None, description="mean probability of the tokens of the last fill reaches this")
    edit_distance: Share | None = Field(None, description="share of the text that the last round changed is below this")
    in_training: bool = Field(False, description="a finished text stays as it is, and teaches nothing, until the end")


class RolloutConfig(Section):
    """The rounds of a training example that the picker takes part in (dualmask/families/edit/task.py)."""

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
    told_deletions: Share = Field(
        0.0,
        description="share of texts to be mended in which inserter and filler know what was deleted, as they do when "
        "the model mends a text; never where a text is shortened",
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


class EditConfig(ModelConfig):
    """DualMaskLM: picker, inserter and filler have trunks of their own over one token table."""

    family: Literal["dualmask"] = "dualmask"
    filler_layers: Positive = 4
    inserter_layers: Positive = 4
    picker_layers: Positive = 4
    picker_probes: Annotated[int, Field(ge=0)] = Field(
        4, description="filler passes whose opinion of every token the picker reads first; 0: it reads the text alone"
    )
    told_pieces: Annotated[int, Field(ge=0)] = Field(
        0,
        description="P: where a text is mended, the inserter and every [MASK] of a gap know the first P tokens deleted "
        "there; 0: the r-th [MASK] knows the r-th alone, the inserter their number",
    )
    max_gap_count: Positive = Field(8, description="K: most [MASK]s that one gap can take in one round")
    estimator: Literal["straight_through", "gumbel", "hard_concrete", "reinforce"] = Field(
        "gumbel", description="how a gradient passes the picker's keep-or-delete decision"
    )
    selection: Literal["budget", "free"] = Field(
        "budget",
        description="budget: exactly the requested share of tokens is deleted; free: each token by its own draw",
    )

    def check_stages(self, stages: Sequence[StageConfig]) -> None:
        for stage in stages:
            if self.estimator == "reinforce" and isinstance(stage, RoundStage) and not isinstance(stage, RewardStage):
                stage.check_reinforce()


class EditAlarms(AlarmConfig):
    """Collapses of picker and Gate (families/edit/alarms.py)."""

    keep_std: Share = Field(0.02, description="least spread of the picker's keep probabilities within a text")
    gate_open_low: Share = Field(0.05, description="least mean probability with which the Gate edits")
    gate_open_high: Share = Field(0.95, description="greatest mean probability with which the Gate edits")


class EditStage(StageConfig):
    """What all stages of DualMaskLM have. Here holes are random, and in place."""

    TRAINABLE: ClassVar[tuple[str, ...]] = ("filler", "inserter")
    TIED: ClassVar[Mapping[str, str]] = {"table": "filler"}  # the filler's input and output
    plays_rounds: ClassVar[bool] = False  # the picker deletes, and what is filled may go into a further round

    start_from: dict[Module, Module] = Field({}, description="module: trunk it is copied from when the stage begins")
    losses: LossWeights = LossWeights()
    deletion: DeletionConfig = DeletionConfig()

    @property
    def kinds_of_errors(self) -> tuple[str, ...]:
        """Of the texts that are made wrong in this stage."""
        return ()

    @model_validator(mode="after")
    def _deletes_something(self) -> EditStage:
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


class FillerStage(EditStage):
    """The filler learns to fill, and (`losses.doubt`) to see which of the tokens around the holes are wrong."""

    name: Literal["filler"]
    corrupted: Share = Field(0.0, description="share of texts that have mistakes before holes are made in them")
    corruption: CorruptionConfig = CorruptionConfig()

    @property
    def kinds_of_errors(self) -> tuple[str, ...]:
        return self.corruption.needs if self.corrupted > 0 else ()

    @model_validator(mode="after")
    def _trains_the_filler(self) -> FillerStage:
        if "filler" not in self.train:
            raise ValueError(f"stage filler must train the filler, train={list(self.train)}")
        return self


class InserterStage(EditStage):
    name: Literal["inserter"]


class RoundStage(EditStage):
    """Stages that play rounds: the picker decides what goes."""

    TRAINABLE: ClassVar[tuple[str, ...]] = ("filler", "inserter", "picker", "gate")
    plays_rounds: ClassVar[bool] = True
    DECIDES: ClassVar[bool] = True

    name: Literal["picker", "joint"]
    rollout: RolloutConfig = RolloutConfig()
    picker_gradient: Share = Field(
        0.0, description="share of the reconstruction gradient that reaches the picker's decision (0: labels only)"
    )

    @property
    def kinds_of_errors(self) -> tuple[str, ...]:
        return self.rollout.corruption.needs

    @property
    def gate_decides(self) -> bool:
        """The Gate learns from what its decisions cost; labels alone teach it while others decide."""
        weights = (self.losses.gate, self.losses.gate_cost, self.losses.reinforce)
        return "gate" in self.train and any(weight.start > 0 or weight.end > 0 for weight in weights)

    @property
    def soft_tokens(self) -> bool:
        """Filled tokens carry a gradient into the next round of a window."""
        rollout = self.rollout
        return rollout.cross_round_gradient and rollout.token_estimator in ("gumbel", "straight_through")

    @model_validator(mode="after")
    def _teaches_the_picker(self) -> RoundStage:
        if "picker" not in self.train:
            raise ValueError(f"stage {self.name} plays rounds: add picker to train={list(self.train)}")
        return self

    @model_validator(mode="after")
    def _estimators_can_learn(self) -> RoundStage:
        rollout = self.rollout
        if self.name != "reward" and "reinforce" in (
            rollout.gate_estimator,
            rollout.count_estimator,
            rollout.token_estimator,
        ):
            self.check_reinforce()
        if self.gate_decides and rollout.gate_estimator == "straight_through" and self.picker_gradient == 0:
            raise ValueError(
                "rollout.gate_estimator=straight_through learns from the reconstruction gradient, of which "
                "picker_gradient=0 leaves nothing: raise picker_gradient"
            )
        return self

    def check_reinforce(self) -> None:
        """What an estimator `reinforce` needs. Raises ValueError."""
        if self.rollout.samples < 4:
            raise ValueError(
                f"stage {self.name}, rollout.samples={self.rollout.samples}: reinforce compares at least 4 copies of a "
                "text; set it to 4"
            )
        if self.losses.reinforce.start <= 0 and self.losses.reinforce.end <= 0:
            raise ValueError(f"stage {self.name}, losses.reinforce=0: an estimator reinforce learns by it; set it to 1")


class RewardStage(RoundStage):
    """Picker and Gate learn from rewards (families/edit/reward.py): copies of a text that differ, decisions of the
    model's own, one window up to the last draft."""

    TRAINABLE: ClassVar[tuple[str, ...]] = ("picker", "gate")

    name: Literal["reward"]  # type: ignore[assignment]
    reward: RewardConfig = Field(description="what is paid")

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.reward.scores,) if self.reward.scores else ()

    @model_validator(mode="after")
    def _can_be_paid(self) -> RewardStage:
        rollout, temperature = self.rollout, self.deletion.temperature
        if not min(self.losses.reinforce.start, self.losses.reinforce.end) > 0:
            raise ValueError("losses.reinforce must be above 0 in stage reward, which learns by it: set it to 1")
        if min(temperature.start, temperature.end) < 0.1:
            raise ValueError(
                f"deletion.temperature={temperature.start}…{temperature.end}: copies hardly differ below 0.1; raise it"
            )
        if self.reward.source == "scores":
            if rollout.rounds > 1:
                raise ValueError(f"rollout.rounds={rollout.rounds}: source=scores has one round; set it to 1")
            return self
        if rollout.samples < 4:
            raise ValueError(
                f"rollout.samples={rollout.samples}: a reward is compared with at least 3 others; set it to 4"
            )
        if rollout.window < rollout.rounds:
            raise ValueError(
                f"rollout.window={rollout.window} must reach to the last of rollout.rounds={rollout.rounds}: only it "
                "is paid"
            )
        if rollout.teacher_forced_deletions > 0 or rollout.on_policy_counts < 1 or rollout.gate_rows > 0:
            raise ValueError(
                "a reward is for the model's own decisions: set rollout.teacher_forced_deletions=0, "
                "on_policy_counts=1, gate_rows=0"
            )
        return self
