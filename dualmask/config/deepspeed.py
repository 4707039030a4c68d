"""From a run's configuration to DeepSpeed's dictionary. Pure: imports neither torch nor deepspeed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dualmask.config.load import ConfigError, flatten
from dualmask.config.schema import ParallelConfig, RunConfig
from dualmask.config.stage import StageConfig

# DeepSpeed's key: the key of the run file that decides it
_OWNED = {
    "train_batch_size": "batch.sequences",
    "train_micro_batch_size_per_gpu": "batch.micro",
    "gradient_accumulation_steps": "batch.micro",
    "gradient_clipping": "optimizer.clip",
    "optimizer.params.lr": "stages.*.lr.peak",
    "optimizer.params.betas.0": "optimizer.beta1",
    "optimizer.params.betas.1": "optimizer.beta2",
    "optimizer.params.eps": "optimizer.eps",
    "optimizer.params.weight_decay": "optimizer.weight_decay",
    "bf16.enabled": "parallel.precision",
    "fp16.enabled": "parallel.precision",
    "zero_optimization.stage": "parallel.zero_stage",
    "zero_optimization.offload_optimizer.device": "parallel.offload",
}
REUSE = 10**9  # elements; DeepSpeed's own default, where neither the run file nor the GPU's memory says more
_REFUSED = {"scheduler": "stages.*.lr"}
# deepspeed 0.19.8 links parameters to the optimizer's flat tensors as if they stood there in their own order
_ROUND_ROBIN = "zero_optimization.round_robin_gradients"


def micro_batches(run: RunConfig, data_size: int) -> int:
    """Number of forwards a rank makes for one optimizer step. Raises ConfigError where the sizes do not fit."""
    sequences, micro = run.batch.sequences, run.batch.micro
    if sequences % data_size:
        raise ConfigError(f"batch.sequences={sequences} must be a multiple of the {data_size} data-parallel ranks")
    local = sequences // data_size
    if micro is None:
        return 1
    if local % micro:
        raise ConfigError(
            f"batch.micro={micro} must divide the {local} sequences of a rank (batch.sequences={sequences})"
        )
    return local // micro


def zero_3(parallel: ParallelConfig) -> dict[str, int]:
    """What ZeRO-3 gathers, when, and how long it keeps it: DeepSpeed's keys, all in elements.

    There is no `leaf_module`, which would spare hooks: it reduces a block's gradient at each of its uses, and asserts
    that a backward pass has only one.
    """
    reuse = REUSE if parallel.max_reuse_distance is None else parallel.max_reuse_distance
    live = max(reuse, REUSE) if parallel.max_live_parameters is None else parallel.max_live_parameters
    return {
        "stage3_max_reuse_distance": reuse,
        "stage3_max_live_parameters": live,
        # vectors stay whole: a gather costs a round trip, whatever its size
        "stage3_param_persistence_threshold": 10**5,
        "stage3_prefetch_bucket_size": 5 * 10**7,
    }


def deepspeed_config(
    run: RunConfig, stage: StageConfig, *, data_size: int, cuda: bool, user: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """DeepSpeed's dictionary for one stage of the run on ``data_size`` data-parallel ranks.

    ``user`` adds to it and wins, except over what the run file decides. Raises ConfigError for a contradiction.
    """
    micros = micro_batches(run, data_size)
    optimizer = run.optimizer
    ours: dict[str, Any] = {
        "train_batch_size": run.batch.sequences,
        "train_micro_batch_size_per_gpu": run.batch.sequences // data_size // micros,
        "gradient_accumulation_steps": micros,
        "gradient_clipping": optimizer.clip,  # DeepSpeed would clip at 1.0 if it were not told
        "steps_per_print": sys.maxsize,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": stage.lr.peak,  # the trainer sets each step's own
                "betas": [optimizer.beta1, optimizer.beta2],
                "eps": optimizer.eps,
                "weight_decay": optimizer.weight_decay,
                # torch's own AdamW: nothing is compiled when a run starts, and it is fused all the same, on CPUs too
                "torch_adam": True,
                "fused": True,
            },
        },
        "bf16": {"enabled": run.parallel.precision == "bf16", "check_grad_overflow": True},
        "fp16": {"enabled": False},
        "zero_optimization": {
            "stage": run.parallel.zero_stage,
            "overlap_comm": cuda,
            "contiguous_gradients": True,
            "reduce_bucket_size": 2**24,  # elements; DeepSpeed's 5e8 would reserve 2 GB
            "allgather_bucket_size": 2**24,
            **zero_3(run.parallel),
        },
    }
    if run.parallel.offload == "optimizer":
        ours["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": cuda}
    if optimizer.name == "muon":  # ours, which DeepSpeed has not tested; with its states on the CPU, too
        ours |= {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}
        _refuse_beside_muon(flatten(user or {}))
    return _merge(ours, user or {})


def load_user_config(path: str | Path) -> dict[str, Any]:
    """A DeepSpeed JSON file. Raises ConfigError."""
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read: {reason}; give the path of a JSON file") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must hold one JSON object, as DeepSpeed's configuration does")
    return tree


def _refuse_beside_muon(given: Mapping[str, Any]) -> None:
    """Raises ConfigError for what would be ignored, or is not known to work."""
    for key, known in (("optimizer.type", "AdamW"), ("zero_optimization.offload_optimizer.device", "cpu")):
        if given.get(key) not in (None, "auto", "none", known):
            raise ConfigError(
                f"--deepspeed_config: {key} = {given[key]!r} does not go with optimizer.name=muon: "
                f"give {known}, remove it, or set optimizer.name=adamw"
            )


def _merge(ours: dict[str, Any], user: Mapping[str, Any]) -> dict[str, Any]:
    for section, owner in _REFUSED.items():
        if user.get(section):
            raise ConfigError(f"--deepspeed_config: {section} is decided by the run file ({owner}); remove it")
    decided, given = flatten(ours), flatten(user)
    if given.get(_ROUND_ROBIN) not in (None, False, "auto"):
        raise ConfigError(
            f"--deepspeed_config: {_ROUND_ROBIN} = {given[_ROUND_ROBIN]!r}: checkpoints and exports would hold wrong "
            "weights, because this DeepSpeed does not find them again; remove it"
        )
    for key, owner in _OWNED.items():
        if key in given and key in decided and given[key] not in ("auto", decided[key]):
            raise ConfigError(
                f"--deepspeed_config: {key} = {given[key]!r} contradicts {decided[key]!r} of the run file; "
                f"remove it or change {owner}"
            )
    return _deep(ours, user)


def _deep(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, Mapping):
        return {**base, **{key: _deep(base.get(key), value) for key, value in over.items()}}
    return base if over == "auto" else over
