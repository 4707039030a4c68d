"""Tensor parallelism: the only importer of megatron-core."""

import warnings

# megatron-core warns at every import that two optional accelerators are missing; nothing here uses them
warnings.filterwarnings("ignore", message="Transformer Engine and Apex are not installed")
