"""One process's training: joins the ranks, finds where to go on, wires data, trainer and observers, exports."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from data_pipeline.crop import Borders, Crop
from data_pipeline.endless import Source, sources_of
from data_pipeline.reader import BATCHES_AHEAD, Cursor, ShardReader, Share, mixed_batch
from data_pipeline.verify import BadShard, record_quarantine, verify_shards
from dualmask.config.hardware import Hardware
from dualmask.config.resume import require_same_run
from dualmask.config.schema import RunConfig
from dualmask.config.tree import ConfigError
from dualmask.core import manifest
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import Tokenizer
from dualmask.curriculum import total_steps
from dualmask.nn.parallel import mesh
from dualmask.training.checkpoint import Checkpoints, TrainingState, find_trouble
from dualmask.training.engine import StageEngine, init_distributed
from dualmask.training.export import TRAINING, export_checkpoint, write_export
from dualmask.training.heartbeat import Heartbeat
from dualmask.training.metrics import MetricsFile, Observer, Yardstick
from dualmask.training.preemption import EXIT_CODE, StopRequest
from dualmask.training.profile import ProfiledSteps
from dualmask.training.progress import Progress, equal_cost
from dualmask.training.tracking import Tracker
from dualmask.training.trainer import Stages, Surroundings, Trainer, steps_done_in_stage
from launcher.ahead import Ahead, Workers
from launcher.costs import StepCosts, hardware_of, step_costs
from launcher.machine import agreed
from launcher.preflight import Preflight, RunRecord, new_key

Resume = tuple[Path, TrainingState] | None


@dataclass(frozen=True)
class Watch:
    """What is asked of a training beside its result."""

    profiled: range | None = None  # steps
    hardware: Hardware | None = None  # what it runs on; None: found by the name of the GPU


@dataclass(frozen=True)
class Wired:
    """What a training is put together from."""

    trainer: Trainer
    data: ShardReader
    ahead: Ahead
    observers: list[Observer]  # of rank 0

    def close(self, status: str) -> None:
        """``status``: how the run ended, for the observers."""
        self.data.close()
        self.ahead.close()
        for observer in self.observers:
            observer.close(status)


def train(ready: Preflight, resume_from: str, stop: StopRequest, watch: Watch = Watch()) -> int:
    """Runs to the end (0) or to a checkpoint on request (75). Raises ConfigError where the resumed run differs."""
    parallel = ready.run.parallel
    init_distributed(tensor=parallel.tensor, timeout_seconds=parallel.timeout_seconds, device=_device(ready.run.device))
    ready = agreed(ready)
    run = ready.run
    heartbeat = Heartbeat(run.parallel.timeout_seconds)
    checkpoints = Checkpoints(run.output, run.checkpoint.keep_last, background=run.checkpoint.background)
    resume = find_resume(ready, checkpoints, resume_from)
    record, key = RunRecord(run), _tracking_key(run, resume, resume_from)
    wired = _wire(ready, checkpoints, resume, key, stop, watch)
    heartbeat.follow(lambda: wired.trainer.step)
    status = "failed"
    try:
        _note(record, "running", resume[1].step if resume else 0, key)
        status = _fit(ready, wired.trainer, checkpoints, resume)
    finally:
        wired.close(status)
        with suppress(OSError) if status == "failed" else nullcontext():  # of a full disk, which the run ends with
            _note(record, status, wired.trainer.step, key)
    dist.barrier()
    heartbeat.close()
    dist.destroy_process_group()
    return 0 if status == "complete" else EXIT_CODE


def _wire(
    ready: Preflight, checkpoints: Checkpoints, resume: Resume, key: str, stop: StopRequest, watch: Watch
) -> Wired:
    run, step, tokenizer = ready.run, resume[1].step if resume else 0, Tokenizer(ready.tokenizer)
    ahead = Ahead(run, step, tokenizer, workers=_workers(ready))
    data = open_data(run, resume, tokenizer, ahead)
    first = dist.get_rank() == 0
    costs = step_costs(run, ready.vocab_size) if first else None
    observers = make_observers(ready, key, step, costs, watch.profiled) if first else []
    initial = ready.init if resume is None else None
    trainer = Trainer(
        Stages(run, ready.vocab_size, tokenizer, deepspeed=ready.deepspeed, initial=initial),
        data,
        checkpoints,
        Surroundings(
            data_digest=ready.data_digest,
            tracking={"key": key},
            observers=observers,
            stop_wanted=lambda: stop.wanted,
            dev=open_dev(run),
            yardstick=make_yardstick(run, costs, watch.hardware, _device(run.device)),
        ),
    )
    ahead.steps_without_batch = lambda: trainer.steps_without_batch
    return Wired(trainer, data, ahead, observers)


def _workers(ready: Preflight) -> Workers | None:
    run = ready.run
    if not run.data.workers or run.family.load_runtime().prepare is None:
        return None
    return Workers(run.data.workers, run.family.name, ready.tokenizer)


def _fit(ready: Preflight, trainer: Trainer, checkpoints: Checkpoints, resume: Resume) -> str:
    """To the end, with an export, or to a request to stop. How it ended."""
    engine = trainer.fit(resume)
    if engine is None:
        return "preempted"
    best = trainer.judge.best_step
    export_result(ready, engine, checkpoints.at(best) if best else None)
    return "complete"


def find_resume(ready: Preflight, checkpoints: Checkpoints, resume_from: str) -> Resume:
    """The checkpoint to go on from, or None. Raises ConfigError where it does not fit this run."""
    if resume_from == "never":
        checkpoints.start_over()
        return None
    if resume_from == "auto":
        folder = checkpoints.newest()
    else:
        folder = Path(resume_from)
        if (folder / "checkpoints").is_dir():
            folder = Checkpoints(folder, keep_last=1).newest() or folder
        elif (folder / TRAINING).is_dir():
            folder = folder / TRAINING
        if trouble := find_trouble(folder):
            raise ConfigError(f"--resume {resume_from}: {trouble}")
    if folder is None:
        return None
    state = TrainingState.read(folder)
    require_same_run(
        state.config, ready.run, stage_index=state.stage_index, steps_done=steps_done_in_stage(ready.run, state)
    )
    if state.data_digest != ready.data_digest:
        raise ConfigError(
            f"{', '.join(ready.run.data.paths)} (or a file of scores) is not the data that {folder} was trained on: "
            "put that back"
        )
    ranks = {"data": mesh.data_size(), "tensor": mesh.tensor_size()}
    if state.ranks != ranks and dist.get_rank() == 0:
        print(f"{folder}: made by {_in_words(state.ranks)} ranks, taken over by {_in_words(ranks)}", flush=True)
    return folder, state


def open_data(run: RunConfig, resume: Resume, tokenizer: Tokenizer, ahead: Ahead) -> ShardReader:
    """This rank's batches, as ``ahead`` prepares them.

    Shards that are not as the manifest says are named, listed and left out by all ranks.
    """
    sources = [without_bad_shards(run, source) for source in sources_of(run.data)]
    return ShardReader(
        sources,
        Share(run.batch.sequences // mesh.data_size(), mesh.data_rank(), mesh.data_size(), run.data.shuffle_seed),
        Crop(run.data.crop_share, Borders.of(tokenizer)),
        cursor=Cursor.from_dict(resume[1].cursor) if resume else None,
        prefetch=max(BATCHES_AHEAD, 2 * run.data.workers),  # the slowest of them must not keep the others waiting
        prepare=ahead,
    )


def without_bad_shards(run: RunConfig, source: Source) -> Source:
    """The source but for its bad shards, which the ranks find together and rank 0 names. Collective."""
    bad = verify_shards(source.folder, "train", run.data.verify, dist.get_rank(), dist.get_world_size())
    everyones: list[list[BadShard]] = [bad] * dist.get_world_size()
    dist.all_gather_object(everyones, bad)
    bad = sorted((shard for part in everyones for shard in part), key=lambda shard: shard.file)
    if bad and dist.get_rank() == 0:
        folder = "" if run.data.sources is None else f"{source.folder}/"
        listed = [BadShard(folder + shard.file, shard.reason) for shard in bad]
        for shard in listed:
            print(f"data: {shard.file} is left out: {shard.reason}", file=sys.stderr, flush=True)
        run.output.mkdir(parents=True, exist_ok=True)
        record_quarantine(run.output / "quarantine.jsonl", listed)
    return replace(source, exclude=[shard.file for shard in bad])


def open_dev(run: RunConfig) -> Batch | None:
    """The texts by which the run is judged; None if it asks for none. Raises ManifestError."""
    if run.eval.every_steps is None:
        return None
    texts = mixed_batch(sources_of(run.data), "dev", run.eval.sequences)
    everyones: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(everyones, hashlib.sha256(texts.tokens.numpy().tobytes()).hexdigest())
    if len(set(everyones)) > 1:
        raise ConfigError(
            f"{', '.join(run.data.paths)}: ranks read other dev texts than each other: copy them to all nodes again"
        )
    return texts


def export_result(ready: Preflight, engine: StageEngine, best: Path | None) -> None:
    """The model folder of the finished run: of its end or, with ``eval.export_best``, of the best evaluation.
    Collective."""
    out, first = ready.run.output / "export", dist.get_rank() == 0
    if ready.run.eval.export_best and best is not None and _is_whole(best):
        if first:
            export_checkpoint(best, out)
        return
    weights = engine.whole_weights(ready.run.checkpoint.export)
    if first:
        write_export(out, weights, ready.run.model, ready.vocab_size, ready.tokenizer)
    else:
        weights.pass_by()


def _is_whole(checkpoint: Path) -> bool:
    """The same on every rank, which may see the disk at another moment; the first says what is wrong."""
    trouble: list[str | None] = [manifest.problem(checkpoint) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(trouble)
    if trouble[0] and dist.get_rank() == 0:
        print(f"eval.export_best: {checkpoint}: {trouble[0]}; the last step is exported", file=sys.stderr, flush=True)
    return trouble[0] is None


def make_yardstick(
    run: RunConfig, costs: StepCosts | None, hardware: Hardware | None, device: torch.device
) -> Yardstick | None:
    """None where the operations are not known."""
    if costs is None:
        return None
    if hardware is None and device.type == "cuda":
        hardware = hardware_of(torch.cuda.get_device_name(device))
    peak = None if hardware is None else hardware.peak(run.parallel.precision) * dist.get_world_size()
    return Yardstick(costs.of, peak)


def make_observers(
    ready: Preflight, key: str, step: int, costs: StepCosts | None, profiled: range | None
) -> list[Observer]:
    run, total = ready.run, total_steps(ready.run.stages)
    run.output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ready.tokenizer, run.output / "tokenizer.model")  # the run folder stands on its own
    shown = run.family.shown
    cost = equal_cost if costs is None else costs.at
    observers: list[Observer] = [
        MetricsFile(run.output / "metrics.jsonl", step),
        Progress(step, total, shown, cost=cost),
    ]
    if profiled is not None:
        observers.append(ProfiledSteps(profiled, run.output / "profile", step))
    if run.tracking.enabled:
        observers.append(Tracker(run, key, data_digest=ready.data_digest))
    return observers


def _device(name: str) -> torch.device:
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _tracking_key(run: RunConfig, resume: Resume, resume_from: str) -> str:
    """The name under which the tracker knows this training: that of the checkpoint, if there is one."""
    if resume is not None:
        return str(resume[1].tracking["key"])
    stored: Any = None if resume_from == "never" else RunRecord(run).read().get("tracking_key")
    return stored or new_key()


def _note(record: RunRecord, status: str, step: int, key: str) -> None:
    if dist.get_rank() == 0:
        names = ("dualmask", "torch", "deepspeed", "megatron-core")
        record.write(
            status, step, key, {"python": platform.python_version(), **{name: _version(name) for name in names}}
        )


def _version(name: str) -> str:
    try:
        return version(name)
    except ModuleNotFoundError:
        return "not installed"


def _in_words(ranks: dict[str, int]) -> str:
    return f"{ranks['data']} data-parallel × {ranks['tensor']} tensor-parallel"
