"""Everything that can be known to be wrong before a process group exists: configuration, data, ranks. No torch."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.manifest import MANIFEST_FILE, TOKENIZER_FILE, Manifest, ManifestError, require_alike
from data_pipeline.remote import load_manifest
from dualmask.config.address import local_folder
from dualmask.config.deepspeed import load_user_config, micro_batches
from dualmask.config.load import ConfigError, flatten, load_run
from dualmask.config.resume import require_same_run
from dualmask.config.schema import RunConfig
from dualmask.core import manifest
from dualmask.core.tokenizer import Tokenizer
from dualmask.curriculum import total_steps
from dualmask.families.registry import resolve
from dualmask.inference.folder import open_folder

# of the section model: what may differ from the model that weights were made for, because no weight depends on it
NOT_OF_WEIGHTS = frozenset(
    {"vocab_size", "max_length", "init_std", "estimator", "selection"}
    | {"span.fill_order", "span.skip", "span.gate_dropout"}
)

HARDWARE = Path(__file__).resolve().parents[1] / "configs" / "hardware"
MOST_PROFILED = 50  # steps


@dataclass(frozen=True)
class Preflight:
    run: RunConfig
    vocab_size: int
    tokenizer: Path
    data_digest: str
    deepspeed: dict[str, Any]  # the user's additions
    init: Path | None  # the weights that the run begins with


def check(
    config: str, overrides: list[str], deepspeed_file: str | None, world: int, stages: int | None = None
) -> Preflight:
    """Raises ValueError with one line for whatever cannot work. ``stages``: only the first so many."""
    run = load_run(config, overrides)
    if stages is not None:
        if not 1 <= stages <= len(run.stages):
            raise ConfigError(f"--stages {stages}: {config} has {len(run.stages)}: give a number from 1 to that")
        run = run.model_copy(update={"stages": run.stages[:stages]})
    tensor = run.parallel.tensor
    if world % tensor:
        raise ConfigError(f"{config}: parallel.tensor={tensor} must divide the number of processes={world}")
    micro_batches(run, world // tensor)
    manifests = {str(source.path): load_manifest(source.path) for source in run.data.mixture}
    require_alike(manifests)
    _require_sequences(config, run, [data.split("train").rows for data in manifests.values()])
    _require_dev(config, run, list(manifests.values()))
    data, tokenizer = manifests[str(run.data.mixture[0].path)], run.data.folder / TOKENIZER_FILE
    if not tokenizer.is_file() or manifest.digest(tokenizer) != data.tokenizer_digest:
        raise ConfigError(
            f"{tokenizer} is not the tokenizer that the data was made with: run dualmask data build again"
        )
    if data.max_length != run.model.max_length:
        raise ConfigError(
            f"{config}: model.max_length={run.model.max_length} differs from the data's {data.max_length}; "
            f"set it to {data.max_length} or build data of that length"
        )
    if run.model.vocab_size not in (None, data.vocab_size):
        raise ConfigError(
            f"{config}: model.vocab_size={run.model.vocab_size} differs from the data's {data.vocab_size}; remove it"
        )
    init = _initial_weights(config, run, data.tokenizer_digest) if run.init else None
    extra = load_user_config(deepspeed_file) if deepspeed_file else {}
    if run.family.check:
        resolve(run.family.check)(run, Tokenizer(tokenizer))
    heads = [local_folder(source.path) / MANIFEST_FILE for source in run.data.mixture]
    files = [*heads, *(file for stage in run.stages for file in stage.files)]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return Preflight(run, data.vocab_size, tokenizer, digest, extra, init)


def profiled_steps(text: str, total: int) -> range:
    """``--profile A:B`` for a run of ``total`` steps: those numbers and all between. Raises ConfigError."""
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal()):
        raise ConfigError(f"--profile {text}: give the first and the last step, as in --profile 20:22")
    steps = range(int(first), int(last) + 1)
    if not steps:
        raise ConfigError(f"--profile {text}: the last step lies before the first; give --profile {last}:{first}")
    if steps[-1] >= total:
        raise ConfigError(f"--profile {text}: the run's steps are 0 to {total - 1}: give numbers within them")
    if len(steps) > MOST_PROFILED:
        raise ConfigError(
            f"--profile {text}: a trace of {len(steps)} steps is more than a viewer opens; give at most {MOST_PROFILED}"
        )
    return steps


def _require_sequences(config: str, run: RunConfig, rows: list[int]) -> None:
    """Raises ConfigError where the epochs of all sources together are shorter than the run."""
    epochs = [source.epochs for source in run.data.mixture]
    there = sum(count * (limit or 0) for count, limit in zip(rows, epochs, strict=True))
    steps = sum(stage.steps for stage in run.stages if not stage.files)  # others may have batches of their own
    needed = steps * run.batch.sequences
    if None not in epochs and there < needed:
        raise ConfigError(
            f"{config}: the stages read {needed} sequences, data.sources have {there} in all their epochs: raise "
            "epochs of a source, or remove it"
        )


def _require_dev(config: str, run: RunConfig, manifests: list[Manifest]) -> None:
    """Raises ConfigError where the run is to be judged and there is nothing to judge it by."""
    if run.eval.every_steps is None or any(data.has("dev") for data in manifests):
        return
    try:
        manifests[0].split("dev")
    except ManifestError as error:
        raise ConfigError(
            f"{config}: eval.every_steps={run.eval.every_steps} measures the dev part of {run.data.paths[0]}, but "
            f"{error}: build it with split.dev above 0 or source.dev_paths, or remove eval.every_steps"
        ) from None


def _initial_weights(config: str, run: RunConfig, tokenizer_digest: str) -> Path:
    """The file of weights to begin with, whose digest is right. Raises ValueError where they are another model's."""
    assert run.init is not None
    try:
        opened = open_folder(run.init, run.model.family)
    except ValueError as error:
        raise ConfigError(f"{config}: init: {error}") from None
    if manifest.digest(opened.path / TOKENIZER_FILE) != tokenizer_digest:
        raise ConfigError(
            f"{config}: init={run.init} has another tokenizer than {run.data.paths[0]}: give a model of that"
        )
    given, own = flatten(opened.config), flatten(run.model)
    for key in sorted(given.keys() | own.keys()):
        if key not in NOT_OF_WEIGHTS and given.get(key) != own.get(key):
            raise ConfigError(
                f"{config}: model.{key}={own.get(key)} differs from {given.get(key)} of init={run.init}: set it to that"
            )
    return opened.path / "model.safetensors"


class RunRecord:
    """``OUTPUT/run.json``: what this run is and how far it came."""

    def __init__(self, run: RunConfig) -> None:
        self.path = run.output / "run.json"
        self._run = run

    def read(self) -> dict[str, Any]:
        """{} if there is none, or none that can be read."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def complete(self) -> bool:
        """Nothing is left to do: this very run has ended, and its export is there."""
        stored, last = self.read(), len(self._run.stages) - 1
        if stored.get("status") != "complete" or not (self._run.output / "export").is_dir():
            return False
        try:
            require_same_run(stored.get("config", {}), self._run, stage_index=last, steps_done=0)
        except ConfigError:
            return False  # the training itself will name the difference
        return stored.get("total_steps") == total_steps(self._run.stages)

    def write(self, status: str, step: int, key: str, versions: dict[str, str]) -> None:
        """``status``: running, preempted, failed or complete."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "status": status,
            "step": step,
            "total_steps": total_steps(self._run.stages),
            "tracking_key": key,
            "versions": versions,
            "config": self._run.model_dump(mode="json"),
        }
        manifest.write_file(self.path, json.dumps(content, indent=1))


def new_key() -> str:
    return uuid.uuid4().hex


def rank() -> int:
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
