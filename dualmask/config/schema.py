"""Every key of a run's YAML file, with its default, meaning and bounds. Pure: imports neither torch nor an engine.

A configuration that loads can run: what contradicts itself fails here, with both numbers in the message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dualmask.config.schedule import Schedule, constant

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
Module = Literal["filler", "inserter", "picker"]


class Section(BaseModel):
    """Unknown keys are errors; values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(Section):
    family: Literal["dualmask"] = "dualmask"
    vocab_size: Positive | None = Field(None, description="rows of the token table; None: from the data's tokenizer")
    hidden: Positive = Field(128, description="width D of every trunk")
    heads: Positive = Field(4, description="attention heads; must be a multiple of parallel.tensor")
    filler_layers: Positive = 4
    inserter_layers: Positive = 4
    picker_layers: Positive = 4
    ffn_multiple: Positive = Field(4, description="width of the MLP over hidden")
    picker_probes: Annotated[int, Field(ge=0)] = Field(
        4, description="filler passes whose opinion of every token the picker reads first; 0: it reads the text alone"
    )
    max_length: Annotated[int, Field(ge=8)] = Field(64, description="tokens a sequence, BOS and EOS included")
    max_gap_count: Positive = Field(8, description="K: most [MASK]s that one gap can take in one round")
    rope_theta: Annotated[float, Field(gt=1.0)] = 10_000.0
    init_std: Annotated[float, Field(gt=0.0)] = 0.02
    estimator: Literal["straight_through", "gumbel", "hard_concrete"] = Field(
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


class DataConfig(Section):
    path: Path = Field(description="folder made by `dualmask data build` (holds manifest.json)")
    crop_share: Share = Field(
        0.15, description="share of training sequences cut to a random length, so that short texts work"
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


class DeletionConfig(Section):
    """How a training example loses its tokens."""

    keep_rate_low: Schedule = constant(0.1)
    keep_rate_high: Schedule = constant(0.9)
    random_share: Share = Field(0.5, description="share of sequences whose skeleton is random, not the picker's own")
    span_share: Share = Field(0.5, description="of the random ones: share that loses spans instead of single tokens")
    mean_span: Annotated[float, Field(ge=1.0)] = Field(3.0, description="mean length of a deleted span, tokens")
    corrupt_share: Share = Field(
        0.0, description="share of sequences that come with wrong tokens to delete (`keep_oracle`)"
    )
    corrupt_rate: Share = Field(
        0.1, description="of such a sequence: share of tokens replaced by others of the same text"
    )
    temperature: Schedule = Field(constant(1.0), description="Gumbel noise on the picker's order, and of the estimator")
    count_power: Share = Field(
        1.0, description="`keep_recover` label: P(token) · P(count) to this power; 0: holes need not be found again"
    )
    max_delete_rate: Share = Field(0.9, description="r_max of `comp_kl`: the largest share that may be deleted")


class StageConfig(Section):
    name: Literal["filler", "inserter", "picker", "joint"]
    steps: Positive
    train: tuple[Module, ...] = Field(min_length=1, description="modules that learn; the others are frozen")
    start_from: dict[Module, Module] = Field({}, description="module: trunk it is copied from when the stage begins")
    lr: LearningRate
    lr_scale: dict[Module, Annotated[float, Field(gt=0.0)]] = Field(
        {}, description="learning rate of a module over the stage's"
    )
    losses: LossWeights = LossWeights()
    deletion: DeletionConfig = DeletionConfig()
    picker_gradient: Share = Field(
        0.0, description="share of the reconstruction gradient that reaches the picker's decision (0: labels only)"
    )

    @model_validator(mode="after")
    def _consistent(self) -> StageConfig:
        if self.lr.warmup_steps > self.steps:
            raise ValueError(f"lr.warmup_steps={self.lr.warmup_steps} must not exceed steps={self.steps}")
        if frozen := sorted(set(self.lr_scale) - set(self.train)):
            raise ValueError(f"lr_scale names {frozen}, which train={list(self.train)} leaves frozen")
        if self.name == "filler" and "filler" not in self.train:
            raise ValueError(f"stage filler must train the filler, train={list(self.train)}")
        low, high = self.deletion.keep_rate_low, self.deletion.keep_rate_high
        if low.start > high.start or low.end > high.end:
            raise ValueError(
                f"deletion.keep_rate_low={low.start}…{low.end} exceeds keep_rate_high={high.start}…{high.end}"
            )
        return self


class CheckpointConfig(Section):
    every_steps: Positive = 200
    keep_last: Positive = 2


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
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: ModelConfig = ModelConfig()
    data: DataConfig
    batch: BatchSize = BatchSize()
    parallel: ParallelConfig = ParallelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _tensor_parallel_divides(self) -> RunConfig:
        tp = self.parallel.tensor
        if self.model.heads % tp:
            raise ValueError(f"parallel.tensor={tp} must divide model.heads={self.model.heads}")
        if self.model.vocab_size is not None and self.model.vocab_size % tp:
            raise ValueError(f"parallel.tensor={tp} must divide model.vocab_size={self.model.vocab_size}")
        return self
