"""The loop over a run's steps. Owns time: stages, checkpoints, when to stop. What a step does is a task's business."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

from dualmask.config.deepspeed import deepspeed_config, micro_batches
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import Tokenizer
from dualmask.curriculum import StepPlan, first_step, plan_at, total_steps
from dualmask.families.task import AfterStep
from dualmask.nn.parallel import mesh
from dualmask.nn.trunk import split_tokens
from dualmask.training.checkpoint import Checkpoints, TrainingState
from dualmask.training.compiled import compile_blocks
from dualmask.training.engine import StageEngine, StepResult, run_step
from dualmask.training.errors import TrainingError
from dualmask.training.judge import Judge
from dualmask.training.metrics import Observer, StepRecord, Yardstick
from dualmask.training.shards import MODEL, ShardFolder
from dualmask.training.sources import Drawn, Exported, Renamed, Source
from dualmask.training.zero3 import allocate, no_heap, trim_heap

MOST_SKIPPED = 20  # steps in a row that may be not finite
PREVIEWED = 8  # texts that are shown at the end of a stage


class Cursor(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


class BatchSource(Protocol):
    """This rank's batches, for ever; ``cursor`` stands behind the last one that was handed out."""

    def __iter__(self) -> Iterator[Batch]: ...

    @property
    def cursor(self) -> Cursor: ...


@dataclass(frozen=True)
class Stages:
    """Builds the engine of each stage: a fresh model of the run's family under DeepSpeed."""

    run: RunConfig
    vocab_size: int
    tokenizer: Tokenizer | None = None  # None: ids only, no text is known
    deepspeed: Mapping[str, Any] | None = None  # the user's additions to DeepSpeed's settings
    initial: Path | None = None  # safetensors file of whole weights to begin with; None: random ones

    def resume(self, index: int, checkpoint: Path) -> StageEngine:
        """The stage as ``checkpoint`` left it."""
        with no_heap():
            engine, _ = self._empty(index)
            engine.partition.fill(ShardFolder(checkpoint))
        return engine

    def build(self, index: int, before: Path | None = None) -> StageEngine:
        """The stage at its beginning. ``before``: the checkpoint behind the stage before; None: the run begins."""
        with no_heap():
            engine, fresh = self._empty(index)
            model, runtime = engine.model, self.run.family.load_runtime()
            copied = runtime.copied([name for name, _ in model.named_parameters()], engine.stage)

            def name_of(name: str) -> str:
                own = name.partition(".")[2]  # of the model, or of a copy of it that the task has
                return MODEL + copied.get(own, own)

            engine.partition.fill(Renamed(fresh if before is None else ShardFolder(before), name_of))
        return engine

    def _empty(self, index: int) -> tuple[StageEngine, Source]:
        """The engine of a stage, whose weights are to be filled in, and those that the run begins with.

        The model is built on ``meta``, and each rank gives memory to its own part alone.
        """
        run, stage, runtime = self.run, self.run.stages[index], self.run.family.load_runtime()
        torch.manual_seed(run.seed)
        checkpointing = run.parallel.activation_checkpointing
        with torch.device("meta"):
            model = runtime.build(run.model, self.vocab_size, activation_checkpointing=checkpointing)
        fresh = self._fresh(model)
        task = runtime.task(model, stage, run, self.tokenizer)
        if run.parallel.sequence:
            split_tokens(task)
        if run.parallel.compile:
            compile_blocks(model)
        cuda = torch.cuda.is_available() and dist.get_backend() == "nccl"
        settings = deepspeed_config(run, stage, data_size=mesh.data_size(), cuda=cuda, user=self.deepspeed)
        allocate(task, settings, torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu"))
        engine = StageEngine(run, stage, task, settings)
        trim_heap()  # of what DeepSpeed has copied, before parts of the weights come on top
        return engine, fresh

    def _fresh(self, model: nn.Module) -> Source:
        drawn = Drawn(model, self.run.seed)
        if self.initial is None:
            return drawn
        given = Exported(self.initial, model, otherwise=drawn)
        if given.fresh and dist.get_rank() == 0:
            print(f"init: {self.run.init} holds no {', '.join(given.fresh)}: begun anew", file=sys.stderr, flush=True)
        return given


@dataclass(frozen=True)
class Surroundings:
    """What a training has to do with beside model and data.

    data_digest, tracking: kept in checkpoints, for whoever goes on from them. observers: on global rank 0. dev: the
    texts by which the run is judged, the same on every rank. yardstick: for the utilisation in records.
    """

    data_digest: str = ""
    tracking: Mapping[str, Any] = field(default_factory=dict)
    observers: Sequence[Observer] = ()
    stop_wanted: Callable[[], bool] = lambda: False
    dev: Batch | None = None
    yardstick: Yardstick | None = None


class Trainer:
    def __init__(
        self, stages: Stages, data: BatchSource, checkpoints: Checkpoints, around: Surroundings | None = None
    ) -> None:
        self.run, self.stages, self.data, self.checkpoints = stages.run, stages, data, checkpoints
        self.around = around or Surroundings()
        self.judge = Judge(self.run, self.around.dev)
        self.total = total_steps(self.run.stages)
        self.step = 0
        self.skipped = 0
        self.steps_without_batch = 0  # of the data: a stage brought its own, or ended before its last step
        self.memory: Mapping[str, Any] = {}  # what the stage's task remembers from step to step
        self._stage_index = 0
        self._skipped_in_a_row = 0
        self._micros = micro_batches(self.run, mesh.data_size())

    def fit(self, resume: tuple[Path, TrainingState] | None = None) -> StageEngine | None:
        """Trains to the end, or until a stop is wanted; then, with a checkpoint just written, returns None.

        Returns the last stage's engine, whose weights are the result. All that was saved is on the disk then.
        """
        try:
            engine = self._steps(resume)
        except TrainingError:  # all ranks have met it
            self.checkpoints.wait()
            raise
        self.checkpoints.wait()
        return engine

    def _steps(self, resume: tuple[Path, TrainingState] | None) -> StageEngine | None:
        engine = self._begin(resume)
        batches = iter(self.data)
        while self.step < self.total:
            plan = plan_at(self.run.stages, self.step, self.memory)
            if plan.stage_index != self._stage_index:
                engine = self._next_stage(engine, plan.stage_index)
                plan = plan_at(self.run.stages, self.step, self.memory)
            began = time.perf_counter()
            own = engine.task.batch(plan)
            batch = _next(batches) if own is None else own
            self.steps_without_batch += own is not None
            waited = time.perf_counter() - began
            result = run_step(engine, batch, plan, micros=self._micros, stop=self.around.stop_wanted())
            after = self._after(engine, plan, result)
            self._observe(plan, result, after, batch, seconds=time.perf_counter() - began, waited=waited)
            self.memory = after.memory
            self.step += 1
            ended, best = self._judge(engine, plan)
            if ended:
                next_stage = first_step(self.run.stages, plan.stage_index + 1)
                self.steps_without_batch += next_stage - self.step
                self.step = next_stage
                self._end_stage(engine, batch, plan)
            stop = result.stop or (bool(after.alarms) and self.run.alarms.stop)
            if stop or ended or best or self.step % self.run.checkpoint.every_steps == 0:
                self._save(engine)
            if after.alarms and self.run.alarms.stop:
                raise TrainingError(f"{after.alarms[0].text} The run ends here, behind a checkpoint (alarms.stop)")
            if result.stop and self.step < self.total:
                return None
        return engine

    def _begin(self, resume: tuple[Path, TrainingState] | None) -> StageEngine:
        if resume is None:
            return self.stages.build(0)
        folder, state = resume
        self.step, self.skipped, self._stage_index = state.step, state.skipped, state.stage_index
        self.memory = state.memory
        self.judge.restore(state.judged)
        index = self._stage_index if self.step == self.total else plan_at(self.run.stages, self.step).stage_index
        return self._enter(index, folder) if index > state.stage_index else self.stages.resume(index, folder)

    def _next_stage(self, engine: StageEngine, stage_index: int) -> StageEngine:
        """The weights go by way of the checkpoint that ended the stage before: no rank needs room for them twice."""
        self.checkpoints.wait()
        engine.close()
        return self._enter(stage_index, self.checkpoints.at(self.step))

    def _enter(self, stage_index: int, checkpoint: Path) -> StageEngine:
        self.memory, self._stage_index = {}, stage_index
        return self.stages.build(stage_index, checkpoint)

    def _after(self, engine: StageEngine, plan: StepPlan, result: StepResult) -> AfterStep:
        """What the task makes of the step's figures: the same on every rank; the first says its alarms aloud."""
        after = engine.task.after_step(plan, result.losses)
        if dist.get_rank() == 0:
            for alarm in after.alarms:
                print(alarm.text, file=sys.stderr, flush=True)
        return after

    def _observe(
        self, plan: StepPlan, result: StepResult, after: AfterStep, batch: Batch, *, seconds: float, waited: float
    ) -> None:
        record = StepRecord(
            step=plan.step,
            step_in_stage=plan.step_in_stage,
            stage_index=plan.stage_index,
            stage=plan.stage.name,
            losses=after.metrics,
            lr=plan.lr,
            grad_norm=result.grad_norm,
            taken=result.taken,
            tokens=result.tokens,
            seconds=seconds,
            data_wait=waited / seconds,
            keys=f"{zlib.crc32(batch.key.numpy().tobytes()):08x}",
            alarms=after.alarms,
            mfu=self.around.yardstick.mfu(plan, seconds) if self.around.yardstick else None,
        )
        for observer in self.around.observers:
            observer.on_step(record)
        self._skipped_in_a_row = 0 if result.taken else self._skipped_in_a_row + 1
        if not result.taken:
            self._report_skip(plan)

    def _report_skip(self, plan: StepPlan) -> None:
        self.skipped += 1
        if dist.get_rank() == 0:
            what = "loss or gradient not finite, skipped by all ranks"
            print(f"step {plan.step}: {what} ({self.skipped} so far)", file=sys.stderr, flush=True)
        if self._skipped_in_a_row >= MOST_SKIPPED:
            raise TrainingError(
                f"{MOST_SKIPPED} steps in a row were not finite, up to step {plan.step}: training cannot go on; "
                f"lower stages.{plan.stage_index}.lr.peak (now {plan.stage.lr.peak}) or optimizer.clip, "
                "and resume from a checkpoint before it"
            )

    def _judge(self, engine: StageEngine, plan: StepPlan) -> tuple[bool, bool]:
        """Whether the stage ends behind this step, and whether the weights are the best that are to be kept."""
        if not self.judge.due(plan):
            return plan.is_last_of_stage, False
        record = self.judge.judge(engine, plan)
        for observer in self.around.observers:
            observer.on_eval(record)
        if record.ends_stage and not plan.is_last_of_stage and dist.get_rank() == 0:
            what = f"{record.metric} is no better than {self.run.eval.patience} evaluations ago"
            print(f"stage {record.stage} ends behind step {plan.step}: {what}", file=sys.stderr, flush=True)
        return plan.is_last_of_stage or record.ends_stage, self.judge.best_step == plan.step + 1

    def _end_stage(self, engine: StageEngine, batch: Batch, plan: StepPlan) -> None:
        texts = {}
        if self.stages.tokenizer is not None:
            shown = engine.preview(batch.rows(slice(0, PREVIEWED)), plan, self.stages.tokenizer)
            name = f"stage-{plan.stage_index}-{plan.stage.name}.txt"
            texts = {name: "\n\n".join(shown.blocks) + "\n"} if shown.blocks else {}
        for observer in self.around.observers:
            observer.on_stage_end(plan.stage_index, plan.stage.name, texts)

    def _save(self, engine: StageEngine) -> None:
        state = TrainingState(
            step=self.step,
            stage_index=self._stage_index,
            vocab_size=self.stages.vocab_size,
            cursor=self.data.cursor.to_dict(),
            config=self.run.model_dump(mode="json"),
            ranks={"data": mesh.data_size(), "tensor": mesh.tensor_size()},
            skipped=self.skipped,
            memory=dict(self.memory),
            judged=self.judge.state,
            data_digest=self.around.data_digest,
            tracking=dict(self.around.tracking),
        )
        partition = engine.partition
        self.checkpoints.save(list(partition.pieces()), state, partition.updates, spared=self.judge.best_step)


def steps_done_in_stage(run: RunConfig, state: TrainingState) -> int:
    return state.step - first_step(run.stages, state.stage_index)


def _next(batches: Iterator[Batch]) -> Batch:
    try:
        return next(batches)
    except StopIteration:
        raise TrainingError(
            "the data has ended before the stages: raise epochs in data.sources, or lower stages.N.steps"
        ) from None
