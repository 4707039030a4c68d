"""What natural errors cost: ``python -m benchmarks.natural_errors --data data/english --json out.json``.

CPU microseconds a row of the corpus, for the errors of words (``core.natural``), and for what is made of every row
anyhow: the errors of tokens, and the alignment with the target. Interleaved; each repeat has rows of its own. With
``--step`` the seconds of a training step, also the share of it that the errors of words take at most.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.timing import interleave, median_row, print_rows, ratios
from data_pipeline.reader import spread_batch
from dualmask.config.corruption import KINDS, CorruptionConfig
from dualmask.core.batch import Batch
from dualmask.core.errors import ErrorTables
from dualmask.core.tokenizer import Tokenizer
from dualmask.evaluation.report import write
from dualmask.ops.alignment import align
from dualmask.ops.mistakes import make_mistakes

ROWS = 256  # of a repeat
WARM_UP = 4  # repeats in which the words of the corpus become known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of `dualmask data build`")
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--step", type=float, help="CPU seconds of a training step")
    parser.add_argument("--sequences", type=int, default=32, help="of a training step")
    arguments = parser.parse_args()
    repeats = arguments.repeats
    errors = ErrorTables.of(Tokenizer(arguments.data / "tokenizer.model"), ("typo", "confuse", "natural"))
    rows = spread_batch(arguments.data, "train", ROWS * (repeats + WARM_UP))
    words, tokens = corruption(1.0), corruption(0.0)
    arms: dict[str, Callable[[Batch], object]] = {
        "words": partial(wrong, config=words, errors=errors),
        "tokens": partial(wrong, config=tokens, errors=errors),
        "alignment": aligned(partial(wrong, config=words, errors=errors)),
    }
    timed = {name: partial(microseconds, arm, rows) for name, arm in arms.items()}
    found = interleave(timed, repeats, warm_up=WARM_UP)
    found["alignment"] = [both - alone for both, alone in zip(found["alignment"], found["words"], strict=True)]
    results = [median_row("microseconds_per_row", values, made=name) for name, values in found.items()]
    results.append(median_row("ratio_to_tokens", ratios(found["words"], found["tokens"])))
    if arguments.step:
        shares = [value * arguments.sequences / 1e6 / arguments.step for value in found["words"]]
        results.append(median_row("share_of_step", shares, sequences=arguments.sequences))
    print_rows(write(arguments.json, "natural_errors", results)["rows"])


def corruption(share: float) -> CorruptionConfig:
    """Errors of words as they are by default, in a share of the rows; the others have each kind of errors of tokens."""
    weights = dict.fromkeys(KINDS, 1.0 if share < 1 else 0.0)
    return CorruptionConfig(shuffle_share=0.0, natural={"share": share}, **weights)


def wrong(batch: Batch, config: CorruptionConfig, errors: ErrorTables) -> Batch:
    every = torch.ones_like(batch.length, dtype=torch.bool)
    return Batch(*make_mistakes(batch, every, 0, config, errors), batch.key)


def aligned(make: Callable[[Batch], Batch]) -> Callable[[Batch], object]:
    def both(batch: Batch) -> object:
        draft = make(batch)
        return align(draft.tokens, draft.length, batch.tokens, batch.length)

    return both


def microseconds(arm: Callable[[Batch], object], rows: Batch, repeat: int) -> float:
    """CPU time a row, in the rows of this repeat."""
    batch = rows.rows(slice(repeat * ROWS, (repeat + 1) * ROWS))
    begun = time.process_time()
    arm(batch)
    return (time.process_time() - begun) / len(batch.length) * 1e6


if __name__ == "__main__":
    main()
