"""DeepSpeed's ``mpu`` protocol on top of megatron-core, which no longer has two of the names that DeepSpeed uses."""

from __future__ import annotations

from types import SimpleNamespace

from megatron.core import parallel_state

_NAMES = (
    "get_data_parallel_group",
    "get_data_parallel_rank",
    "get_data_parallel_world_size",
    "get_model_parallel_group",
    "get_pipeline_model_parallel_group",
    "get_pipeline_model_parallel_rank",
    "get_pipeline_model_parallel_world_size",
    "get_tensor_model_parallel_group",
    "get_tensor_model_parallel_rank",
    "get_tensor_model_parallel_src_rank",
    "get_tensor_model_parallel_world_size",
)


def deepspeed_mpu() -> SimpleNamespace:
    mpu = SimpleNamespace(**{name: getattr(parallel_state, name) for name in _NAMES})
    mpu.get_model_parallel_rank = parallel_state.get_tensor_model_parallel_rank
    mpu.get_model_parallel_world_size = parallel_state.get_tensor_model_parallel_world_size
    return mpu
