"""What a training step is compared with: its own matrix products alone, plain loops, and the layers around our own.

Every arm trains on the batches that it is handed and does nothing else (see timing.py). All have AdamW, fused, and clip
the gradient; none has dropout. On CUDA all compute in bfloat16.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from benchmarks import matrix_products
from benchmarks.engines import (
    build_engine,
    build_model,
    build_task,
    device,
    half_precision,
    join,
    passes,
    share_of_rank,
)
from benchmarks.runs import Size, Tree, joint, random_batch, small_run
from benchmarks.timing import Arm
from dualmask.config.schema import ParallelConfig, RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import plan_at
from dualmask.families.task import Task
from dualmask.nn.parallel import mesh
from dualmask.training.checkpoint import Checkpoints
from dualmask.training.engine import parameter_groups, run_step
from dualmask.training.metrics import MetricsFile
from dualmask.training.trainer import Stages, Surroundings, Trainer
from launcher.planner.flops import Cost, step_cost
from launcher.planner.passes import Shape

KEPT = 0.7  # share of the tokens that keep: the same in every text, so that all steps are of one size
STAGES = ("lm", "filler", "joint", "span")
HAVE_COUNTERPART = ("lm", "filler")  # nothing at Hugging Face plays rounds or refines spans
TRUNKS = ("filler", "inserter", "picker")
SPAN = 16  # tokens of a span
COMPILE = "compile"  # key of the section ``parallel``
Batches = Iterator[Batch]


@dataclass(frozen=True)
class Case:
    """A stage at a size."""

    stage: str
    size: Size
    rounds: int = 1
    window: int = 1
    checkpointing: bool = False
    compiled: bool = False  # needs COMPILE

    def run(self, zero: int = 0, output: Path = Path("unused"), tensor: int = 1) -> RunConfig:
        size = self.size
        parallel = {"zero_stage": zero, "tensor": tensor, "activation_checkpointing": self.checkpointing}
        if self.compiled:
            parallel[COMPILE] = True
        return small_run(
            self.stage_tree(),
            {"hidden": size.hidden, "heads": size.heads, "max_length": size.length} | self.model_tree(),
            batch={"sequences": size.sequences},
            parallel=parallel | {"precision": "bf16" if torch.cuda.is_available() else "fp32"},
            output=output,
        )

    def model_tree(self) -> Tree:
        """What the stage's family has of its own."""
        depth = self.size.layers
        if self.stage == "lm":
            return {"family": "autoregressive", "layers": depth}
        if self.stage == "span":
            return {"family": "spanfusion", "span": {"decoder_layers": depth, "encoder_layers": (depth + 1) // 2}}
        return {f"{name}_layers": layers for name, layers in zip(TRUNKS, self.size.depths, strict=True)}

    def stage_tree(self) -> Tree:
        if self.stage == "lm":
            return {"name": "lm", "train": ["lm"]}
        if self.stage == "span":
            return {"name": "span", "train": ["decoder", "encoder", "gate"], "span": {"lengths": [SPAN]}}
        deletion = {"deletion": {"keep_rate_low": KEPT, "keep_rate_high": KEPT}}
        if self.stage == "joint":
            return joint(self.rounds, self.window) | deletion
        return {"name": self.stage, "train": [self.stage]} | deletion  # the module learns by its own loss alone

    @property
    def tokens(self) -> int:
        return self.size.sequences * self.size.length

    def cost(self) -> Cost:
        """Operations of a step."""
        run = self.run()
        shape = Shape(run.model, self.size.vocabulary, self.size.sequences, self.checkpointing)
        return step_cost(shape, run.stages[0])


def arm(train: Callable[..., None], case: Case, *, ranks: int = 1, **options: Any) -> Arm[Batch]:
    return Arm(partial(train, case, **options), partial(random_batch, case.size), ranks)


def can_compile() -> bool:
    """Whether a run file has the switch."""
    return COMPILE in ParallelConfig.model_fields


def make(case: Case) -> tuple[Task, list[dict[str, Any]]]:
    """The stage's task on the device, and its groups of parameters."""
    mesh.single_process()
    run = case.run()
    model = build_model(run, case.size.vocabulary)
    groups = parameter_groups(model, run.stages[0], run.optimizer.weight_decay)
    return build_task(run, model).to(device()), groups


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
    join(tensor=tensor, timeout_seconds=600)
    run = case.run(zero, tensor=tensor)
    stage_engine = build_engine(run, build_model(run, case.size.vocabulary))
    for step, batch in enumerate(batches):
        run_step(stage_engine, share_of_rank(batch), plan_at(run.stages, step), micros=1)


def trainer(case: Case, batches: Batches, *, zero: int) -> None:
    """The whole trainer with its record. Without MLflow, whose thread would still be making its database."""
    join(timeout_seconds=600)
    with tempfile.TemporaryDirectory() as folder:
        run = case.run(zero, Path(folder))
        record = MetricsFile(Path(folder, "metrics.jsonl"), 0)
        stages, checkpoints = Stages(run, case.size.vocabulary), Checkpoints(Path(folder), 1)
        with suppress(StopIteration):
            Trainer(stages, Source(batches), checkpoints, Surroundings(observers=[record])).fit()
        record.close("complete")


class Source:
    """Batches without a place in a data set."""

    cursor = SimpleNamespace(to_dict=dict)

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Batches:
        return self._batches


def hugging_face(case: Case, batches: Batches) -> None:
    """BERT or GPT-2 of equal layers, width, heads, vocabulary and tokens in a plain loop."""
    transformers = need_transformers()
    size = case.size
    torch.manual_seed(0)
    layers = size.layers if case.stage == "lm" else size.depths[0]
    if case.stage == "lm":
        config = transformers.GPT2Config(
            vocab_size=size.vocabulary, n_positions=size.length, n_embd=size.hidden, n_layer=layers,
            n_head=size.heads, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.BertConfig(
            vocab_size=size.vocabulary, max_position_embeddings=size.length, hidden_size=size.hidden,
            num_hidden_layers=layers, num_attention_heads=size.heads, intermediate_size=4 * size.hidden,
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
