"""What remembering the prompt saves SpanFusionLM: ``python -m benchmarks.span_cache --json out.json``.

The same tokens are written behind a prompt of 448, in spans of K = 64, with all g_max steps: once with keys and values
of what was read kept, once reading the whole text in every step, as the seed does. Weights are random: time does not
depend on them. The prompt has to be read once either way, so with one span the decoder reads g_max·(448 + K) tokens
instead of 448 + g_max·K, 2.9 times as many for g_max = 4; further spans read it no more. Both are timed interleaved.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.timing import interleave, median_row, print_rows, ratios
from dualmask.config.load import load_run
from dualmask.core.sampling import GREEDY
from dualmask.core.tokenizer import SPECIAL_IDS
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row
from dualmask.families.span import generate as span
from dualmask.families.span.config import SpanFusionConfig
from dualmask.families.span.model import SpanFusion
from dualmask.nn.parallel import mesh

PROMPT, WIDTH, SPANS = 448, 64, (1, 2, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--config", type=Path, default=Path("configs/spanfusion_small.yaml"), help="whose model")
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    model = load_run(arguments.config).model
    assert isinstance(model, SpanFusionConfig), f"{arguments.config}: no SpanFusionLM"
    rows = measure(make_model(model, arguments.vocabulary), arguments.repeats)
    about = {"config": str(arguments.config), "vocabulary": arguments.vocabulary}
    print_rows(write(arguments.json, "span_cache", rows, **about)["rows"])


def make_model(config: SpanFusionConfig, vocabulary: int, length: int = 1 + PROMPT + WIDTH * max(SPANS)) -> SpanFusion:
    """Random weights; room for ``length`` tokens."""
    mesh.single_process()
    torch.manual_seed(0)
    return SpanFusion(config.model_copy(update={"max_length": length}), vocabulary).eval().requires_grad_(False)


def measure(model: SpanFusion, repeats: int, spans: Sequence[int] = SPANS) -> list[Row]:
    """Seconds with and without the cache, and their ratio, for each number of spans."""
    rows: list[Row] = []
    for number in spans:
        arms = {cached: partial(seconds, model, number * WIDTH, cached=cached) for cached in (True, False)}
        times = interleave(arms, repeats, warm_up=1)
        rows += [
            median_row("seconds_cached", times[True], spans=number),
            median_row("seconds_uncached", times[False], spans=number),
            median_row("times_as_fast", ratios(times[False], times[True]), spans=number),
        ]
    return rows


def seconds(model: SpanFusion, tokens: int, repeat: int, *, cached: bool) -> float:
    """For ``tokens`` behind a random prompt, another one in each repeat."""
    draw = torch.Generator().manual_seed(repeat)
    prompt = torch.randint(len(SPECIAL_IDS), model.vocab_size, (PROMPT,), generator=draw).tolist()
    start = time.perf_counter()
    span.write(
        model, [prompt], tokens=tokens, span=WIDTH, gate="accurate", least=tokens, sampling=[GREEDY], cached=cached
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
