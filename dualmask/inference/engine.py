"""The engine: requests in, results with their traces out. Knows ids; knows nothing of text.

A round is a function from drafts to drafts (delete, count, open, fill); what ends the rounds is a list of rules over
the trace. Results do not depend on what else is in the batch, nor on padding: every draw is a function of the request's
seed, the round and the place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from dualmask.inference.budget import Budget, natural_room
from dualmask.inference.drafts import start
from dualmask.inference.lexicon import Lexicon
from dualmask.inference.request import Request, Result, Round
from dualmask.inference.rounds import RoundPlayer
from dualmask.inference.windows import Progress, WindowedModel
from dualmask.models.dualmask import DualMask

StopRule = Callable[[Sequence[Round]], bool]

REQUESTS_AT_ONCE = 64
TOKENS_AT_ONCE = 65_536


def idle(rounds: Sequence[Round]) -> bool:
    """The last round deleted and inserted nothing."""
    return not rounds[-1].deleted and not rounds[-1].inserted


def seen_before(rounds: Sequence[Round]) -> bool:
    """The last round led to a draft that was there before: what follows would repeat itself."""
    return any(rounds[-1].result == earlier.draft for earlier in rounds)


class Engine:
    """Runs requests on a model. ``stops``: rules that end a request's rounds early; any that holds is enough."""

    def __init__(
        self,
        model: DualMask,
        lexicon: Lexicon,
        *,
        stops: Sequence[StopRule] = (idle, seen_before),
        progress: Progress | None = None,
    ) -> None:
        self.config = model.config
        self.device = next(model.parameters()).device
        lexicon = lexicon.to(self.device)
        windowed = WindowedModel(model.eval(), lexicon, progress)
        self.player = RoundPlayer(windowed, lexicon, model.config.selection, self.device)
        self.stops = tuple(stops)

    @torch.inference_mode()
    def run(self, requests: Sequence[Request]) -> list[Result]:
        """One result a request, in order. Requests of any mode and setting may be mixed."""
        results: dict[int, Result] = {}
        for group in _groups(requests):
            results |= zip(group, self._run_group([requests[index] for index in group]), strict=True)
        return [results[index] for index in range(len(requests))]

    def _run_group(self, requests: Sequence[Request]) -> list[Result]:
        drafts = start(requests, self.device)
        deletable = self.player.deletable(drafts).sum(1).tolist()
        limits = self.config.max_length, self.config.max_gap_count
        budgets = [Budget(r, n, natural_room(r, *limits)) for r, n in zip(requests, deletable, strict=True)]
        traces: list[list[Round]] = [[] for _ in requests]
        active = list(range(len(requests)))
        while active:
            drafts, rounds = self.player.play(drafts, [budgets[index] for index in active])
            for index, done in zip(active, rounds, strict=True):
                traces[index].append(done)
            going = [row for row, index in enumerate(active) if not self._finished(budgets[index], traces[index])]
            active = [active[row] for row in going]
            drafts = drafts.rows(going) if going else drafts
        return [
            Result(request, trace[-1].result[1:-1], tuple(trace))
            for request, trace in zip(requests, traces, strict=True)
        ]

    def _finished(self, budget: Budget, trace: Sequence[Round]) -> bool:
        """The rounds asked for are over, or a rule stops them; an asked length keeps them going while that helps."""
        over = budget.round >= budget.request.rounds
        if budget.pending and not over:
            return False
        return (over and not budget.pending) or any(stop(trace) for stop in self.stops)


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
