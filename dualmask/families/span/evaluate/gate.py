"""What the gate of SpanFusionLM is worth: the likelihood that its steps keep, and whom it gives more of them.

The likelihood of a span is that of the true tokens, written at the places that the model picks (see ``span``). With a
stop behind step t, every place that is still open counts with that step's loss.
"""

# n spans, N most steps

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from dualmask.evaluation import statistics
from dualmask.evaluation.statistics import Row

BINS = 8
SHUFFLES = 1000
THIRDS = ("easy", "middle", "hard")

MakeRow = Callable[..., Row]  # Task.row


@dataclass(frozen=True)
class Gold:
    """What the true spans cost, in nats a span."""

    width: int  # K
    autoregressive: np.ndarray  # [n] by the decoder, token by token
    schedule: np.ndarray  # [n, N] if refinement stops behind each step
    proposed: np.ndarray  # [n, N] the same by the decoder's own [PRED] logits
    entropy: np.ndarray  # [n] what the gate reads at the first step, nats
    steps: np.ndarray  # [n] that the learned gate takes while the true tokens are written

    @property
    def learned(self) -> np.ndarray:
        """[n] nats under the learned gate."""
        return self.schedule[np.arange(len(self.steps)), self.steps.astype(int) - 1]


def likelihood_rows(gold: Gold, row: MakeRow) -> list[Row]:
    """``gold_nll``: nats a true token; ``pred_nll``: by the decoder's own logits, before the encoder refines them.

    Of the learned gate: ``quality_kept``, the geometric mean probability of a true token over that of g_max steps, and
    over that of the randomised baseline of as many steps (``against``); ``gain_kept``, the share of what g_max steps
    gain over one (left out if that is nothing); ``gain_over_fixed`` in nats per token.
    """
    tokens = np.full(len(gold.steps), gold.width)
    first, last = gold.schedule[:, 0], gold.schedule[:, -1]
    nats = {"learned": gold.learned, "fast": first, "accurate": last}
    nats |= {f"fixed:{number}": column for number, column in enumerate(gold.schedule.T, 1)}
    nats["autoregressive"] = gold.autoregressive
    rows = [row("gold_nll", statistics.ratio, [column, tokens], method) for method, column in nats.items()]
    rows += [
        row("pred_nll", statistics.ratio, [column, tokens], f"fixed:{number}")
        for number, column in enumerate(gold.proposed.T, 1)
    ]
    one, most = np.ones(len(tokens)), np.full(len(tokens), gold.schedule.shape[1])
    fixed = gold.schedule @ randomised_baseline(gold.schedule.sum(0), gold.steps.mean())
    rows += [
        row("gold_steps", statistics.ratio, [gold.steps, one], "learned"),
        row("steps_saved", statistics.ratio, [most - gold.steps, most], "learned"),
        row("quality_kept", statistics.exp_ratio, [last - gold.learned, tokens], "learned", against="accurate"),
        row("quality_kept", statistics.exp_ratio, [fixed - gold.learned, tokens], "learned", against="fixed"),
        row("gain_over_fixed", statistics.ratio, [fixed - gold.learned, tokens], "learned"),
    ]
    if first.sum() > last.sum():
        rows.append(row("gain_kept", statistics.ratio, [first - gold.learned, first - last], "learned"))
    return rows


def randomised_baseline(cost: np.ndarray, mean: float) -> np.ndarray:
    """[N] shares of the spans that get 1 … N steps, drawn without looking at them: the cheapest distribution with
    ``mean`` steps, of which at most two shares are not 0. cost [N] of giving each number to every span."""

    def shares(low: int, high: int) -> np.ndarray:
        upper = (mean - low) / (high - low) if high > low else 0.0
        share = np.zeros(len(cost))
        share[low - 1] = 1 - upper
        share[high - 1] += upper
        return share

    pairs = combinations_with_replacement(range(1, len(cost) + 1), 2)
    return min((shares(*pair) for pair in pairs if pair[0] <= mean <= pair[1]), key=lambda share: float(share @ cost))


def difficulty_rows(steps: np.ndarray, difficulty: np.ndarray, row: MakeRow) -> list[Row]:
    """Mean steps of the easy, middle and hard third of the spans, and ``steps_gap``, hard − easy.

    Method shuffled: the same numbers of steps dealt to other spans, SHUFFLES times; its interval is where a gate that
    knows nothing ends up. steps and difficulty [n].
    """
    third = difficulty.argsort(kind="stable").argsort() * 3 // len(difficulty)
    easy, hard = third == 0, third == 2
    rows = [
        row("steps", statistics.ratio, [steps * (third == number), third == number], "learned", third=name)
        for number, name in enumerate(THIRDS)
    ]
    rows.append(row("steps_gap", _difference, [steps * hard, hard, steps * easy, easy], "learned"))
    dealt = np.random.default_rng(0).permuted(np.tile(steps, (SHUFFLES, 1)), axis=1)
    gaps = dealt[:, hard].mean(1) - dealt[:, easy].mean(1)
    low, high = np.quantile(gaps, [0.025, 0.975])
    shuffled = {"value": float(gaps.mean()), "lo": float(low), "hi": float(high), "n": len(steps)}
    return [*rows, {"metric": "steps_gap", **shuffled, "method": "shuffled"}]


def calibration_rows(gold: Gold, steps: np.ndarray) -> list[Row]:
    """By bins of equally many spans along the first step's mean entropy: the steps taken [n], and the nats a true token
    that g_max steps would gain over one."""
    rank = gold.entropy.argsort(kind="stable").argsort()
    gain = (gold.schedule[:, 0] - gold.schedule[:, -1]) / gold.width
    rows = []
    for number in range(BINS):
        part = rank * BINS // len(rank) == number
        where = {"method": "learned", "bin": number, "entropy": float(gold.entropy[part].mean())}
        for name, figure in (("calibration_steps", steps), ("calibration_gain", gain)):
            columns = np.stack([figure[part], np.ones(part.sum())], 1)
            rows.append(statistics.row(name, statistics.ratio, columns, **where))
    return rows


def _difference(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]
