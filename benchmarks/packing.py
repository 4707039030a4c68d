"""What is gained where nothing is computed on padding: ``python -m benchmarks.packing --json out.json``.

A language model trains on documents of log-normal lengths, as those of a corpus, in three arms, step by step in turns:
``padded`` has a row for each document and a mask, as models are usually trained; ``unpadded`` has the same rows, of
which trunks read the present tokens; ``packed`` has rows of several documents (``packing: documents`` of a data build),
read in the same way. Counted are tokens of documents. With ``--data`` (the folder that ``make train`` builds) the
places that the blocks of the quick start's stages compute on are counted, too, in real steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmarks.engines import build_model, build_task, passes
from benchmarks.runs import Size, small_run
from benchmarks.timing import Seconds, Stopwatch, interleave, load, median_row, print_rows, ratios
from data_pipeline.crop import Borders, Crop
from data_pipeline.manifest import Manifest
from data_pipeline.reader import ShardReader, Share
from data_pipeline.rows import best_fit
from dualmask.config.load import load_run
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID, SPECIAL_IDS, Tokenizer
from dualmask.curriculum import first_step, plan_at
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row
from dualmask.families.task import Task
from dualmask.nn.block import Block
from dualmask.nn.layout import Layout, PaddedRows, causal_mask, key_mask
from dualmask.nn.parallel import mesh
from dualmask.nn.trunk import Trunk

SIZE = Size(hidden=192, layers=4, heads=6, length=128, sequences=16, vocabulary=2048)
SPREAD = 0.6  # standard deviation of the logarithms of lengths
TYPICAL = 0.5  # median length over the longest
ARMS = ("padded", "unpadded", "packed")
QUICKSTART = Path("configs/quickstart.yaml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--data", type=Path, help="the quick start's data: counts places there, too")
    parser.add_argument("--families", nargs="+", default=["autoregressive", "diffusion"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    mesh.single_process()
    rows = [row for family in arguments.families for row in speed(family, SIZE, arguments.repeats)]
    if arguments.data is not None:
        rows += quickstart_places(arguments.data)
    about = {"size": str(SIZE), "threads": arguments.threads, "load": load()}
    print_rows(write(arguments.json, "packing", rows, **about)["rows"])


def speed(family: str, size: Size, repeats: int) -> list[Row]:
    """Tokens of documents a second in each arm, over those of ``padded``, and the share of padding in its rows."""
    run = make_run(family, size)
    steps = {arm: Steps(run, size.vocabulary, arm) for arm in ARMS}
    seen = interleave({arm: partial(step.take, size) for arm, step in steps.items()}, repeats, warm_up=2)
    rows: list[Row] = []
    for clock in ("wall", "cpu"):
        rate = {arm: [step.tokens / getattr(step.seconds, clock) for step in seen[arm]] for arm in ARMS}
        rows += [median_row("tokens_per_second", rate[arm], family=family, arm=arm, clock=clock) for arm in ARMS]
        rows += [
            median_row("over_padded", ratios(rate[arm], rate["padded"]), family=family, arm=arm, clock=clock)
            for arm in ARMS[1:]
        ]
    padding = [1 - step.tokens / step.places for step in seen["padded"]]
    return [*rows, median_row("padding_share_of_rows", padding, family=family, arm="padded")]


def make_run(family: str, size: Size) -> RunConfig:
    model = {"family": family, "hidden": size.hidden, "heads": size.heads, "max_length": size.length}
    stage = {"name": "lm", "train": ["lm"]}
    return small_run(stage, model | {"layers": size.layers}, batch={"sequences": size.sequences}, device="cpu")


@dataclass(frozen=True)
class Step:
    seconds: Seconds
    tokens: int  # of documents
    places: int  # of rows


class Steps:
    """A model that learns from documents in one arm's layout."""

    def __init__(self, run: RunConfig, vocabulary: int, arm: str) -> None:
        self.run, self.arm = run, arm
        self.task: Task = build_task(run, build_model(run, vocabulary))
        self.optimizer = torch.optim.AdamW(self.task.parameters(), lr=1e-4, fused=True)

    def take(self, size: Size, number: int) -> Step:
        """One step on other documents for each ``number``."""
        batch = documents(size, number, packed=self.arm == "packed")
        with masked_rows() if self.arm == "padded" else nullcontext():
            watch = Stopwatch()
            passes(self.task, batch, plan_at(self.run.stages, number))
            nn.utils.clip_grad_norm_(self.task.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            seconds = watch.read()
        return Step(seconds, int(batch.length.sum()), batch.tokens.numel())


def documents(size: Size, number: int, *, packed: bool) -> Batch:
    """Random documents that fill ``size.sequences`` rows: one in each, or as many as fit."""
    draw = np.random.default_rng(number)
    lengths = np.exp(draw.normal(np.log(TYPICAL * size.length), SPREAD, 40 * size.sequences))
    lengths = lengths.clip(8, size.length).astype(np.int64)
    texts = np.arange(size.sequences)
    counts = None
    if packed:
        rows = best_fit((lengths[: 4 * size.sequences] - 2).tolist(), size.length - 2, 2)
        chosen = [rows[index] for index in draw.permutation(len(rows))[: size.sequences]]
        texts, counts = np.concatenate(chosen), np.array([len(row) for row in chosen])
    length = torch.from_numpy(lengths[texts])
    tokens = torch.from_numpy(draw.integers(len(SPECIAL_IDS), size.vocabulary, (len(texts), size.length)))
    position = torch.arange(size.length)
    tokens[:, 0] = BOS_ID
    tokens = torch.where(position == length[:, None] - 1, EOS_ID, tokens)
    tokens = torch.where(position < length[:, None], tokens, PAD_ID)
    return replace(Batch(tokens, length, torch.from_numpy(draw.integers(0, 2**62, len(texts)))), texts_in_row=counts)


@contextmanager
def masked_rows() -> Iterator[None]:
    """Trunks compute on padding, and every attention has a mask."""

    def lay_out(present: Tensor, *, causal: bool, **ignored: Any) -> Layout:
        return PaddedRows(present, causal_mask(present, present.shape[1]) if causal else key_mask(present))

    with patch("dualmask.nn.trunk.lay_out", lay_out):
        yield


@dataclass
class Places:
    """What blocks have computed on."""

    present: int = 0  # tokens that there are
    given: int = 0  # places of the batch's rows
    computed: int = 0  # places that blocks were given

    def count(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A hook before every forward pass."""
        if isinstance(module, Trunk):
            present = inputs[2]
            self.present += int(present.sum()) * len(module.blocks)
            self.given += present.numel() * len(module.blocks)
        elif isinstance(module, Block):
            self.computed += inputs[0].numel() // inputs[0].shape[-1]


@contextmanager
def counted() -> Iterator[Places]:
    places = Places()
    handle = register_module_forward_pre_hook(places.count)
    try:
        yield places
    finally:
        handle.remove()


def quickstart_places(data: Path, steps: int = 4) -> list[Row]:
    """Share of padding in the rows that trunks are given in each stage of the quick start, and in what they compute."""
    run = load_run(QUICKSTART, [f"data.path={data}"])
    tokenizer = Tokenizer(data / "tokenizer.model")
    batches = read(run, tokenizer, steps)
    runtime = run.family.load_runtime()
    rows: list[Row] = []
    for index, stage in enumerate(run.stages):
        torch.manual_seed(run.seed)
        task = runtime.task(runtime.build(run.model, Manifest.load(data).vocab_size), stage, run, tokenizer)
        last = first_step(run.stages, index) + stage.steps - 1
        rows += shares(stage.name, [partial(passes, task, batch, plan_at(run.stages, last)) for batch in batches])
    return rows


def read(run: RunConfig, tokenizer: Tokenizer, number: int) -> list[Batch]:
    """The first batches of a run."""
    borders = Borders.of(tokenizer)
    share = Share(run.batch.sequences, seed=run.data.shuffle_seed)
    data = ShardReader(run.data.folder, share, Crop(run.data.crop_share, borders))
    batches = [next(data) for _ in range(number)]
    data.close()
    return batches


def shares(stage: str, steps: Sequence[Callable[[], None]]) -> list[Row]:
    counts = []
    for step in steps:
        with counted() as places:
            step()
        counts.append(places)
    return [
        median_row("padding_share_of_rows", [1 - one.present / one.given for one in counts], stage=stage),
        median_row("padding_share_computed", [1 - one.present / one.computed for one in counts], stage=stage),
    ]


if __name__ == "__main__":
    main()
