"""Every key of a run's YAML file, with its default, meaning and bounds. Pure: imports neither torch nor an engine.

A configuration that loads can run: what contradicts itself fails here, with both numbers in the message. The keys of
``model``, ``stages`` and ``alarms`` are those of the run's family (families/*/config.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    PlainSerializer,
    SerializeAsAny,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from dualmask.config.address import is_address, local_folder
from dualmask.config.alarms import AlarmConfig
from dualmask.config.evaluation import EvalConfig
from dualmask.config.model import ModelConfig
from dualmask.config.section import FileName, Positive, Section, Share
from dualmask.config.stage import StageConfig
from dualmask.families import registry
from dualmask.families.registry import Family


def _folder_or_address(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, str) and is_address(value) else handler(value)


# an address of an object store stays a string: as a path it would lose a slash
Folder = Annotated[Path, WrapValidator(_folder_or_address), PlainSerializer(str)]


class DataSource(Section):
    """One of several data folders that a run reads from."""

    path: Folder = Field(description="folder made by `dualmask data build`, or its address")
    weight: Annotated[float, Field(gt=0.0)] = Field(1.0, description="share of the sequences, beside other weights")
    epochs: Positive | None = Field(
        None, description="how often each sequence is read at most; the other sources go on by weight. None: no limit"
    )


class DataConfig(Section):
    path: Folder | None = Field(
        None,
        description="folder made by `dualmask data build` (holds manifest.json or, for several sources, mixture.json), "
        "or the address of one with manifest.json in an object store: https://…, s3://…",
    )
    sources: Annotated[tuple[DataSource, ...], Field(min_length=1)] | None = Field(
        None, description="instead of path: several folders with weights; dev texts come from all of them"
    )
    cache_gigabytes: Annotated[float, Field(gt=0.0)] = Field(
        20.0, description="of shards of an address that are kept on each machine"
    )
    crop_share: Share = Field(
        0.15,
        description="share of training sequences cut short: from a line's or sentence's beginning to a sentence's end",
    )
    workers: Annotated[int, Field(ge=0)] = Field(
        0,
        description="processes of each rank that make the errors and start states of coming steps; 0: the thread that "
        "reads, beside the training; the same numbers either way",
    )
    verify: Literal["digest", "size"] = Field(
        "digest", description="what is compared with the manifest before training; digest: of what has changed"
    )
    shuffle_seed: int = 0

    @model_validator(mode="after")
    def _one_form_is_given(self) -> DataConfig:
        if self.path is None and self.sources is None:
            raise ValueError("data.path is missing: give the folder made by `dualmask data build`, or data.sources")
        if self.path is not None and self.sources is not None:
            raise ValueError(f"data.path={self.path} excludes data.sources: remove one of them (path: null)")
        return self

    @property
    def mixture(self) -> tuple[DataSource, ...]:
        """The sources; that of ``path`` is the only one."""
        return self.sources or (DataSource(path=self.path or Path()),)

    @property
    def folder(self) -> Path:
        """The first source on this machine: its tokenizer and its held-out texts are the run's."""
        return local_folder(self.mixture[0].path)

    @property
    def paths(self) -> list[str]:
        return [str(source.path) for source in self.mixture]

    @property
    def name(self) -> str:
        return "+".join(path.rstrip("/").rpartition("/")[2] for path in self.paths)


class BatchSize(Section):
    sequences: Positive = Field(64, description="sequences per optimizer step, over all ranks")
    micro: Positive | None = Field(None, description="sequences per rank and forward; None: no gradient accumulation")


class ParallelConfig(Section):
    tensor: Positive = Field(1, description="tensor-parallel degree (TP)")
    sequence: bool = Field(
        False,
        description="sequence parallelism: each tensor-parallel rank keeps a part of the tokens between split layers",
    )
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 3
    precision: Literal["fp32", "bf16"] = "fp32"
    activation_checkpointing: bool = False
    compile: bool = Field(
        False,
        description="transformer blocks are compiled in the first steps of a stage, which takes minutes; "
        "zero_stage up to 2",
    )
    offload: Literal["none", "optimizer"] = Field(
        "none", description="optimizer: the host keeps the optimizer's states and makes its step (ZeRO-1 to -3)"
    )
    max_reuse_distance: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="ZeRO-3: gathered weights stay where fewer elements than so many are used before they are used "
        "again; None: as many as the GPU's memory has room for",
    )
    max_live_parameters: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="ZeRO-3: nothing is gathered ahead while so many elements are; None: max_reuse_distance, but not "
        "less than 10^9",
    )
    timeout_seconds: Positive = Field(600, description="a collective that waits longer than this ends the job")

    @model_validator(mode="after")
    def _splits_tokens_over_ranks(self) -> ParallelConfig:
        if self.sequence and self.tensor == 1:
            raise ValueError(
                "sequence=true, tensor=1: tokens are split over the tensor-parallel ranks; set tensor to 2 or more, "
                "or sequence to false"
            )
        return self

    @model_validator(mode="after")
    def _compiles_whole_parameters(self) -> ParallelConfig:
        if self.compile and self.zero_stage == 3:
            raise ValueError(
                "compile=true, zero_stage=3: ZeRO-3 gathers parameters between the operations of a block, so that it "
                "cannot be compiled as a whole; set zero_stage to 2 or less, or compile to false"
            )
        return self

    @model_validator(mode="after")
    def _offloads_what_is_shared_out(self) -> ParallelConfig:
        if self.offload == "optimizer" and self.zero_stage == 0:
            raise ValueError(
                "parallel.offload=optimizer needs an optimizer of DeepSpeed's: set parallel.zero_stage to 1, 2 or 3 "
                "(it is 0), or parallel.offload to none"
            )
        return self


class OptimizerConfig(Section):
    name: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: Muon for the matrices of hidden layers, AdamW for everything else"
    )
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.95, description="of Muon (Nesterov's)")
    beta1: Share = 0.9
    beta2: Share = 0.98
    eps: Annotated[float, Field(gt=0.0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    clip: Annotated[float, Field(gt=0.0)] = Field(1.0, description="largest norm of the whole gradient")
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None,
        description="of an exponential moving average of what learns, begun anew in each stage; None: there is none",
    )


class CheckpointConfig(Section):
    every_steps: Positive = 200
    keep_last: Positive = 2
    background: bool = Field(True, description="written while training goes on, from a copy in the host's memory")
    export: Literal["last", "average"] = Field(
        "last", description="the exported weights: those of the last step, or the average of optimizer.ema_decay"
    )


class TrackingConfig(Section):
    enabled: bool = True
    uri: FileName = Field("sqlite:///runs/mlflow.db", description="an SQLite file or the address of an MLflow server")
    experiment: str = "dualmask"
    every_steps: Positive = 20
    system_metrics: bool = True
    parent: str | None = Field(None, description="id of the MLflow run that this one belongs to, such as a sweep's")


def _stage_of_the_family(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """One entry of ``stages`` as the family's class for its name."""
    if not isinstance(value, dict) or "model" not in info.data:
        return handler(value)
    family = registry.find(info.data["model"].family)
    stage = family.stage(value["name"]) if isinstance(value.get("name"), str) else None
    if stage is None and value.get("name") is not None:
        known = ", ".join(family.stage_names)
        raise ValueError(f"model.family={family.name} has no stage name={value['name']!r}: its stages are {known}")
    return stage.model_validate(value) if stage else handler(value)


class RunConfig(Section):
    """One file, one run."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    output: Path = Field(description="run folder: checkpoints, export, results")
    seed: int = 1
    init: Path | None = Field(
        None, description="exported folder or run's folder whose weights the run begins with; None: random ones"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: SerializeAsAny[ModelConfig] = Field({}, validate_default=True)
    data: DataConfig
    batch: BatchSize = BatchSize()
    parallel: ParallelConfig = ParallelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    stages: tuple[Annotated[SerializeAsAny[StageConfig], WrapValidator(_stage_of_the_family)], ...] = Field(
        min_length=1
    )
    checkpoint: CheckpointConfig = CheckpointConfig()
    eval: EvalConfig = EvalConfig()
    alarms: SerializeAsAny[AlarmConfig] = Field({}, validate_default=True)
    tracking: TrackingConfig = TrackingConfig()

    @property
    def family(self) -> Family:
        return registry.find(self.model.family)

    @field_validator("model", mode="wrap")
    @classmethod
    def _model_of_its_family(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        if not isinstance(value, dict):
            return handler(value)
        value = {"family": registry.DEFAULT} | value
        if not isinstance(value["family"], str):
            return handler(value)
        return registry.find(value["family"]).model.model_validate(value)

    @field_validator("alarms", mode="wrap")
    @classmethod
    def _alarms_of_the_family(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        if isinstance(value, dict) and "model" in info.data:
            return registry.find(info.data["model"].family).alarms.model_validate(value)
        return handler(value)

    @classmethod
    def section_at(cls, key: str, tree: Any, index: int | None = None) -> type[BaseModel] | None:
        """The class of section ``key``, or of its entry ``index``, in a ``tree`` that may be wrong anywhere."""
        try:
            family = registry.find(str((tree.get("model") or {}).get("family", registry.DEFAULT)))
            if key == "stages" and index is not None:
                return family.stage(str(tree["stages"][index]["name"]))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return None
        return {"model": family.model, "alarms": family.alarms}.get(key)

    @model_validator(mode="after")
    def _model_and_stages_agree(self) -> RunConfig:
        self.model.check_stages(self.stages)
        return self

    @model_validator(mode="after")
    def _metric_is_measured(self) -> RunConfig:
        metric, known = self.eval.metric, self.family.dev_figures
        if metric is not None and metric not in known:
            raise ValueError(
                f"eval.metric={metric} is not measured in family {self.family.name}: give {', '.join(known)}"
            )
        return self

    @model_validator(mode="after")
    def _exports_what_there_is(self) -> RunConfig:
        if self.checkpoint.export == "average" and self.optimizer.ema_decay is None:
            raise ValueError(
                "checkpoint.export=average needs an average: set optimizer.ema_decay (such as 0.999), or export last"
            )
        return self

    @model_validator(mode="after")
    def _tensor_parallel_divides(self) -> RunConfig:
        tp = self.parallel.tensor
        if self.model.heads % tp:
            raise ValueError(f"parallel.tensor={tp} must divide model.heads={self.model.heads}")
        if self.model.vocab_size is not None and self.model.vocab_size % tp:
            raise ValueError(f"parallel.tensor={tp} must divide model.vocab_size={self.model.vocab_size}")
        return self
