"""The keys of SpanFusionLM: what the model is, and how its spans are taught. Pure: imports neither torch nor an engine.

Defaults are the third seed's; where they do not work as they stand, docs/spanfusion.md says what does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dualmask.config.model import ModelConfig
from dualmask.config.section import Positive, Section, Share, Weight
from dualmask.config.stage import StageConfig


class SpanModelConfig(Section):
    """``model.span``: the parts of the family spanfusion."""

    decoder_layers: Positive
    encoder_layers: Positive
    g_max: Annotated[int, Field(ge=1, le=64)] = Field(4, description="most refinement steps a span")
    fill_order: Literal["entropy", "confidence"] = Field(
        "entropy", description="which open places a step writes: where the decoder is least sure, or the encoder surest"
    )
    skip: bool = Field(
        False, description="a step begins from its states plus the decoder's: the encoder only says what to change"
    )
    shared_projection: bool = Field(True, description="logits from the token table; false: from a matrix of their own")
    gate_hidden: Positive = Field(64, description="width of the GateNet")
    gate_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1


class SpanLosses(Section):
    """0.4·L_AR + 0.2·L_latent + 0.4·L_token + β·E[g], with β = min(gate_cost, step / gate_cost_steps · gate_cost)."""

    ar: Weight = Field(0.4, description="next token of the whole text")
    latent: Weight = Field(0.2, description="½ (1 − cosine) between the span's states and the teacher's")
    token: Weight = Field(0.4, description="the span's tokens, from the states at the step at which its text stops")
    pred: Weight = Field(0.0, description="the decoder's own logits at [PRED]s (repair R9); the seed has none")
    gate_cost: Weight = Field(0.05, description="nats per token that one more step must gain, at most")
    gate_cost_steps: Positive = Field(30_000, description="steps of the stage until it is that much")

    def beta(self, step: int) -> float:
        """Behind ``step`` completed steps of the stage."""
        return min(self.gate_cost, step / self.gate_cost_steps * self.gate_cost)


class SpanStageConfig(Section):
    """``stages.*.span``: how a stage teaches spans."""

    lengths: tuple[Positive, ...] = Field((8, 16), min_length=1, description="K: one of these a step, by chance")
    losses: SpanLosses = SpanLosses()
    gate_estimator: Literal["gumbel", "expected"] = Field(
        "gumbel", description="gumbel: one stop is drawn, straight-through gradient; expected: mean over all stops"
    )
    gate_temperature: Annotated[float, Field(gt=0.0)] = Field(1.0, description="of the Gumbel softmax")
    gate_gradient: Literal["cost", "quality", "none"] = Field(
        "quality",
        description="cost: the gate hears only what steps cost; quality: also what they gain; none: as the seed wrote "
        "it, an integer counter, which has no gradient (repair R7)",
    )
    explore: Share = Field(0.0, description="share of the token loss that is spread over all steps, whatever the gate")
    detach_pred: bool = Field(True, description="the encoder's losses end at the decoder's states (repair R9)")
    detach_entropy: bool = Field(False, description="the gate's losses end at the entropy that it reads")
    teacher: Literal["same", "ema"] = Field("same", description="whose states `latent` is held against (repair R10)")
    ema_decay: Share = Field(0.999, description="of the teacher `ema`, a step")
    teacher_forcing: Share = Field(
        0.0, description="share of texts into which the true tokens are written, not drawn ones: there the token loss "
        "is the likelihood of the span, and the gate learns from them alone"
    )  # fmt: skip
    temperature: Weight = Field(1.0, description="of the tokens that the student writes")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    top_k: Positive = Field(32, description="most likely tokens of a place that are drawn from")

    @model_validator(mode="after")
    def _learns(self) -> SpanStageConfig:
        if self.gate_estimator == "expected" and self.gate_gradient == "none":
            raise ValueError("gate_gradient=none is the seed's counter of drawn stops: it needs gate_estimator=gumbel")
        return self


class DraftLosses(Section):
    ar: Weight = Field(1.0, description="next token of the whole text")
    token: Weight = Field(1.0, description="the span's tokens from the refined states")
    pred: Weight = Field(0.5, description="the same from the decoder's own states at [PRED]s")


class DraftConfig(Section):
    """``stages.*.draft``: what makes verified spans long."""

    lengths: tuple[Positive, ...] = Field((8,), min_length=1, description="K: one of these a step, by chance")
    spans: Positive = Field(2, description="spans of each text a step")
    own: Share = Field(
        1.0, description="share of spans that learn what the decoder itself would write there; the others: the text"
    )
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.9, description="weight of a place over that of the one in front, without which it cannot be accepted"
    )
    losses: DraftLosses = DraftLosses()


class SpanFusionConfig(ModelConfig):
    family: Literal["spanfusion"] = "spanfusion"
    span: SpanModelConfig = Field(description="depths of decoder and encoder, steps, gate")

    def check_stages(self, stages: Sequence[StageConfig]) -> None:
        for stage in stages:
            settings = getattr(stage, stage.name, None) if isinstance(stage, SpanStage | DraftStage) else None
            if settings is not None and max(settings.lengths) > self.max_length - 2:
                raise ValueError(
                    f"{stage.name}.lengths={list(settings.lengths)} of stage {stage.name}: a span and a prompt must "
                    f"fit into model.max_length={self.max_length}"
                )


class SpanFusionStage(StageConfig):
    TIED: ClassVar[Mapping[str, str]] = {"table": "decoder", "projection": "decoder"}  # input and output of the decoder


class DecoderStage(SpanFusionStage):
    """The decoder alone, as a language model."""

    TRAINABLE: ClassVar[tuple[str, ...]] = ("decoder",)

    name: Literal["decoder"]


class SpanStage(SpanFusionStage):
    TRAINABLE: ClassVar[tuple[str, ...]] = ("decoder", "encoder", "gate")

    name: Literal["span"]
    span: SpanStageConfig = Field(description="how spans are taught")


class DraftStage(SpanFusionStage):
    """Decoder and encoder learn to draft what the decoder itself would write."""

    TRAINABLE: ClassVar[tuple[str, ...]] = ("decoder", "encoder")

    name: Literal["draft"]
    draft: DraftConfig = Field(DraftConfig(), description="how drafts are taught")
