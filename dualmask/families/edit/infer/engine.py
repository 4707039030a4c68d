"""The engine: requests in, results with their traces out. Knows ids; knows nothing of text.

The round stands in ``round.py``, how inference decides in it in ``rounds.py``, what ends the rounds in ``stopping.py``.
Results do not depend on what else is in the batch, nor on padding: every draw is a function of the request's seed, the
round and the position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dualmask.core.lexicon import Lexicon
from dualmask.families.edit.infer.budget import Budget, natural_room
from dualmask.families.edit.infer.drafts import Drafts, start
from dualmask.families.edit.infer.known_words import KnownWords
from dualmask.families.edit.infer.operating_point import OperatingPoint
from dualmask.families.edit.infer.request import Request, Result, Round
from dualmask.families.edit.infer.rounds import InferredRound, deletable, infer_round
from dualmask.families.edit.infer.windows import Progress, WindowedModel
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.stopping import Reason, draft_digest, reasons
from dualmask.ops.alignment import edit_distance

REQUESTS_AT_ONCE = 64
TOKENS_AT_ONCE = 65_536


class Engine:
    """Runs requests on a model. ``progress`` hears of the windows that are to be read and of those that were."""

    def __init__(
        self,
        model: DualMask,
        lexicon: Lexicon,
        *,
        progress: Progress | None = None,
        point: OperatingPoint | None = None,
        known: KnownWords | None = None,
    ) -> None:
        """point: thresholds of requests that name none. known: the words that edits may
        write which mend a text; None: any."""
        self.config = model.config
        self.device = next(model.parameters()).device
        self.point, self.known = point or OperatingPoint(), known
        self.model = WindowedModel(model.eval(), lexicon.to(self.device), progress)

    @torch.inference_mode()
    def run(self, requests: Sequence[Request]) -> list[Result]:
        """One result a request, in order. Requests of any mode and setting may be mixed."""
        requests = [request.at(self.point) for request in requests]
        results: dict[int, Result] = {}
        for group in _groups(requests):
            results |= zip(group, self._run_group([requests[index] for index in group]), strict=True)
        return [results[index] for index in range(len(requests))]

    def _run_group(self, requests: Sequence[Request]) -> list[Result]:
        drafts = start(requests, self.device)
        numbers = deletable(drafts, self.model.lexicon).sum(1).tolist()
        limits = self.config.max_length, self.config.max_gap_count
        budgets = [Budget(r, n, natural_room(r, *limits)) for r, n in zip(requests, numbers, strict=True)]
        traces: list[list[Round]] = [[] for _ in requests]
        stopped = [Reason.NONE for _ in requests]
        active = list(range(len(requests)))
        seen = draft_digest(drafts.tokens, drafts.length)[:, None]
        while active:
            running = [budgets[index] for index in active]
            done = infer_round(self.model, drafts, running, self.known)
            digest = draft_digest(done.drafts.tokens, done.drafts.length)
            reasons_by_row = _reasons(drafts, done, digest, seen, running)
            for index, trace, reason in zip(active, done.rounds, reasons_by_row, strict=True):
                traces[index].append(trace)
                stopped[index] = reason
            going = [row for row, reason in enumerate(reasons_by_row) if not _finished(running[row], reason)]
            active = [active[row] for row in going]
            drafts = done.drafts.rows(going) if going else drafts
            seen = torch.cat([seen, digest[:, None]], dim=1)[going]
        return [
            Result(request, trace[-1].result[1:-1], tuple(trace), reason)
            for request, trace, reason in zip(requests, traces, stopped, strict=True)
        ]


def _reasons(
    before: Drafts, done: InferredRound, digest: Tensor, seen: Tensor, budgets: Sequence[Budget]
) -> list[Reason]:
    """Why each text may stop after this round; requests of different criteria may be mixed."""
    after, stops = done.drafts, [budget.stop for budget in budgets]
    distance = torch.ones_like(done.confidence)
    if any(stop.edit_distance is not None for stop in stops):
        distance = edit_distance(before.tokens, before.length, after.tokens, after.length)
    facts = {"changed": done.changed, "digest": digest, "seen": seen}
    facts |= {"confidence": done.confidence, "distance": distance}
    by_stop = {stop: reasons(stop, **facts).tolist() for stop in set(stops)}
    return [Reason(by_stop[stop][row]) for row, stop in enumerate(stops)]


def _finished(budget: Budget, reason: Reason) -> bool:
    """The requested rounds are over, or a criterion holds; a requested length keeps them going while that helps."""
    if budget.pending:
        return budget.over and reason != Reason.NONE
    return budget.over or reason != Reason.NONE


def _groups(requests: Sequence[Request]) -> Iterator[list[int]]:
    """Indices of requests of like length, so many at once that a group's padded size is bounded."""
    group: list[int] = []
    for index in sorted(range(len(requests)), key=lambda index: len(requests[index].ids)):
        full = len(group) == REQUESTS_AT_ONCE or (len(group) + 1) * (len(requests[index].ids) + 2) > TOKENS_AT_ONCE
        if group and full:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
