"""Routes, thresholds and ends of the rounds, on models whose opinions are written down."""

import functools
from collections.abc import Callable
from dataclasses import replace
from itertools import count as counter

import pytest
import torch
from scripted import Scripted
from torch import Tensor

from dualmask.core.tokenizer import BOS_ID
from dualmask.families.edit.infer.budget import Budget
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.request import MODES, Hole, Request
from dualmask.families.edit.infer.text import Writer
from dualmask.families.edit.stopping import Reason

A, B, C, D, WRONG, DOUBTFUL = range(300, 306)

approx = functools.partial(pytest.approx, abs=1e-5)
MakeEngine = Callable[..., Engine]


@pytest.fixture(scope="module")
def scripted(writer: Writer) -> MakeEngine:
    lexicon = replace(writer.lexicon, paired=torch.zeros_like(writer.lexicon.paired))  # any of the ids may be written
    return lambda **opinions: Engine(Scripted(len(lexicon.writable), **opinions), lexicon)


def has(token: int) -> Callable[[Tensor], Tensor]:
    return lambda tokens: (tokens == token).any(1).float() * 0.9 + 0.05


def between(left: int, right: int) -> Callable[[Tensor], Tensor]:
    """One token is missing where ``left`` and ``right`` stand side by side."""
    return lambda tokens: ((tokens[:, :-1] == left) & (tokens[:, 1:] == right)).long()


def is_wrong(tokens: Tensor) -> Tensor:
    return (tokens == WRONG) * 0.8 + (tokens == DOUBTFUL) * 0.4


def test_the_gate_chooses_the_route_of_each_round_and_text(scripted: MakeEngine) -> None:
    engine = scripted(
        wrong=is_wrong, gate=has(WRONG), count=between(B, C), write=lambda tokens: torch.full_like(tokens, D)
    )
    mended, completed, complete = engine.run(
        [Request(text, "auto", rounds=9) for text in ([A, B, WRONG, C], [A, B, C, DOUBTFUL], [A, C, B])]
    )
    assert mended.ids == [A, B, D, C]
    assert [(done.gate, done.deleted, done.inserted) for done in mended.rounds] == [
        (approx(0.95), [3], [(2, 1)]),
        (approx(0.05), [], []),
    ]
    assert completed.ids == [A, B, D, C, DOUBTFUL]
    assert [done.gate for done in completed.rounds] == approx([0.05, 0.05])
    assert complete.ids == [A, C, B]
    assert {result.stopped for result in (mended, completed, complete)} == {Reason.NOTHING_TO_DO}


def test_a_closed_gate_protects_what_looks_wrong(scripted: MakeEngine) -> None:
    engine = scripted(wrong=is_wrong, gate=has(A))
    text = [WRONG, B, WRONG]
    closed, opened, forced = engine.run(
        [Request(text, "auto"), Request(text, "auto", gate_threshold=0.01), Request(text, "edit")]
    )
    assert (closed.ids, opened.ids, forced.ids) == (text, [B], [B])
    assert [result.rounds[0].gate for result in (closed, opened, forced)] == approx([0.05, 0.05, 1.0])


@pytest.mark.parametrize("mode", ["edit", "auto"])
def test_the_edit_threshold_says_what_counts_as_wrong(scripted: MakeEngine, mode: str) -> None:
    engine = scripted(wrong=is_wrong)
    text = [A, WRONG, B, DOUBTFUL, C]
    results = engine.run([Request(text, mode, edit_threshold=threshold) for threshold in (0.3, 0.5, 0.9)])
    assert [result.ids for result in results] == [[A, B, C], [A, B, DOUBTFUL, C], text]


def test_with_an_asked_keep_rate_wrong_tokens_go_first(scripted: MakeEngine) -> None:
    (result,) = scripted(wrong=is_wrong).run([Request([A, B, C, D, WRONG] * 2, "edit", keep_rate=0.8, growth=-2)])
    assert result.ids == [A, B, C, D] * 2


def test_the_picker_hears_which_tokens_an_earlier_round_wrote(writer: Writer) -> None:
    model = Scripted(len(writer.lexicon.writable), wrong=is_wrong, count=between(B, C))
    (result,) = Engine(model, writer.lexicon).run([Request([WRONG, A, B, C], "auto", rounds=2)])
    assert result.ids == [A, B, A, C]
    (_, _, confidence), *_ = result.rounds[0].filled
    first, second = (sure[0].tolist() for sure in model.heard)
    assert first == [1.0] * 6
    assert second == [1.0, 1.0, 1.0, confidence, 1.0, 1.0]
    assert 0.5 < confidence < 1


def test_locked_tokens_stay_even_if_they_are_wrong(scripted: MakeEngine) -> None:
    request = Request([WRONG, A, WRONG], "auto", locked=[(2, 3)], rounds=5)
    (result,) = scripted(wrong=is_wrong, count=between(A, WRONG)).run([request])
    assert result.ids[-1] == WRONG
    assert result.ids[0] == A
    (alone,) = scripted(wrong=is_wrong).run([Request([WRONG], "edit", locked=[(0, 1)], rounds=5)])
    assert (alone.ids, alone.stopped) == ([WRONG], Reason.NOTHING_TO_DO)


def test_the_gate_of_a_long_text_opens_where_the_trouble_is(scripted: MakeEngine) -> None:
    """Windows of 30 tokens: doubtful tokens go only where something wrong is near."""
    text = [A, DOUBTFUL, *[B] * 58, DOUBTFUL, WRONG, *[C] * 40]
    engine = scripted(wrong=is_wrong, gate=has(WRONG))
    (result,) = engine.run([Request(text, "auto", edit_threshold=0.3)])
    assert result.ids == [A, DOUBTFUL, *[B] * 58, *[C] * 40]
    assert result.rounds[0].gate == approx(0.95)


def test_a_model_that_goes_back_and_forth_is_stopped(scripted: MakeEngine) -> None:
    """Everything is wrong, and what is written is the other of two tokens."""
    turn = counter()
    engine = scripted(
        wrong=lambda tokens: torch.ones(tokens.shape),
        count=lambda tokens: torch.ones_like(tokens[:, 1:]),
        write=lambda tokens: torch.full_like(tokens, (A, B)[next(turn) % 2]),
    )
    (result,) = engine.run([Request([B], "auto", rounds=1000)])
    assert (len(result.rounds), result.stopped) == (2, Reason.SEEN_BEFORE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rounds", [1, 7])
@pytest.mark.parametrize("growth", [None, 25])
def test_nothing_runs_for_ever(scripted: MakeEngine, mode: str, rounds: int, growth: int | None) -> None:
    """Everything is always wrong, much is always missing, and what is written was never there before."""
    turn = counter(A)
    engine = scripted(
        wrong=lambda tokens: torch.ones(tokens.shape),
        count=lambda tokens: torch.full_like(tokens[:, 1:], 3),
        write=lambda tokens: torch.full_like(tokens, next(turn) % 200 + 300),
    )
    request = Request(
        [A, B, C, D] * 3,
        mode,
        keep_rate=0.5 if mode == "summarize" else None,
        rounds=rounds,
        growth=None if mode == "summarize" else growth,
        holes=[Hole(5, growth)] if mode == "infill" else [],
        locked=[(1, 3)] if mode == "edit" else [],
        stop_confidence=1.0,
        stop_distance=0.0,
    )
    (result,) = engine.run([request])
    assert len(result.rounds) <= rounds + (growth or 0)
    if mode in ("edit", "auto", "summarize"):  # the others have no room left at last
        assert len(result.rounds) >= rounds
        assert result.stopped == Reason.NONE
    if growth and mode != "summarize":
        assert len(result.ids) == 12 + growth


def test_growth_without_a_bound_ends_at_the_length_of_the_model(scripted: MakeEngine) -> None:
    engine = scripted(
        gate=lambda tokens: torch.zeros(len(tokens)), count=lambda tokens: torch.full_like(tokens[:, 1:], 8)
    )
    (result,) = engine.run([Request([A], "auto", rounds=1000)])
    assert len(result.ids) == 30
    assert len(result.rounds) < 10


def test_stop_criteria_of_a_batch_are_each_text_s_own(scripted: MakeEngine) -> None:
    """Each round adds one token behind the first: a smaller and smaller share of the text."""

    def one_more(tokens: Tensor) -> Tensor:
        return (tokens[:, :-1] == BOS_ID).long()

    requests = [
        Request([A, B], "auto", rounds=12, stop_distance=distance, stop_confidence=sure)
        for distance, sure in ((None, None), (0.15, None), (0.1001, None), (None, 0.5), (None, 1.0))
    ]
    engine = scripted(count=one_more)
    together = engine.run(requests)
    assert [len(result.rounds) for result in together] == [12, 3, 6, 1, 12]
    assert [result.stopped.word for result in together] == ["rounds", "settled", "settled", "confident", "rounds"]
    for request, result in zip(requests, together, strict=True):
        assert engine.run([request])[0].ids == result.ids


@pytest.mark.parametrize("rounds", [1, 2, 5, 8])
@pytest.mark.parametrize("asked", [0, 1, 7, 100, -40])
def test_both_growth_schedules_reach_what_is_asked(asked: int, rounds: int) -> None:
    mode = "edit" if asked < 0 else "generate"
    shares = {}
    for schedule in ("linear", "cosine"):
        budget = Budget(Request([A] * 50, mode, growth=asked, rounds=rounds, growth_schedule=schedule), 50, 50)
        shares[schedule] = []
        for _ in range(rounds):
            shares[schedule].append(due := budget.due(0))
            budget.close_round(deleted=0, opened={0: due})
        assert sum(shares[schedule]) == asked
        assert budget.due(0) == 0
        assert not budget.pending
    if asked == 100 and rounds == 8:
        assert shares["linear"] == [13, 12, 13, 12, 13, 12, 13, 12]
        assert shares["cosine"] == sorted(shares["cosine"])
        assert shares["cosine"][0] <= 2
