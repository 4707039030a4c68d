"""Bytes that a rank holds at the greatest moment of a step, by kind. First draft: formulas will be mended, fields stay."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from dualmask.config.deepspeed import micro_batches
from dualmask.config.schema import ParallelConfig, RunConfig, StageConfig
from dualmask.planning.parameters import Parameter, learning, padded, parameters

SINGLE = 4  # bytes of a float32
BUCKET = 2**24  # elements: zero_optimization.reduce_bucket_size of config/deepspeed.py
PREFETCH = 5 * 10**7  # elements that DeepSpeed's ZeRO-3 gathers ahead: its stage3_prefetch_bucket_size


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank at the peak of a step."""

    weights: float = 0.0
    gradients: float = 0.0
    master: float = 0.0  # the optimizer's own float32 copy of what learns
    adam: float = 0.0  # its two moments
    gathered: float = 0.0  # whole parameters that ZeRO-3 holds at a time
    buckets: float = 0.0  # buffers that gradients are reduced in
    activations: float = 0.0  # kept for backward
    workspace: float = 0.0  # of the operation that needs most

    @property
    def total(self) -> float:
        return float(sum(asdict(self).values()))

    @property
    def states(self) -> float:
        """Held between steps, too."""
        return self.weights + self.gradients + self.master + self.adam


def memory(run: RunConfig, stage: StageConfig, vocab_size: int, data_size: int) -> Memory:
    """``data_size``: data-parallel ranks. Raises ValueError where the batch does not divide."""
    found = parameters(run.model, vocab_size)
    taught = learning(found, stage)
    held = states(found, taught, run.parallel, data_size)
    width = element(run.parallel)
    buckets = gathered = 0.0
    if run.parallel.zero_stage > 0:
        buckets = BUCKET * width
    if run.parallel.zero_stage == 3:
        every = sum(p.size(run.parallel.tensor) for p in found)
        gathered = min(every, PREFETCH + max(p.size(run.parallel.tensor) for p in found)) * width
    sequences = run.batch.sequences // data_size // micro_batches(run, data_size)
    rows = sequences * (stage.rollout.samples if "picker" in stage.train else 1)
    tokens = rows * run.model.max_length
    logits = 3 * 0.5 * tokens * padded(vocab_size) / run.parallel.tensor * SINGLE
    activations = _activations(run, stage, tokens)
    return replace(held, gathered=gathered, buckets=buckets, activations=activations, workspace=logits)


def element(parallel: ParallelConfig) -> int:
    """Bytes of a weight, a gradient and an activation."""
    return 2 if parallel.precision == "bf16" else SINGLE


def states(found: list[Parameter], taught: list[Parameter], parallel: ParallelConfig, data_size: int) -> Memory:
    every, learns = (sum(p.size(parallel.tensor) for p in some) for some in (found, taught))
    width, zero = element(parallel), parallel.zero_stage
    whole = 1 if zero < 3 else data_size
    shared = 1 if zero == 0 else data_size
    return Memory(
        weights=every * width / whole,
        gradients=learns * width / (1 if zero < 2 else data_size),
        master=learns * SINGLE / shared if zero or width < SINGLE else 0.0,
        adam=2 * learns * SINGLE / shared,
    )


def _activations(run: RunConfig, stage: StageConfig, tokens: float) -> float:
    config, parallel = run.model, run.parallel
    width, inner = config.hidden, config.hidden * config.ffn_multiple
    kept = 4 * width + (6 * width + 2 * inner) / parallel.tensor
    each = width if parallel.activation_checkpointing else kept
    if config.family == "dualmask":
        window = min(stage.rollout.window, stage.rollout.rounds) if "picker" in stage.train else 1
        depth = {"filler": config.filler_layers, "inserter": config.inserter_layers, "picker": config.picker_layers}
        layers = window * sum(number for name, number in depth.items() if name in stage.train)
    elif config.span is not None:
        layers = config.span.decoder_layers
    else:
        layers = config.layers or 0
    once = kept if parallel.activation_checkpointing else 0
    return tokens * (layers * each + once) * element(parallel)
