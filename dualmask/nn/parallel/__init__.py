"""Tensor parallelism: the only place that knows megatron-core."""

import warnings

# megatron-core says at every import that two optional accelerators are not there; nothing here uses them
warnings.filterwarnings("ignore", message="Transformer Engine and Apex are not installed")
