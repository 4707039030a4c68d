"""Builds the small runs that are measured: their sizes, configurations and random batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, SPECIAL_IDS

Tree = dict[str, Any]  # a section of a configuration

STEPS = 10**6  # more than any benchmark takes
ALL_MODULES = ("filler", "inserter", "picker", "gate")
LOSSES: Tree = {"ptr_count": 1, "keep_recover": 1, "keep_oracle": 1}


@dataclass(frozen=True)
class Size:
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    length: int = 64
    sequences: int = 8
    vocabulary: int = 2048
    trunks: tuple[int, int, int] | None = None  # layers of filler, inserter and picker; None: ``layers`` each

    @property
    def depths(self) -> tuple[int, int, int]:
        return self.trunks or (self.layers, self.layers, self.layers)


SIZES = {
    "tiny": Size(),  # the model of `make train`
    "small": Size(hidden=256, layers=6, heads=8, length=128, sequences=16, vocabulary=8192),
    "medium": Size(hidden=512, layers=8, heads=8, length=256, sequences=8, vocabulary=16384),
    # for GPUs: parameters of a language model of all layers, and of the three trunks of DualMaskLM together
    "125m": Size(768, layers=12, heads=12, length=1024, sequences=32, vocabulary=32768, trunks=(8, 3, 3)),
    "350m": Size(1024, layers=24, heads=16, length=1024, sequences=16, vocabulary=32768, trunks=(16, 6, 6)),
}


def size_name(size: Size) -> str:
    return next((name for name, known in SIZES.items() if known == size), str(size))


def joint(rounds: int, window: int, **rollout: Any) -> Tree:
    """Stage ``joint``: all modules learn, from ``rounds`` rounds, ``window`` of them in each backward pass."""
    return {
        "name": "joint",
        "train": list(ALL_MODULES),
        "losses": LOSSES | {"gate": 1},
        "picker_gradient": 0.1,
        "rollout": {"rounds": rounds, "window": window, "first_round": "gate"} | rollout,
    }


def small_run(stage: Tree, model: Tree, *, batch: Tree, **settings: Any) -> RunConfig:
    """A run of one stage, which may leave out its steps and its rate. ``settings``: of ``small_curriculum``."""
    return small_curriculum([stage], model, batch=batch, **settings)


def small_curriculum(
    stages: Sequence[Tree],
    model: Tree,
    *,
    batch: Tree,
    parallel: Tree | None = None,
    optimizer: Tree | None = None,
    output: Path = Path("unused"),
    device: str = "auto",
) -> RunConfig:
    """A run on data that nobody reads."""
    return RunConfig.model_validate(
        {
            "name": "benchmark",
            "output": output,
            "device": device,
            "data": {"path": "unused"},
            "model": model,
            "batch": batch,
            "parallel": parallel or {},
            "optimizer": optimizer or {},
            "checkpoint": {"every_steps": STEPS},
            "stages": [{"steps": STEPS, "lr": {"peak": 1e-4}} | stage for stage in stages],
        }
    )


def random_batch(size: Size, step: int) -> Batch:
    """Texts of full length between BOS and EOS; the same for equal ``step``."""
    draw = torch.Generator().manual_seed(step)
    tokens = torch.randint(len(SPECIAL_IDS), size.vocabulary, (size.sequences, size.length), generator=draw)
    tokens[:, 0], tokens[:, -1] = BOS_ID, EOS_ID
    key = torch.randint(0, 2**62, (size.sequences,), generator=draw)
    return Batch(tokens, torch.full((size.sequences,), size.length), key)
