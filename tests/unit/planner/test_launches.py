"""The planner's kernels are those that torch dispatches in real steps, at two depths; their time bounds a step's."""

from pathlib import Path

import pytest
from stages import make_stage, make_task
from test_flops import CASES, SIZE

from benchmarks.launches import KernelCount
from benchmarks.runs import random_batch
from dualmask.config.hardware import load_hardware
from dualmask.config.load import load_run
from dualmask.config.model import ModelConfig
from dualmask.config.stage import StageConfig
from dualmask.curriculum import plan_at
from dualmask.families.task import build
from dualmask.nn.parallel import mesh
from launcher.planner.launches import host_seconds, launches
from launcher.planner.passes import Shape, walk
from launcher.planner.time import Cluster, Site, step_time

CONFIGS = Path(__file__).parents[3] / "configs"
H100 = load_hardware("h100-80g", CONFIGS / "hardware")


def deeper(config: ModelConfig) -> ModelConfig:
    """By four blocks in each trunk."""
    names = [name for name in ("filler_layers", "inserter_layers", "picker_layers", "layers") if hasattr(config, name)]
    if names:
        return config.model_copy(update={name: getattr(config, name) + 4 for name in names})
    span = config.span.model_copy(update={"decoder_layers": 6, "encoder_layers": 5})
    return config.model_copy(update={"span": span})


def counted(config: ModelConfig, stage: StageConfig, checkpointing: bool) -> int:
    mesh.single_process()
    model = build(config, SIZE.vocabulary, activation_checkpointing=checkpointing)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage.module_of(name) is not None)
    task, plan, batch, state = make_task(model, stage), plan_at([stage], 0), random_batch(SIZE, 0), None
    with KernelCount() as count:
        for rounds in task.windows(plan):
            out = task.window(batch, plan, rounds, state)
            out.total.backward()
            state = out.state
    return count.number


@pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])
@pytest.mark.parametrize("case", CASES)
def test_kernels_of_a_step(case: str, deep: bool):
    config, change = CASES[case]
    config = deeper(config) if deep else config
    stage = make_stage({"steps": 1, "lr": {"peak": 1e-3}} | change)
    shape = Shape(config, SIZE.vocabulary, SIZE.sequences, checkpointing=deep)
    planned = launches(shape, stage, walk(shape, stage))
    assert planned == pytest.approx(counted(config, stage, deep), rel=0.15)


def test_small_models_wait_for_the_host_and_large_ones_do_not():
    small = load_run(CONFIGS / "dualmask_125m.yaml")
    large = load_run(CONFIGS / "dualmask_7b.yaml", ["batch.micro=16"])
    hosts = []
    for run, vocab_size in ((small, 32768), (large, 65536)):
        time = step_time(run, run.stages[-1], Site(H100, Cluster(8, 8), vocab_size))
        hosts.append(time.host)
        assert time.host == host_seconds(run, run.stages[-1], vocab_size, 64 // run.parallel.tensor, H100)
        assert (time.host > time.compute + time.data) == (run is small)
        assert time.least >= max(time.host, time.compute)


def test_micro_batches_and_hooks_are_paid_each_time():
    one, eight = (load_run(CONFIGS / "dualmask_125m.yaml", [f"batch.micro={micro}"]) for micro in (8, 1))
    plain = load_run(CONFIGS / "dualmask_125m.yaml", ["batch.micro=8", "parallel.zero_stage=1"])
    seconds = [host_seconds(run, run.stages[0], 32768, 64, H100) for run in (one, eight, plain)]
    assert seconds[1] == pytest.approx(8 * seconds[0])
    assert seconds[2] < seconds[0]
