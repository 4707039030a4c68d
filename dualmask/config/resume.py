"""Whether a run may go on from a checkpoint that was made under another configuration. Pure."""

from __future__ import annotations

from typing import Any

from dualmask.config.load import ConfigError, flatten
from dualmask.config.schema import RunConfig

# what changes neither the numbers of training, but for their rounding, nor the data, which is compared by its digest
_HARMLESS = (
    "name",
    "output",
    "device",
    "tracking.",
    "checkpoint.",
    "eval.",  # but for the end of a stage (patience), which may be set anew as its `steps` may
    "alarms.",
    "data.path",
    "data.cache_gigabytes",
    "data.verify",
    "data.workers",
    "batch.micro",
    "optimizer.ema_decay",
    "parallel.tensor",
    "parallel.zero_stage",
    "parallel.activation_checkpointing",
    "parallel.compile",
    "parallel.sequence",
    "parallel.offload",
    "parallel.max_reuse_distance",
    "parallel.max_live_parameters",
    "parallel.timeout_seconds",
)


def require_same_run(saved: dict[str, Any], run: RunConfig, *, stage_index: int, steps_done: int) -> None:
    """Raises ConfigError naming the first key in which ``run`` contradicts the ``saved`` configuration.

    ``steps_done`` steps of stage ``stage_index`` lie behind the checkpoint. That stage may become longer or shorter,
    and later stages may be anything: they have not begun.
    """
    old, new = flatten(saved), flatten(run)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not _free(key, stage_index):
            raise ConfigError(
                f"{key} = {new.get(key)!r} differs from {old.get(key)!r}, with which the checkpoint was made; "
                "put it back, choose another output, or start over with --resume never"
            )
    if stage_index >= len(run.stages) or run.stages[stage_index].steps < steps_done:
        raise ConfigError(
            f"stages.{stage_index}.steps must be at least {steps_done}: the checkpoint is that far; "
            "raise it, choose another output, or start over with --resume never"
        )


def _free(key: str, stage_index: int) -> bool:
    if key.startswith("stages."):
        _, number, rest = key.split(".", 2)
        return int(number) > stage_index or (int(number) == stage_index and rest == "steps")
    if key.startswith("data.sources.") and key.endswith(".path"):
        return True  # as data.path
    return any(key == free or (free.endswith(".") and key.startswith(free)) for free in _HARMLESS)
