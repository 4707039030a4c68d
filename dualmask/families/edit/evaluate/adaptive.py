"""`dualmask eval adaptive`: do more rounds help, and can a text's own rounds say when it has had enough of them?

Drafts begin as prefixes, random skeletons, what the picker leaves of a text (rewrite), corrupted and clean texts;
`auto` plays them. A text's quality after r rounds is the share of the target recovered in order. Every rule is replayed
on the same rollouts (``rollouts``):

fixed          r rounds for every text
unchanged      stop when a round changed nothing, or led to a draft seen before
confidence     the same, or when the tokens of the last fill are sure enough (mean probability ≥ threshold)
edit_distance  the same, or when a round changed less than a share of the text
entropy        baseline: only the filler's mean entropy at the slots that it filled (≤ threshold)
…_shuffled     control: a rule's numbers of rounds, dealt to other texts
"""

# N texts, R most rounds, C candidates of a threshold

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rapidfuzz.distance import LCSseq, Levenshtein

from dualmask.core.batch import Batch
from dualmask.core.lexicon import read_lexicon
from dualmask.core.tokenizer import MASK_ID, PAD_ID
from dualmask.evaluation import statistics
from dualmask.evaluation.statistics import Row
from dualmask.families.edit import starts
from dualmask.families.edit.evaluate import corrupted
from dualmask.families.edit.evaluate.correctors import cross_fitted
from dualmask.families.edit.evaluate.rollouts import Rollout, roll_out
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.request import Round
from dualmask.families.edit.model import DualMask
from dualmask.inference.loading import Loaded
from dualmask.nn.parallel.vocabulary import whole_vocabulary
from dualmask.ops import gaps

ROUNDS = 8
STARTS = ("prefix", "skeleton", "rewrite", "corrupted", "clean")
KEEP_RATE, SPAN_SHARE, MEAN_SPAN = 0.7, 0.5, 3.0  # of the skeletons
CORRUPTION_RATE = 0.1
QUALITY_TO_KEEP = 0.95  # share of the quality of R rounds that a threshold has to keep
FITTED = "fitted"  # threshold chosen on the other half of the texts
ROWS_A_FORWARD = 128
THRESHOLDS: dict[str, tuple[float, ...]] = {
    "unchanged": (0.0,),  # it has none
    "confidence": (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99),
    "edit_distance": (0.01, 0.02, 0.05, 0.1, 0.2, 0.4),
    "entropy": (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
}


@dataclass(frozen=True)
class Facts:
    """What is known of N texts after each of R rounds: [N, R], the first column is round 1.

    quality has a column more in front: the draft before any round.
    """

    quality: np.ndarray
    played: np.ndarray  # [N] rounds after which nothing changed, or a draft came back
    confidence: np.ndarray
    distance: np.ndarray
    entropy: np.ndarray
    start: np.ndarray  # [N] index into ops.starts.KINDS

    @property
    def rounds(self) -> int:
        return self.confidence.shape[1]


def evaluate(
    loaded: Loaded, right: Sequence[Batch], *, rounds: int = ROUNDS, mean_span: float = MEAN_SPAN
) -> list[Row]:
    """All rows. right: the targets (``corrupted.right_texts``). mean_span: tokens of a hole of the skeletons, where
    spans are missing."""
    facts = observe(loaded, right, rounds, mean_span)
    rows = [*_fixed_rows(facts), *_gain_rows(facts)]
    for method, thresholds in {"fixed": range(1, rounds + 1), **THRESHOLDS}.items():
        used = np.stack([rounds_used(facts, method, threshold) for threshold in thresholds])  # [C, N]
        for threshold, number in zip(thresholds, used, strict=True):
            rows += rule_rows(facts, number, method=method, threshold=threshold)
        fitted = _fitted(facts, used)
        rows += rule_rows(facts, fitted, method=method, threshold=FITTED)
        dealt = np.random.default_rng(0).permutation(fitted)
        rows += rule_rows(facts, dealt, method=f"{method}_shuffled", threshold=FITTED)
    return rows


def observe(loaded: Loaded, right: Sequence[Batch], rounds: int, mean_span: float = MEAN_SPAN) -> Facts:
    """Plays all texts through ``rounds`` rounds."""
    begun = [_start(batch, loaded, mean_span) for batch in right]
    engine = Engine(loaded.model, read_lexicon(loaded.tokenizer))
    drafts = [Batch(start.tokens, start.length, batch.key) for start, batch in zip(begun, right, strict=True)]
    rollouts = roll_out(engine, corrupted.rows(drafts), "auto", rounds)
    return Facts(
        quality=_quality(rollouts, corrupted.rows(right), rounds),
        played=np.array([rollout.rounds_run for rollout in rollouts]),
        confidence=_by_round(rollouts, rounds, [[_confidence(done) for done in x.result.rounds] for x in rollouts]),
        distance=_by_round(rollouts, rounds, [[_distance(done) for done in x.result.rounds] for x in rollouts]),
        entropy=_by_round(rollouts, rounds, _entropies(loaded.model, rollouts)),
        start=torch.cat([start.kind for start in begun]).cpu().numpy(),
    )


def rounds_used(facts: Facts, method: str, threshold: float) -> np.ndarray:
    """[N] rounds after which a rule of THRESHOLDS, or `fixed`, stops each text."""
    stops = np.zeros_like(facts.confidence, dtype=bool)
    if method == "fixed":
        stops[:, int(threshold) - 1 :] = True
    elif method == "confidence":
        stops = facts.confidence >= threshold
    elif method == "edit_distance":
        stops = facts.distance < threshold
    elif method == "entropy":
        stops = facts.entropy <= threshold
    used = np.where(stops.any(1), stops.argmax(1) + 1, facts.rounds)
    return used if method in ("fixed", "entropy") else np.minimum(used, facts.played)


def rule_rows(facts: Facts, used: np.ndarray, **dimensions: object) -> list[Row]:
    """Rows of one rule. used [N]: rounds played with each text.

    ``quality_kept`` and ``gain_kept`` are shares of what R rounds reach, and of what they add to the drafts (left out
    if that is nothing). ``gain_over_fixed`` is the quality above that of the same number of rounds for every text, or
    of the randomised baseline: the two whole numbers nearest, each for a drawn share of the texts.
    """
    texts, one = np.arange(len(used)), np.ones(len(used))
    quality, best = facts.quality[texts, used], facts.quality[:, -1]
    mean = used.mean()
    low = int(mean)
    high = min(low + 1, facts.rounds)
    fixed = (1 - mean + low) * facts.quality[:, low] + (mean - low) * facts.quality[:, high]
    gained, most_gained = quality - facts.quality[:, 0], best - facts.quality[:, 0]
    figures = {
        "quality": (quality, one),
        "rounds": (used, one),
        "quality_kept": (quality, best),
        "rounds_saved": (facts.rounds - used, facts.rounds * one),
        "gain_over_fixed": (quality - fixed, one),
    }
    if most_gained.sum() > 0:
        figures["gain_kept"] = (gained, most_gained)
    return [statistics.row(name, statistics.ratio, np.stack(pair, 1), **dimensions) for name, pair in figures.items()]


def _fixed_rows(facts: Facts) -> list[Row]:
    """Quality after each number of rounds, 0 included, over all texts and by start state."""
    rows = []
    for number in range(facts.rounds + 1):
        columns = np.stack([facts.quality[:, number], np.ones(len(facts.quality))], 1)
        rows.append(statistics.row("quality_by_rounds", statistics.ratio, columns, rounds=number, start="all"))
        for kind in np.unique(facts.start):
            part = columns[facts.start == kind]
            name = starts.KINDS[kind]
            rows.append(statistics.row("quality_by_rounds", statistics.ratio, part, rounds=number, start=name))
    return rows


def _gain_rows(facts: Facts) -> list[Row]:
    """What 2, 4, 8, … rounds add to one, by start state: both on the same resampled texts."""
    rows = []
    for number in (2**power for power in range(1, facts.rounds.bit_length())):
        gain = np.stack([facts.quality[:, number] - facts.quality[:, 1], np.ones(len(facts.quality))], 1)
        for kind in np.unique(facts.start):
            about = {"rounds": number, "start": starts.KINDS[kind], "over": 1}
            rows.append(statistics.row("quality_gain", statistics.ratio, gain[facts.start == kind], **about))
    return rows


def _fitted(facts: Facts, used: np.ndarray) -> np.ndarray:
    """[N] rounds under the threshold that, on the other half of the texts, saves most and keeps QUALITY_TO_KEEP,
    or under the one that keeps most, where none keeps so much. used [C, N]."""
    texts = np.arange(used.shape[1])

    def score(candidate: int, part: np.ndarray) -> float:
        number = used[candidate][part]
        kept = facts.quality[part, number].sum() / facts.quality[part, -1].sum()
        return float(1 - number.mean() / facts.rounds if kept >= QUALITY_TO_KEEP else kept - 2)

    return used[cross_fitted(len(used), len(texts), score), texts]


def _start(batch: Batch, loaded: Loaded, mean_span: float) -> starts.Start:
    corruption = corrupted.corruption(CORRUPTION_RATE, corrupted.TOKEN_KINDS)
    keep_rate = torch.full(batch.length.shape, KEEP_RATE, device=batch.tokens.device)
    begun = starts.start_states(
        batch, 0, dict.fromkeys(STARTS, 1.0), keep_rate, SPAN_SHARE, mean_span, corruption, None
    )
    picked = loaded.model.pick(batch, keep_rate, step=0, temperature=0.0)
    left = gaps.drop(batch.tokens, batch.present & (picked.keep > 0.5))
    rewrite = begun.kind == starts.REWRITE
    tokens = torch.where(rewrite[:, None], left.tokens, begun.tokens)
    return starts.Start(tokens, torch.where(rewrite, left.length, begun.length), begun.kind)


def _quality(rollouts: Sequence[Rollout], targets: Sequence[list[int]], rounds: int) -> np.ndarray:
    """[N, R + 1] the longest common subsequence with the target, over the longer one's length."""
    return np.array(
        [
            [LCSseq.normalized_similarity(rollout.draft(number), target) for number in range(rounds + 1)]
            for rollout, target in zip(rollouts, targets, strict=True)
        ]
    )


def _by_round(rollouts: Sequence[Rollout], rounds: int, values: Sequence[Sequence[float]]) -> np.ndarray:
    """[N, R] from a value for each round that was played."""
    turns = range(1, rounds + 1)
    return np.array([[value[x.turn(r) - 1] for r in turns] for x, value in zip(rollouts, values, strict=True)])


def _confidence(done: Round) -> float:
    return float(np.mean([sure for _, _, sure in done.filled])) if done.filled else 0.0


def _distance(done: Round) -> float:
    return Levenshtein.normalized_distance(done.draft, done.result)


@torch.inference_mode()
def _entropies(model: DualMask, rollouts: Sequence[Rollout]) -> list[list[float]]:
    """For each round of each text the filler's mean entropy, in nats, at the slots that it filled; 0 without slots."""
    played = [done for rollout in rollouts for done in rollout.result.rounds]
    order = sorted(range(len(played)), key=lambda index: len(played[index].result))
    entropies = [0.0] * len(played)
    for at in range(0, len(order), ROWS_A_FORWARD):
        part = order[at : at + ROWS_A_FORWARD]
        for index, value in zip(part, _mean_entropy(model, [played[index] for index in part]), strict=True):
            entropies[index] = value
    values = iter(entropies)
    return [[next(values) for _ in rollout.result.rounds] for rollout in rollouts]


def _mean_entropy(model: DualMask, rounds: Sequence[Round]) -> list[float]:
    """The masked texts as they were before they were filled, looked at once more."""
    device = next(model.parameters()).device
    width = max(len(done.result) for done in rounds)
    tokens = torch.tensor([done.result + [PAD_ID] * (width - len(done.result)) for done in rounds], device=device)
    length = torch.tensor([len(done.result) for done in rounds], device=device)
    slot = torch.tensor(
        [row * width + place for row, done in enumerate(rounds) for place, _, _ in done.filled],
        dtype=torch.long,
        device=device,
    )
    masked = tokens.flatten().index_fill(0, slot, MASK_ID).view_as(tokens)
    logits = whole_vocabulary(model.fill(masked, length, slot), model.vocab_size).float()
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    total = torch.zeros(len(rounds), device=device).index_add(0, slot // width, entropy)
    number = torch.bincount(slot // width, minlength=len(rounds)).clamp_min(1)
    return (total / number).tolist()
