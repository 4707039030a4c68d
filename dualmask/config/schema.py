"""Every key of a run's YAML file, with its default, meaning and bounds. Pure: imports neither torch nor an engine.

A configuration that loads can run: what contradicts itself fails here, with both numbers in the message. The keys of a
stage stand in ``stage.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dualmask.config.section import Positive, Section, Share
from dualmask.families.edit.config import (
    CorruptionConfig,
    DeletionConfig,
    LearningRate,
    LossWeights,
    RewardConfig,
    RolloutConfig,
    StageConfig,
    StopConfig,
)
from dualmask.families.span.config import SpanLosses, SpanModelConfig, SpanStageConfig

__all__ = [
    "AlarmConfig",
    "BatchSize",
    "CheckpointConfig",
    "CorruptionConfig",
    "DataConfig",
    "DeletionConfig",
    "Family",
    "LearningRate",
    "LossWeights",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "RewardConfig",
    "RolloutConfig",
    "RunConfig",
    "SpanLosses",
    "SpanModelConfig",
    "SpanStageConfig",
    "StageConfig",
    "StopConfig",
    "TrackingConfig",
]

Family = Literal["dualmask", "spanfusion", "autoregressive", "diffusion"]
STAGES: dict[Family, tuple[str, ...]] = {
    "dualmask": ("filler", "inserter", "picker", "joint", "reward"),
    "spanfusion": ("decoder", "span"),
    "autoregressive": ("lm",),
    "diffusion": ("lm",),
}


class ModelConfig(Section):
    family: Family = Field("dualmask", description="autoregressive and diffusion are language models to compare with")
    vocab_size: Positive | None = Field(None, description="rows of the token table; None: from the data's tokenizer")
    hidden: Positive = Field(128, description="width D of every trunk")
    heads: Positive = Field(4, description="attention heads; must be a multiple of parallel.tensor")
    filler_layers: Positive = 4
    inserter_layers: Positive = 4
    picker_layers: Positive = 4
    layers: Positive | None = Field(None, description="depth of the one trunk of autoregressive and diffusion")
    span: SpanModelConfig | None = Field(None, description="the parts of the family spanfusion")
    ffn_multiple: Positive = Field(4, description="width of the MLP over hidden")
    picker_probes: Annotated[int, Field(ge=0)] = Field(
        4, description="filler passes whose opinion of every token the picker reads first; 0: it reads the text alone"
    )
    max_length: Annotated[int, Field(ge=8)] = Field(64, description="tokens a sequence, BOS and EOS included")
    max_gap_count: Positive = Field(8, description="K: most [MASK]s that one gap can take in one round")
    rope_theta: Annotated[float, Field(gt=1.0)] = 10_000.0
    init_std: Annotated[float, Field(gt=0.0)] = 0.02
    estimator: Literal["straight_through", "gumbel", "hard_concrete", "reinforce"] = Field(
        "gumbel", description="how a gradient passes the picker's keep-or-delete decision"
    )
    selection: Literal["budget", "free"] = Field(
        "budget",
        description="budget: exactly the asked share of tokens is deleted; free: each token by its own draw",
    )

    @model_validator(mode="after")
    def _head_width(self) -> ModelConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden={self.hidden} must be a multiple of heads={self.heads}")
        if (self.hidden // self.heads) % 2:
            raise ValueError(f"hidden/heads={self.hidden // self.heads} must be even: rotary positions turn pairs")
        return self

    @model_validator(mode="after")
    def _depth(self) -> ModelConfig:
        keys = {"dualmask": "filler_layers, inserter_layers and picker_layers", "spanfusion": "span"}
        if (self.family in keys) != (self.layers is None):
            depth = keys.get(self.family, "layers")
            raise ValueError(f"family={self.family} and layers={self.layers}: give its depth by {depth}")
        if (self.family == "spanfusion") != (self.span is not None):
            raise ValueError(f"family={self.family}: the section span belongs to the family spanfusion, and only there")
        return self


class DataConfig(Section):
    path: Path = Field(description="folder made by `dualmask data build` (holds manifest.json)")
    crop_share: Share = Field(
        0.15, description="share of training sequences cut short, behind a sentence where there is one"
    )
    verify: Literal["digest", "size"] = Field(
        "digest", description="what is compared with the manifest before training"
    )
    shuffle_seed: int = 0


class BatchSize(Section):
    sequences: Positive = Field(64, description="sequences per optimizer step, over all ranks")
    micro: Positive | None = Field(None, description="sequences per rank and forward; None: no gradient accumulation")


class ParallelConfig(Section):
    tensor: Positive = Field(1, description="tensor-parallel degree (TP)")
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 3
    precision: Literal["fp32", "bf16"] = "fp32"
    activation_checkpointing: bool = False
    timeout_seconds: Positive = Field(600, description="a collective that waits longer than this ends the job")


class OptimizerConfig(Section):
    beta1: Share = 0.9
    beta2: Share = 0.98
    eps: Annotated[float, Field(gt=0.0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    clip: Annotated[float, Field(gt=0.0)] = Field(1.0, description="largest norm of the whole gradient")


class AlarmConfig(Section):
    """What counts as a collapse: a figure out of these bounds in so many steps on end (families/edit/alarms.py)."""

    steps: Positive = Field(200, description="in a row")
    keep_std: Share = Field(0.02, description="least spread of the picker's keep probabilities within a text")
    gate_open_low: Share = Field(0.05, description="least mean probability with which the Gate edits")
    gate_open_high: Share = Field(0.95, description="greatest mean probability with which the Gate edits")
    stop: bool = Field(False, description="an alarm ends the run, behind a checkpoint")


class CheckpointConfig(Section):
    every_steps: Positive = 200
    keep_last: Positive = 2
    background: bool = Field(True, description="written while training goes on, from a copy in the host's memory")


class TrackingConfig(Section):
    enabled: bool = True
    uri: str = Field("sqlite:///runs/mlflow.db", description="an SQLite file or the address of an MLflow server")
    experiment: str = "dualmask"
    every_steps: Positive = 20
    system_metrics: bool = True


class RunConfig(Section):
    """One file, one run."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    output: Path = Field(description="run folder: checkpoints, export, results")
    seed: int = 1
    init: Path | None = Field(
        None, description="exported folder or run's folder whose weights the run begins with; None: random ones"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: ModelConfig = ModelConfig()
    data: DataConfig
    batch: BatchSize = BatchSize()
    parallel: ParallelConfig = ParallelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    checkpoint: CheckpointConfig = CheckpointConfig()
    alarms: AlarmConfig = AlarmConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _stages_of_the_family(self) -> RunConfig:
        known = STAGES[self.model.family]
        for stage in self.stages:
            if stage.name not in known:
                raise ValueError(
                    f"model.family={self.model.family} has no stage {stage.name}: its stages are {', '.join(known)}"
                )
            if stage.span and max(stage.span.lengths) > self.model.max_length - 2:
                raise ValueError(
                    f"span.lengths={list(stage.span.lengths)} of stage {stage.name}: a span and a prompt must fit "
                    f"into model.max_length={self.model.max_length}"
                )
        return self

    @model_validator(mode="after")
    def _picker_of_reinforce(self) -> RunConfig:
        for stage in self.stages:
            if self.model.estimator == "reinforce" and "picker" in stage.train and stage.reward is None:
                stage.check_reinforce()
        return self

    @model_validator(mode="after")
    def _tensor_parallel_divides(self) -> RunConfig:
        tp = self.parallel.tensor
        if self.model.heads % tp:
            raise ValueError(f"parallel.tensor={tp} must divide model.heads={self.model.heads}")
        if self.model.vocab_size is not None and self.model.vocab_size % tp:
            raise ValueError(f"parallel.tensor={tp} must divide model.vocab_size={self.model.vocab_size}")
        return self
