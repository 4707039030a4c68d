"""What a training step is compared with: its own matrix products alone, plain loops, and the layers around our own.

Every arm trains on the batches that it is handed and does nothing else (see turns.py). All have AdamW, fused, and clip
the gradient; none has dropout. On CUDA all compute in bfloat16.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from benchmarks import matrix_products
from benchmarks.rounds_memory import Size, random_batch
from benchmarks.turns import Arm
from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan, plan_at
from dualmask.families.build import build
from dualmask.nn.parallel import mesh
from dualmask.training.checkpoint import Checkpoints
from dualmask.training.engine import StageEngine, init_distributed, parameter_groups
from dualmask.training.metrics import MetricsFile
from dualmask.training.objective import objective
from dualmask.training.step import run_step
from dualmask.training.trainer import RunContext, Trainer
from launcher.planner.flops import Cost, step_cost
from launcher.planner.passes import Shape

KEPT = 0.7  # share of the tokens that keep: the same in every text, so that all steps are of one size
STEPS = 10**6
STAGES: dict[str, dict[str, Any]] = {
    "lm": {"train": ["lm"]},
    "filler": {"train": ["filler"]},
    "joint": {
        "train": ["filler", "inserter", "picker", "gate"],
        "losses": {"ptr_count": 1, "keep_recover": 1, "keep_oracle": 1, "gate": 1},
        "picker_gradient": 0.1,
    },
}


@dataclass(frozen=True)
class Case:
    """A stage at a size."""

    stage: str
    size: Size
    rounds: int = 1
    window: int = 1
    checkpointing: bool = False

    def run(self, zero: int = 0, output: Path = Path("unused"), tensor: int = 1) -> RunConfig:
        size, depth = self.size, self.size.layers
        layers = {"layers": depth} if self.stage == "lm" else {f"{name}_layers": depth for name in TRUNKS}
        family = "autoregressive" if self.stage == "lm" else "dualmask"
        stage = {
            "name": self.stage,
            "steps": STEPS,
            "lr": {"peak": 1e-4},
            "deletion": {"keep_rate_low": KEPT, "keep_rate_high": KEPT},
            "rollout": {"rounds": self.rounds, "window": self.window, "first_round": "gate"},
            **STAGES[self.stage],
        }
        return RunConfig.model_validate(
            {
                "name": "benchmark",
                "output": output,
                "data": {"path": "unused"},
                "model": {
                    "family": family, "hidden": size.hidden, "heads": size.heads, "max_length": size.length, **layers
                },
                "batch": {"sequences": size.sequences},
                "parallel": {
                    "zero_stage": zero, "tensor": tensor, "activation_checkpointing": self.checkpointing,
                    "precision": "bf16" if torch.cuda.is_available() else "fp32",
                },
                "checkpoint": {"every_steps": STEPS},
                "stages": [stage],
            }
        )  # fmt: skip

    @property
    def tokens(self) -> int:
        return self.size.sequences * self.size.length

    def cost(self) -> Cost:
        """Operations of a step."""
        run = self.run()
        shape = Shape(run.model, self.size.vocabulary, self.size.sequences, self.checkpointing)
        return step_cost(shape, run.stages[0])


TRUNKS = ("filler", "inserter", "picker")
Batches = Iterator[Batch]


def arm(train: Callable[..., None], case: Case, *, ranks: int = 1, **options: Any) -> Arm[Batch]:
    return Arm(partial(train, case, **options), partial(random_batch, case.size), ranks)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_precision() -> AbstractContextManager[Any]:
    """For loops that have no engine to see to it."""
    return torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_available())


def passes(taught: nn.Module, batch: Batch, plan: StepPlan) -> None:
    """Every forward and backward pass of a step."""
    state = None
    for rounds in plan.windows:
        with half_precision():
            loss, _, state = taught(batch, plan, rounds, state)
        loss.backward()


def make(case: Case) -> tuple[nn.Module, list[dict[str, Any]]]:
    """The stage's objective on the device, and its groups of parameters."""
    mesh.single_process()
    torch.manual_seed(0)
    run = case.run()
    model = build(run.model, case.size.vocabulary, activation_checkpointing=case.checkpointing)
    groups = parameter_groups(model, run.stages[0], run.optimizer.weight_decay)
    return objective(model, run.stages[0]).to(device()), groups


def matmuls(case: Case, batches: Batches) -> None:
    """The step's matrix products and nothing else."""
    taught, _ = make(case)
    batch = random_batch(case.size, 0).to(device())
    plan = plan_at(case.run().stages, 0)
    play = matrix_products.loop(matrix_products.record(lambda: passes(taught, batch, plan)))
    for _ in batches:
        play()


def plain(case: Case, batches: Batches) -> None:
    """The loop that one writes by hand."""
    taught, groups = make(case)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
    learning = [parameter for group in groups for parameter in group["params"]]
    run = case.run()
    for step, batch in enumerate(batches):
        passes(taught, batch.to(device()), plan_at(run.stages, step))
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()


def engine(case: Case, batches: Batches, *, zero: int, tensor: int = 1) -> None:
    """Our engine under DeepSpeed, step by step, each rank on its part of the batch."""
    begin(tensor)
    run = case.run(zero, tensor=tensor)
    torch.manual_seed(0)
    model = build(run.model, case.size.vocabulary, activation_checkpointing=case.checkpointing)
    settings = deepspeed_config(run, run.stages[0], data_size=mesh.data_size(), cuda=torch.cuda.is_available())
    stage_engine = StageEngine(run, run.stages[0], model, settings)
    rows = case.size.sequences // mesh.data_size()
    own = slice(mesh.data_rank() * rows, (mesh.data_rank() + 1) * rows)
    for step, batch in enumerate(batches):
        run_step(stage_engine, batch.rows(own), plan_at(run.stages, step), micros=1)


def trainer(case: Case, batches: Batches, *, zero: int) -> None:
    """The whole trainer with its record. Without MLflow, whose thread would still be making its database."""
    begin()
    with tempfile.TemporaryDirectory() as folder:
        run = case.run(zero, Path(folder))
        record = MetricsFile(Path(folder, "metrics.jsonl"), 0)
        context = RunContext(case.size.vocabulary, "", Checkpoints(Path(folder), 1), observers=[record])
        with suppress(StopIteration):
            Trainer(run, Source(batches), context).fit()
        record.close("complete")


class Source:
    """Batches without a place in a data set."""

    cursor = SimpleNamespace(to_dict=dict)

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Batches:
        return self._batches


def begin(tensor: int = 1) -> None:
    init_distributed(tensor=tensor, timeout_seconds=600, device=device())


def hugging_face(case: Case, batches: Batches) -> None:
    """BERT or GPT-2 of equal layers, width, heads, vocabulary and tokens in a plain loop."""
    transformers = need_transformers()
    size = case.size
    torch.manual_seed(0)
    if case.stage == "lm":
        config = transformers.GPT2Config(
            vocab_size=size.vocabulary, n_positions=size.length, n_embd=size.hidden, n_layer=size.layers,
            n_head=size.heads, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.BertConfig(
            vocab_size=size.vocabulary, max_position_embeddings=size.length, hidden_size=size.hidden,
            num_hidden_layers=size.layers, num_attention_heads=size.heads, intermediate_size=4 * size.hidden,
            hidden_act="gelu_new", hidden_dropout_prob=0, attention_probs_dropout_prob=0,
        )  # fmt: skip
        model = transformers.BertForMaskedLM(config)
    model.to(device()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for batch in batches:
        batch = batch.to(device())
        labels = batch.tokens
        if case.stage != "lm":
            holes = torch.rand(labels.shape, device=labels.device) > KEPT
            labels = torch.where(holes & batch.deletable, labels, -100)
        with half_precision():
            loss = model(input_ids=batch.tokens, attention_mask=batch.present, labels=labels).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def need_transformers() -> Any:
    """Raises ValueError where it is not installed."""
    try:
        import transformers
    except ModuleNotFoundError:
        raise ValueError(
            "transformers is not installed: pip install -e '.[bench]', or leave it out: --without hf"
        ) from None
    transformers.logging.set_verbosity_error()
    return transformers
