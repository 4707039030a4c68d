"""What a step costs the host: operations that Python hands to the GPU one by one, hooks of ZeRO-3, alignments.

Kernels are counted as operations of torch's dispatcher that compute something (``python -m benchmarks.launches`` counts
them, and times an alignment). They do not depend on sizes, so that small models wait for the host. The constants are
sums over the code as it is; what they stand for is said beside each.
"""

from __future__ import annotations

from collections.abc import Sequence

from dualmask.config.hardware import Hardware
from dualmask.config.schema import RunConfig
from dualmask.config.stage import StageConfig
from dualmask.families.edit.config import EditStage, RoundStage
from dualmask.families.span.config import SpanStage
from launcher.planner.gathers import visits
from launcher.planner.parameters import matrices, parameters
from launcher.planner.passes import Gradient, Pass, Shape, Window, flat, walk

FORWARD = 18  # of a block
BACKWARD: dict[Gradient, int] = {"learn": 23, "through": 19, "position": 31, "none": 0}
RAGGED = (10, 5)  # of a block over drafts, whose lengths differ: more forward, and backward
CROSS = (19, 28)  # of a block that also looks at another module's states: more forward, and backward
AROUND = 20  # of a pass, in front of its blocks and behind them, one way
STARTS = 1_450  # of a step with a picker: drafts to begin with, and their mistakes
PICKED = 1_570  # of each of its rounds: decisions, labels, losses, the next draft
COMPARED = 460  # of a round in which the Gate's other decision is tried
RANDOM = 350  # of a round with random holes
SPANS = 1_400  # of a step that refines spans
TEXTS = 58  # of a language model's step
MASKED = 80  # on top of it where it draws masks
ALIGNMENT = 0.22e-6, 0.2e-9  # seconds a token on one core, and on top of it for each token of the text


def host_seconds(run: RunConfig, stage: StageConfig, vocab_size: int, data_size: int, hardware: Hardware) -> float:
    """Of one rank for all micro-batches of a step, texts aligned one after the other on one core."""
    local = run.batch.sequences // data_size
    micros = local // (run.batch.micro or local)
    shape = Shape(run.model, vocab_size, run.batch.sequences, run.parallel.activation_checkpointing)
    windows = walk(shape, stage)
    each = launches(shape, stage, windows) * hardware.launch_microseconds
    if run.parallel.zero_stage == 3:
        each += module_calls(shape, windows) * hardware.hook_microseconds
    return micros * each * 1e-6 + alignment_seconds(shape, stage, windows) / data_size


def launches(shape: Shape, stage: StageConfig, windows: Sequence[Window]) -> int:
    """Kernels of the forward and backward passes of one micro-batch, whatever its size."""
    total = sum(_pass(shape, one, ragged=isinstance(stage, RoundStage)) for one in flat(windows))
    rounds = [played for window in windows for played in window]
    if isinstance(stage, RoundStage):
        compares = stage.gate_decides and stage.rollout.gate_rows > 0
        return total + STARTS + len(rounds) * (PICKED + COMPARED * compares)
    if isinstance(stage, EditStage):
        return total + RANDOM * len(rounds)
    if isinstance(stage, SpanStage):
        return total + SPANS
    return total + TEXTS + MASKED * (shape.config.family == "diffusion")


def module_calls(shape: Shape, windows: Sequence[Window]) -> int:
    """Of modules in the passes of one micro-batch, forward and backward: ZeRO-3 hooks in front of and behind each."""
    every = parameters(shape.config, shape.vocab_size)
    return sum(len(list(visits(window, every, checkpointing=shape.checkpointing))) for window in windows)


def alignment_seconds(shape: Shape, stage: StageConfig, windows: Sequence[Window]) -> float:
    """Of every text with its draft, in every round of all texts of the shape."""
    if not isinstance(stage, RoundStage):
        return 0.0
    length = shape.config.max_length
    a_token, with_each = ALIGNMENT
    texts = shape.sequences * stage.rollout.samples * sum(len(window) for window in windows)
    return texts * length * (a_token + with_each * length)


def _pass(shape: Shape, one: Pass, *, ragged: bool) -> int:
    module = matrices(shape.config, shape.vocab_size).get(one.module)
    if module is None or one.module == "logits":
        return 0
    crosses = one.module == "encoder"
    block = FORWARD + RAGGED[0] * ragged + CROSS[0] * crosses
    if one.gradient != "none":
        again = block - 1 if shape.checkpointing else 0  # but for the last sum, which nothing has saved
        block += BACKWARD[one.gradient] + RAGGED[1] * ragged + CROSS[1] * crosses + again
    return module.layers * block + AROUND * (1 if one.gradient == "none" else 2)
