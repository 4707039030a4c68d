"""A model that reads at most ``max_length`` tokens, applied to drafts of any length.

Long drafts are read through overlapping windows; every token and every gap gets its result from the one window in whose
core it stands, so nothing is lost or done twice at a border. Knows ids; knows nothing of rounds and of text.
"""

# N drafts, L positions of the longest, W windows of one forward, P positions of the widest, G gaps, M slots, V tokens

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from dualmask.core.batch import Batch, deletable
from dualmask.core.lexicon import Lexicon
from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK_ID, PAD_ID
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.picker import DeleteLogits
from dualmask.families.edit.told import ToldGaps
from dualmask.nn.parallel.vocabulary import whole_vocabulary
from dualmask.ops.deletion import OFFSETS
from dualmask.ops.gaps import Skeleton

TOKENS_A_FORWARD = 16_384
LOGITS_A_FORWARD = 2**25  # of the filler, should every token be filled: 128 MiB in float32
SMALLEST_WINDOW = 16
STRIDE = 8  # words that are doubted together stand at least so far apart

Progress = Callable[[int, int], None]  # (windows added to the work, windows done)
Choose = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (logits [M, V], slot [M]) → ids and confidences [M]


@dataclass(frozen=True)
class Window:
    """Positions in one draft (BOS: 0). Read: [left, right), between a BOS and an EOS of its own; core: [start, end)."""

    row: int
    left: int
    right: int
    start: int
    end: int


@dataclass(frozen=True)
class WindowedScores:
    """What picker and Gate say of whole drafts (``model.DraftScores``); 0 on EOS and padding."""

    logits: DeleteLogits
    gate_logit: Tensor  # [N, L] the Gate's on the window in whose core the token stands


@dataclass(frozen=True)
class SecondThoughts:
    """What the filler would write in place of known words; 0 where it was not asked."""

    ids: Tensor  # [N, L] the likeliest of the others of a word
    prob: Tensor  # [N, L] its probability, against the word itself
    swap_prob: Tensor  # [N, L] probability that the two that begin here stand in the wrong order


@dataclass(frozen=True)
class View:
    """Windows of one forward, and where their tokens come from."""

    row: Tensor  # [W, 1] draft
    position: Tensor  # [W, P] position in the draft
    core: Tensor  # [W, P] bool: this window's result counts
    tokens: Tensor  # [W, P]
    length: Tensor  # [W]


def cut(row: int, length: int, capacity: int, border: Sequence[int]) -> list[Window]:
    """Windows over a draft of ``length`` tokens (BOS and EOS included), at most ``capacity`` tokens between those each.

    Cores are of about equal size and begin at the best ``border`` near there (``border[i]``: how well a core may begin
    at position i). Windows look over the border on both sides by an eighth of the capacity.
    """
    last = length - 1  # the position of EOS
    if last - 1 <= capacity:
        return [Window(row, 1, last, 0, last)]
    context = capacity // 8
    most = capacity - 2 * context
    starts = [0]
    while (rest := last - max(starts[-1], 1)) > most:
        first = max(starts[-1], 1)
        even = first + -(-rest // -(-rest // most))
        nearby = range(max(even - context, first + 1), min(even + context, first + most) + 1)
        starts.append(max(nearby, key=lambda position: (border[position], -abs(position - even))))
    ends = [*starts[1:], last]
    return [
        Window(row, max(start - context, 1), min(end + context, last), start, end)
        for start, end in zip(starts, ends, strict=True)
    ]


class WindowedModel:
    """Picker, Gate, inserter and filler as functions of whole drafts. Results do not depend on the other drafts."""

    def __init__(self, model: DualMask, lexicon: Lexicon, progress: Progress | None = None) -> None:
        self.model = model
        self.config = model.config
        self.lexicon = lexicon
        self.progress = progress
        self.max_count = model.config.max_gap_count
        self.capacity = model.config.max_length - 2
        self.most_logits = min(TOKENS_A_FORWARD, LOGITS_A_FORWARD // len(lexicon.writable))

    def read(self, tokens: Tensor, length: Tensor, keep_rate: Tensor, written_prob: Tensor) -> WindowedScores:
        """What picker and Gate say of drafts [N, L] at the requested keep rates [N]; written_prob [N, L]: see
        ``Drafts``."""
        unary, wrong, gate_logit = (torch.zeros(tokens.shape, device=tokens.device) for _ in range(3))
        pairwise = torch.zeros(*tokens.shape, len(OFFSETS), device=tokens.device)
        for view in self._views(tokens, length, [self.capacity] * len(tokens), self.most_logits):
            batch = Batch(view.tokens, view.length, key=torch.zeros_like(view.length))  # nothing is drawn here
            known = torch.where(batch.deletable, written_prob[view.row, view.position], 1.0)  # BOS was not written
            scores = self.model.read(batch, keep_rate[view.row[:, 0]], known)
            self._collect(unary, view, scores.logits.unary)
            self._collect(pairwise, view, scores.logits.pairwise)
            self._collect(wrong, view, scores.logits.wrong)
            self._collect(gate_logit, view, scores.gate_logit[:, None].expand(view.tokens.shape))
        return WindowedScores(DeleteLogits(unary=unary, pairwise=pairwise, wrong=wrong), gate_logit)

    def gap_logits(self, skeleton: Skeleton, expected: Tensor, told: ToldGaps) -> Tensor:
        """[N, G, K+1] from skeletons [N, L]; ``expected`` [N]: about how many masks will be opened; ``told``: what was
        deleted from each gap where that is known, its pieces as ids.

        Windows are the shorter the more is missing: the inserter learnt on skeletons of texts of ``max_length``.
        """
        tokens, length = skeleton.tokens, skeleton.length
        kept_share = (length / (length + expected.clamp_min(0))).tolist()
        capacity = [max(int(self.capacity * share), min(SMALLEST_WINDOW, self.capacity)) for share in kept_share]
        out = torch.zeros(*tokens.shape, self.max_count + 1, device=tokens.device)
        for view in self._views(tokens, length, capacity):
            gap = view.position[:, :-1].clamp_max(told.number.shape[1] - 1)
            here = ToldGaps(told.number[view.row, gap], self.model.recall(told.pieces[view.row, gap]))
            logits = self.model.count(Skeleton(view.tokens, view.length), told=here).gap_logits.float()
            self._collect(out, view, pad(logits, (0, 0, 0, 1)))
        return out[:, :-1]

    def fill(
        self,
        tokens: Tensor,
        length: Tensor,
        slots: Tensor,
        replaced: Tensor,
        choose: Choose,
    ) -> tuple[Tensor, Tensor]:
        """(ids, confidence) [N, L] at the ``slots`` [N, L] of drafts that hold [MASK]s; elsewhere the draft, and 1.

        replaced [N, L, 1 + P]: ids of deleted tokens where that is known (see ``DualMask.fill``).

        ``choose(logits [M, V], slot [M])`` decides; slot: index into the flattened [N·L]. It is called once a forward,
        so that the logits of a long draft never exist all at once.
        """
        confidence = torch.ones(tokens.shape, device=tokens.device)
        filled = tokens.clone()
        for view in self._views(tokens, length, [self.capacity] * len(tokens), self.most_logits, slots):
            to_fill = view.core & slots[view.row, view.position]
            source = (view.row * tokens.shape[1] + view.position)[to_fill]
            known = torch.where((view.tokens == MASK_ID)[..., None], replaced[view.row, view.position], -1)
            told = known if bool((known >= 0).any()) else None  # the maps of hints are a tenth of a reading
            logits = self.model.fill(view.tokens, view.length, to_fill.flatten().nonzero().squeeze(1), told)
            chosen, prob = choose(whole_vocabulary(logits, len(self.lexicon.writable)), source)
            filled.view(-1)[source] = chosen
            confidence.view(-1)[source] = prob
        return filled, confidence

    def log_probs(self, tokens: Tensor, length: Tensor, asked: Tensor) -> Tensor:
        """[N, L] log probability of each token that is ``asked`` [N, L] about when it is masked, with every STRIDE-th
        token from it, and the filler not told what it is: the terms of a pseudo-log-likelihood (Salazar et al. 2020).
        0 elsewhere."""
        whole, hidden = _in_turns(tokens, deletable(length, tokens.shape[1]))
        slots = hidden & asked.repeat(STRIDE, 1)

        def choose(logits: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
            own = whole.flatten()[slot]
            return own, logits.float().log_softmax(-1).gather(1, own[:, None]).squeeze(1)

        untold = self._untold(whole)
        _, nats = self.fill(whole.masked_fill(hidden, MASK_ID), length.repeat(STRIDE), slots, untold, choose)
        return _of_turns(nats, slots)

    def reconsider(
        self, tokens: Tensor, length: Tensor, words: Tensor, pairs: Tensor, others: Tensor
    ) -> SecondThoughts:
        """What the filler would write in place of known words, of texts [N, L].

        words [N, L] bool: each of them is masked, and the filler told what it is; others [V, C]: what may be meant, -1:
        nothing. pairs [N, L] bool: where two neighbours begin that are masked together, and the filler not told what
        they are. Words and pairs are read in the same forwards, which costs a short text much less than two of them.
        """
        whole, word = _in_turns(tokens, words)
        _, first = _in_turns(tokens, pairs)
        second = pad(first, (1, 0))[:, :-1]
        neighbour = torch.where(first, whole.roll(-1, 1), whole.roll(1, 1)).flatten()
        twice, hidden = whole.repeat(2, 1), torch.cat([word, first | second])
        told = torch.cat([self._untold(whole), self._untold(whole)])
        told[: len(whole), :, :2] = whole[..., None]  # the first token of its gap, and the first piece

        def choose(logits: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
            own, of_pair = twice.flatten()[slot], slot >= whole.numel()
            swapped = torch.full_like(others[own], -1)
            swapped[:, 0] = neighbour[slot % whole.numel()]
            return _best(logits.float(), own, torch.where(of_pair[:, None], swapped, others[own]))

        shown = twice.masked_fill(hidden, MASK_ID)
        ids, odds = self.fill(shown, length.repeat(2 * STRIDE), hidden, told, choose)
        (ids, _), (odds, swap_odds) = ids.chunk(2), odds.chunk(2)
        swap_odds = swap_odds + swap_odds.roll(-1, 1)  # each of the two in the other's place
        return SecondThoughts(
            _of_turns(ids, word), _of_turns(torch.sigmoid(odds), word), _of_turns(torch.sigmoid(swap_odds), first)
        )

    def _untold(self, tokens: Tensor) -> Tensor:
        """[N, L, 1 + P]: the filler is not told what was deleted from tokens [N, L]."""
        return torch.full((*tokens.shape, 1 + self.config.told_pieces), -1, device=tokens.device)

    def _views(
        self,
        tokens: Tensor,
        length: Tensor,
        capacity: list[int],
        most: int = TOKENS_A_FORWARD,
        wanted: Tensor | None = None,
    ) -> Iterator[View]:
        """All windows of all drafts, windows of like width together, at most ``most`` tokens a forward.

        wanted [N, L] bool: windows in whose core there is none are left out.
        """
        border = self._border(tokens).tolist() if int(length.max()) - 2 > min(capacity) else [[]] * len(tokens)
        windows = [
            window for row, size in enumerate(length.tolist()) for window in cut(row, size, capacity[row], border[row])
        ]
        if wanted is not None:
            before = pad(wanted.long().cumsum(1), (1, 0)).tolist()
            windows = [
                window for window in windows if before[window.row][window.end] > before[window.row][window.start]
            ]
        windows.sort(key=lambda window: window.right - window.left)
        self._report(len(windows), 0)
        while windows:
            number = max(1, most // self.model.config.max_length)
            part, windows = windows[:number], windows[number:]
            yield _view(part, tokens)
            self._report(0, len(part))

    def _border(self, tokens: Tensor) -> Tensor:
        """[N, L]: 2 where a sentence begins, 1 where a word begins, else 0."""
        word = self.lexicon.begins_space[tokens]
        sentence = torch.zeros_like(word)
        sentence[:, 1:] = self.lexicon.ends_sentence[tokens[:, :-1]]
        return word.long() + (word & sentence).long()

    def _report(self, added: int, done: int) -> None:
        if self.progress is not None:
            self.progress(added, done)

    @staticmethod
    def _collect(out: Tensor, view: View, result: Tensor) -> None:
        """Puts result [W, P, …] into out [N, L, …], where it is from the window's core."""
        rows = view.row.expand_as(view.position)
        out[rows[view.core], view.position[view.core]] = result[view.core]


def _in_turns(tokens: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """tokens [N, L] STRIDE times, and [STRIDE·N, L] bool which of those ``asked`` [N, L] about are masked in each turn:
    every STRIDE-th, so that all of a text costs STRIDE readings."""
    turn = torch.arange(STRIDE, device=tokens.device)[:, None, None]
    position = torch.arange(tokens.shape[1], device=tokens.device)
    return tokens.repeat(STRIDE, 1), ((position % STRIDE == turn) & asked).flatten(0, 1)


def _of_turns(values: Tensor, hidden: Tensor) -> Tensor:
    """[N, L] each of the values [STRIDE·N, L] that were ``hidden``, in its turn; 0 elsewhere."""
    return torch.where(hidden, values, 0).unflatten(0, (STRIDE, -1)).sum(0)


def _best(logits: Tensor, own: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """(id, log odds) [M] of the likeliest of the ``others`` [M, C] (-1: none) against ``own`` [M]; logits [M, V]."""
    nats, place = logits.gather(1, others.clamp_min(0)).masked_fill(others < 0, -torch.inf).max(1, keepdim=True)
    odds = nats - logits.gather(1, own[:, None])
    return others.gather(1, place).squeeze(1), odds.squeeze(1)


def _view(windows: list[Window], tokens: Tensor) -> View:
    table = torch.tensor([(w.row, w.left, w.right, w.start, w.end) for w in windows], device=tokens.device)
    row, left, right, start, end = (column[:, None] for column in table.unbind(1))
    length = right - left + 2
    step = torch.arange(int(length.max()), device=tokens.device)
    position = (left - 1 + step).clamp_max(tokens.shape[1] - 1)
    core = (left - 1 + step >= start) & (left - 1 + step < end) & (step < length - 1)
    inside = tokens[row, position]
    inside = torch.where(step == 0, BOS_ID, torch.where(step == length - 1, EOS_ID, inside))
    return View(row, position, core, torch.where(step < length, inside, PAD_ID), length.squeeze(1))
