"""The loop over a run's steps. Owns time: stages, checkpoints, when to stop. The step owns the batch (step.py)."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from dualmask.config.deepspeed import deepspeed_config, micro_batches
from dualmask.config.schema import RunConfig, StageConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import Earned, StepPlan, first_step, plan_at, total_steps
from dualmask.families.build import build
from dualmask.families.edit.alarms import Alarm, Watch
from dualmask.families.edit.model import start_from
from dualmask.families.edit.reward import Decode, Reward, make_reward
from dualmask.families.edit.scored import ScoredTexts
from dualmask.nn.parallel import mesh
from dualmask.training.checkpoint import Checkpoints, TrainingState
from dualmask.training.engine import StageEngine, load_slices
from dualmask.training.errors import TrainingError
from dualmask.training.initial import begin_with
from dualmask.training.metrics import Observer, StepRecord
from dualmask.training.shards import ShardFolder
from dualmask.training.step import StepResult, run_step

MOST_SKIPPED = 20  # steps in a row that may be not finite


class Cursor(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


class BatchSource(Protocol):
    """This rank's batches, for ever; ``cursor`` stands behind the last one that was handed out."""

    def __iter__(self) -> Iterator[Batch]: ...

    @property
    def cursor(self) -> Cursor: ...


Sampler = Callable[[StageEngine, Batch, StepPlan], dict[str, str]]


@dataclass(frozen=True)
class RunContext:
    """What a run needs beside its configuration and its data."""

    vocab_size: int
    data_digest: str
    checkpoints: Checkpoints
    observers: Sequence[Observer] = ()  # on global rank 0 only
    tracking: Mapping[str, Any] | None = None  # kept in checkpoints for the tracker
    deepspeed: Mapping[str, Any] | None = None  # the user's additions
    typos: torch.Tensor | None = None  # see dualmask/core/typos.py
    decode: Decode | None = None  # ids → text, for rewards on text
    scored: Mapping[int, ScoredTexts] = field(default_factory=dict)  # by stage: edits that people have scored
    initial: Mapping[str, torch.Tensor] | None = None  # whole weights to begin with; None: random ones
    sampler: Sampler | None = None  # collective; shows at the end of a stage what it learnt
    stop_wanted: Callable[[], bool] = lambda: False


class Trainer:
    def __init__(self, run: RunConfig, data: BatchSource, context: RunContext) -> None:
        self.run, self.data, self.context = run, data, context
        self.total = total_steps(run.stages)
        self.step = 0
        self.skipped = 0
        self.earned = Earned()
        self.watch = Watch()
        self._stage_index = 0
        self._skipped_in_a_row = 0
        self._micros = micro_batches(run, mesh.data_size())

    def fit(self, resume: tuple[Path, TrainingState] | None = None) -> StageEngine | None:
        """Trains to the end, or until a stop is wanted; then, with a checkpoint just written, returns None.

        Returns the last stage's engine, whose weights are the result. All that was saved is on the disk then.
        """
        try:
            engine = self._steps(resume)
        except TrainingError:  # all ranks have met it
            self.context.checkpoints.wait()
            raise
        self.context.checkpoints.wait()
        return engine

    def _steps(self, resume: tuple[Path, TrainingState] | None) -> StageEngine | None:
        engine = self._begin(resume)
        batches = iter(self.data)
        while self.step < self.total:
            plan = plan_at(self.run.stages, self.step, self.earned.rounds)
            if plan.stage_index != self._stage_index:
                engine = self._next_stage(engine, plan.stage_index)
            began = time.perf_counter()
            scored = self.context.scored.get(plan.stage_index)
            batch = scored.at(plan.step_in_stage) if scored else next(batches)
            waited = time.perf_counter() - began
            result = run_step(engine, batch, plan, micros=self._micros, stop=self.context.stop_wanted())
            alarms = self._alarms(plan, result)
            self._observe(plan, result, batch, alarms, seconds=time.perf_counter() - began, waited=waited)
            self.earned = self.earned.after(plan.stage, result.losses.get("restored_prob", 0.0))
            self.step += 1
            if plan.is_last_of_stage:
                self._end_stage(engine, batch, plan)
            stop = result.stop or (bool(alarms) and self.run.alarms.stop)
            if stop or plan.is_last_of_stage or self.step % self.run.checkpoint.every_steps == 0:
                self._save(engine)
            if alarms and self.run.alarms.stop:
                raise TrainingError(f"{alarms[0].text} The run ends here, behind a checkpoint (alarms.stop)")
            if result.stop and self.step < self.total:
                return None
        return engine

    def _begin(self, resume: tuple[Path, TrainingState] | None) -> StageEngine:
        if resume is None:
            return self._build(0, None)
        folder, state = resume
        self.step, self.skipped, self._stage_index = state.step, state.skipped, state.stage_index
        self.earned, self.watch = Earned(**state.earned), Watch(**state.watch)
        engine = self._build(state.stage_index, None)
        engine.partition.fill(ShardFolder(folder))
        return engine

    def _build(self, stage_index: int, weights: dict[str, torch.Tensor] | None) -> StageEngine:
        """A fresh model and engine. ``weights``: this rank's slices; None: those that the run begins with."""
        run, stage = self.run, self.run.stages[stage_index]
        torch.manual_seed(run.seed)
        model = build(
            run.model, self.context.vocab_size, activation_checkpointing=run.parallel.activation_checkpointing
        )
        if weights is None:
            weights, fresh = begin_with(model, self.context.initial or {})
            if self.context.initial and fresh and dist.get_rank() == 0:
                print(f"init: {self.run.init} holds no {', '.join(fresh)}: begun anew", file=sys.stderr, flush=True)
        load_slices(model, start_from(weights, stage))
        cuda = torch.cuda.is_available() and dist.get_backend() == "nccl"
        settings = deepspeed_config(run, stage, data_size=mesh.data_size(), cuda=cuda, user=self.context.deepspeed)
        self._stage_index = stage_index
        return StageEngine(run, stage, model, settings, self.context.typos, self._reward(stage))

    def _reward(self, stage: StageConfig) -> Reward | None:
        if stage.reward is None or stage.reward.source == "scores":
            return None
        assert self.context.decode is not None
        return make_reward(stage.reward.source, self.context.decode)

    def _next_stage(self, engine: StageEngine, stage_index: int) -> StageEngine:
        weights = engine.slices()
        engine.close()
        self.earned, self.watch = Earned(), Watch()
        return self._build(stage_index, weights)

    def _alarms(self, plan: StepPlan, result: StepResult) -> tuple[Alarm, ...]:
        """Those that this step raises: the same on every rank, said aloud by the first."""
        self.watch, alarms = self.watch.after(self.run.alarms, result.losses, plan.stage.name, plan.step)
        if dist.get_rank() == 0:
            for alarm in alarms:
                print(alarm.text, file=sys.stderr, flush=True)
        return alarms

    def _observe(
        self,
        plan: StepPlan,
        result: StepResult,
        batch: Batch,
        alarms: tuple[Alarm, ...],
        *,
        seconds: float,
        waited: float,
    ) -> None:
        record = StepRecord(
            step=plan.step,
            step_in_stage=plan.step_in_stage,
            stage_index=plan.stage_index,
            stage=plan.stage.name,
            losses=result.losses,
            lr=plan.lr,
            grad_norm=result.grad_norm,
            taken=result.taken,
            tokens=result.tokens,
            seconds=seconds,
            data_wait=waited / seconds,
            keys=f"{zlib.crc32(batch.key.numpy().tobytes()):08x}",
            alarms=alarms,
        )
        for observer in self.context.observers:
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

    def _end_stage(self, engine: StageEngine, batch: Batch, plan: StepPlan) -> None:
        texts = self.context.sampler(engine, batch, plan) if self.context.sampler else {}
        for observer in self.context.observers:
            observer.on_stage_end(plan.stage_index, plan.stage.name, texts)

    def _save(self, engine: StageEngine) -> None:
        state = TrainingState(
            step=self.step,
            stage_index=self._stage_index,
            cursor=self.data.cursor.to_dict(),
            config=self.run.model_dump(mode="json"),
            vocab_size=self.context.vocab_size,
            data_digest=self.context.data_digest,
            ranks={"data": mesh.data_size(), "tensor": mesh.tensor_size()},
            tracking=dict(self.context.tracking or {}),
            skipped=self.skipped,
            earned=asdict(self.earned),
            watch=asdict(self.watch),
        )
        partition = engine.partition
        self.context.checkpoints.save(list(partition.pieces()), state, partition.updates)


def steps_done_in_stage(run: RunConfig, state: TrainingState) -> int:
    return state.step - first_step(run.stages, state.stage_index)
