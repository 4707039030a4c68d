"""The same training on the CPU and on the device: losses, gradient norms and weights, of every family and ZeRO stage.

The reference is the CPU in fp32 without ZeRO. Runs go through the trainer, stage changes and checkpoints included, over
NCCL on a card. With one rank a collective moves nothing, but is carried out: Muon's, too. Decisions of the rounds are
drawn: where rounding tips one, losses of later steps differ by more than rounding, which is why bf16 is allowed much.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.engines import device, join
from benchmarks.gpu_check.setting import Setting, row, wrong
from benchmarks.ranks import CLOSED, Ranks
from benchmarks.runs import ALL_MODULES, LOSSES, Size, Tree, joint, random_batch, small_curriculum
from benchmarks.step_arms import Source
from dualmask.config.schema import RunConfig
from dualmask.curriculum import total_steps
from dualmask.evaluation.statistics import Row
from dualmask.training.checkpoint import Checkpoints
from dualmask.training.metrics import EvalRecord, StepRecord
from dualmask.training.trainer import Stages, Surroundings, Trainer

SIZE = Size(hidden=32, layers=1, heads=2, length=24, sequences=4, vocabulary=200)
EDIT_LAYERS = {"filler_layers": 2, "inserter_layers": 1, "picker_layers": 1}
PICKER = {"losses": LOSSES, "picker_gradient": 0.1}
FAMILIES: dict[str, tuple[Tree, list[Tree]]] = {  # the section ``model``, and the stages
    "autoregressive": ({"family": "autoregressive", "layers": 2}, [{"name": "lm", "train": ["lm"]}]),
    "dualmask": (
        {"family": "dualmask"} | EDIT_LAYERS,
        [
            {"name": "filler", "train": ["filler"]},
            {"name": "inserter", "train": ["inserter"], "losses": {"ptr_count": 1}},
            {"name": "picker", "train": list(ALL_MODULES)} | PICKER,
            joint(2, 1),
        ],
    ),
    "spanfusion": (
        {"family": "spanfusion", "span": {"decoder_layers": 2, "encoder_layers": 1}},
        [
            {"name": "decoder", "train": ["decoder"]},
            {"name": "span", "train": ["decoder", "encoder", "gate"], "span": {"lengths": [6]}},
        ],
    ),
    "diffusion": ({"family": "diffusion", "layers": 2}, [{"name": "lm", "train": ["lm"]}]),
}
STEPS = 3  # of each stage
ALLOWED = {"fp32": 1e-3, "bf16": 5e-2}  # relative, of a loss
ALLOWED_WEIGHT = 1e-3  # absolute, in fp32: a step of AdamW moves a weight by at most the learning rate, 1e-3


@dataclass(frozen=True)
class Variant:
    family: str
    zero: int = 0
    precision: str = "fp32"
    optimizer: str = "adamw"

    def run(self, output: Path) -> RunConfig:
        model, stages = FAMILIES[self.family]
        return small_curriculum(
            [{"steps": STEPS, "lr": {"peak": 1e-3}} | stage for stage in stages],
            {"hidden": SIZE.hidden, "heads": SIZE.heads, "max_length": SIZE.length} | model,
            batch={"sequences": SIZE.sequences},
            parallel={"zero_stage": self.zero, "precision": self.precision},
            optimizer={"name": self.optimizer, "eps": 1e-4},  # a smaller one blows up rounding where a gradient is 0
            output=output,
        )

    def __str__(self) -> str:
        return f"{self.family} ZeRO-{self.zero} {self.precision} {self.optimizer}"


@dataclass
class Trained:
    """Also the observer that notes it."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def on_step(self, record: StepRecord) -> None:
        self.losses.append(record.losses["total"])
        self.grad_norms.append(record.grad_norm)

    def on_eval(self, record: EvalRecord) -> None:
        pass

    def on_stage_end(self, stage_index: int, stage: str, texts: dict[str, str]) -> None:
        pass

    def close(self, status: str) -> None:
        pass


def variants(setting: Setting) -> list[Variant]:
    """What covers most comes first."""
    zeros = (3,) if setting.tiny else (1, 3, 2)
    result = [Variant(family) for family in FAMILIES]
    result += [Variant(family, 1, "bf16") for family in FAMILIES]
    result += [Variant(family, zero) for zero in zeros for family in FAMILIES]
    result += [Variant("dualmask", zero, optimizer="muon") for zero in (*zeros, 0)[: 1 if setting.tiny else None]]
    return result if setting.tiny else [*result, *(Variant(family, 3, "bf16") for family in FAMILIES)]


def measure(setting: Setting) -> Iterator[list[Row]]:
    references: dict[Variant, Trained] = {}
    with Trainings("the CPU", cpu=True) as host, Trainings("the device") as card:
        yield [card.ask(None)]
        for variant in setting.in_time(variants(setting)):
            reference = Variant(variant.family, optimizer=variant.optimizer)
            try:
                if reference not in references:
                    references[reference] = host.ask(reference)
                yield compare(variant, card.ask(variant), references[reference])
            except RuntimeError as error:
                yield [wrong(str(variant), error)]


def compare(variant: Variant, trained: Trained, reference: Trained) -> list[Row]:
    """Greatest differences from the reference."""
    where: Row = {"variant": str(variant)}
    loss = greatest(np.subtract(trained.losses, reference.losses) / np.abs(reference.losses))
    norm = greatest(np.subtract(trained.grad_norms, reference.grad_norms) / np.abs(reference.grad_norms))
    rows = [
        row("loss_difference", loss, ok=loss <= ALLOWED[variant.precision], steps=len(trained.losses), **where),
        row("grad_norm_difference", norm, **where),
    ]
    if variant.precision == "fp32":
        weight = max(greatest(trained.weights[name] - value) for name, value in reference.weights.items())
        rows.append(row("weight_difference", weight, ok=weight <= ALLOWED_WEIGHT, **where))
    return rows


def greatest(differences: Any) -> float:
    """NaN counts as infinite."""
    return float(np.nan_to_num(np.abs(differences), nan=np.inf).max())


class Trainings:
    """A process that trains what it is asked for; one that ends is started anew. Context manager."""

    def __init__(self, name: str, *, cpu: bool = False) -> None:
        self._name, self._cpu = name, cpu
        self._ranks = self._start()

    def ask(self, variant: Variant | None) -> Any:
        """What the training gave; None: a row that says which collectives work. Raises RuntimeError."""
        try:
            self._ranks.send(variant)
            (answer,) = self._ranks.receive()
        except RuntimeError:
            answer = f"{self._name}: the process ended by itself: see the log"
        if isinstance(answer, str):  # an error, behind which a device may be of no use
            self._ranks.__exit__(RuntimeError, None, None)
            self._ranks = self._start()
            raise RuntimeError(answer)
        return answer

    def _start(self) -> Ranks:
        return Ranks(f"trainings on {self._name}", answer, cpu=self._cpu)

    def __enter__(self) -> Trainings:
        return self

    def __exit__(self, *error: object) -> None:
        self._ranks.__exit__(RuntimeError, *error[1:])


def answer(pipe: Connection) -> None:
    """In the process."""
    torch.backends.cudnn.allow_tf32 = False  # convolutions would round like half precision
    try:
        while True:
            variant = pipe.recv()
            try:
                pipe.send(collectives() if variant is None else train(variant))
            except (RuntimeError, ValueError, AssertionError, KeyError, TypeError) as error:
                pipe.send(f"{type(error).__name__}: {error}")
    except CLOSED:
        return


def train(variant: Variant) -> Trained:
    join(timeout_seconds=120)
    trained = Trained()
    with tempfile.TemporaryDirectory() as folder:
        run = variant.run(Path(folder))
        batches = (random_batch(SIZE, step) for step in range(total_steps(run.stages)))
        stages = Stages(run, SIZE.vocabulary)
        engine = Trainer(stages, Source(batches), Checkpoints(Path(folder), 1), Surroundings(observers=[trained])).fit()
        assert engine is not None
        trained.weights = {name: weight.float().numpy() for name, weight in engine.whole_weights().stream}
        engine.close()
    return trained


def collectives() -> Row:
    """Each that DeepSpeed, Megatron or Muon call, on one rank: the library is loaded and carries it out."""
    join(timeout_seconds=120)
    names: Sequence[str] = ("all_reduce", "reduce", "broadcast", "all_gather", "reduce_scatter", "barrier")
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.arange(8, device=device()).to(dtype)
        into = torch.empty_like(x)
        dist.all_reduce(x)
        dist.reduce(x, group=dist.group.WORLD, group_dst=0)
        dist.broadcast(x, group=dist.group.WORLD, group_src=0)
        dist.all_gather([into], x)
        dist.all_gather_into_tensor(into, x)
        if dist.get_backend() == "nccl":
            dist.reduce_scatter_tensor(into, x)
        assert torch.equal(into.float().cpu(), torch.arange(8.0)), "a collective changed its values"
    dist.barrier()
    return row("collectives", len(names), ok=True, backend=str(dist.get_backend()))
