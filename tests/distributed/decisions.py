"""One number for everything that was decided in the rounds of a step, or on its spans: it does not depend on how texts
are shared out among ranks and micro-batches. Where it differs, losses may not be compared: a rounding error tipped a
decision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch

from dualmask.families.edit import task
from dualmask.families.edit.stopping import draft_digest
from dualmask.families.span import rollout as span_rollout


@dataclass
class Record:
    total: int = 0  # modulo 2^64, as int64: sums over texts, rounds and ranks wrap alike


@contextmanager
def recorded() -> Iterator[Record]:
    """Records every round that is played inside, and every span."""
    record, train_round, play_span, stops = Record(), task.train_round, span_rollout.play, span_rollout._stops

    def listening(*arguments):
        state, out = train_round(*arguments)
        drafts = torch.cat([draft_digest(state.tokens, state.length), draft_digest(out.deleted.long(), out.length)])
        record.total = wrap(record.total + int(drafts.sum()))
        return state, out

    def listening_to_span(*arguments):
        steps = play_span(*arguments)
        for step in steps:
            size = torch.full_like(step.pick[:, 0], step.pick.shape[1], dtype=torch.long)
            seen = torch.cat([draft_digest(step.before.tokens, size), draft_digest(step.pick.long(), size)])
            record.total = wrap(record.total + int(seen.sum()))
        return steps

    def listening_to_stops(go_on):
        stop = stops(go_on)
        record.total = wrap(record.total + int(stop.sum()))
        return stop

    with (
        patch.object(task, "train_round", listening),
        patch.object(span_rollout, "play", listening_to_span),
        patch.object(span_rollout, "_stops", listening_to_stops),
    ):
        yield record


def wrap(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63
