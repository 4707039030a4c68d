"""The engine on ids: laws that hold for any weights."""

import random
from dataclasses import replace
from functools import partial

import pytest
import torch

from dualmask.core.batch import Batch
from dualmask.core.sampling import SamplingParams
from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK_ID, SPECIAL_IDS
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.request import Hole, Request, Result
from dualmask.families.edit.stopping import Reason
from dualmask.inference.loading import Loaded
from dualmask.ops import allocate, gaps

FIRST_PIECE = 262  # behind the special ids and the 256 bytes


def ids(seed: int, length: int, vocabulary: int = 512) -> list[int]:
    return random.Random(seed).choices(range(FIRST_PIECE, vocabulary), k=length)


def mixed_requests() -> list[Request]:
    """Every mode, lengths from nothing to several windows, cold and hot, one and more rounds."""
    hot = partial(SamplingParams, temperature=1.0, place_temperature=0.7, top_p=0.9, fill_steps=3)
    requests = [
        Request(ids(1, 25), "edit", keep_rate=0.7),
        Request(ids(2, 100), "edit", keep_rate=0.7, rounds=3, growth=7, sampling=hot(seed=5)),
        Request(ids(3, 70), "edit", keep_rate=0.5, locked=[(10, 30)], sampling=hot(seed=6)),
        Request((), "edit"),
        Request(ids(4, 12), "generate", rounds=4, growth=40, sampling=hot(seed=7, remask=True)),
        Request((), "generate", rounds=3, growth=20),
        Request((), "generate", rounds=2),
        Request(ids(5, 90), "summarize", keep_rate=0.4, rounds=3),
        Request(ids(6, 40), "summarize", keep_rate=0.5, sampling=SamplingParams(place_temperature=1.0, seed=8)),
        Request(ids(7, 30), "infill", holes=[Hole(0, 2), Hole(11, 20), Hole(30, None)]),
        Request(ids(8, 120), "infill", holes=[Hole(60, 3, spaced=True)], sampling=hot(seed=9)),
        Request(ids(9, 20), "auto", rounds=3, edit_threshold=0.3, gate_threshold=0.3, stop_confidence=0.9),
        Request(
            ids(10, 80),
            "auto",
            rounds=4,
            growth=9,
            growth_schedule="cosine",
            stop_distance=0.2,
            sampling=hot(seed=10),
        ),
        Request((), "auto", rounds=2),
        Request(ids(11, 45), "edit", rounds=3, edit_threshold=0.4, sampling=hot(seed=11)),
    ]
    return [*requests, replace(requests[1], sampling=hot(seed=105))]


def subsequence(short: list[int], long: list[int]) -> bool:
    rest = iter(long)
    return all(token in rest for token in short)


def test_results_do_not_depend_on_companions_or_padding(engine: Engine) -> None:
    requests = mixed_requests()
    assert len(requests) == 16
    together = engine.run(requests)
    alone = [engine.run([request])[0] for request in requests]
    backwards = engine.run(requests[::-1])[::-1]
    for one, other, third in zip(together, alone, backwards, strict=True):
        assert one.ids == other.ids == third.ids
        assert (len(one.rounds), one.stopped) == (len(other.rounds), other.stopped)
        for here, there in zip(one.rounds, other.rounds, strict=True):
            assert here.gate == pytest.approx(there.gate, abs=1e-4)
            assert (here.draft, here.deleted, here.inserted) == (there.draft, there.deleted, there.inserted)
            assert [fill[:2] for fill in here.filled] == [fill[:2] for fill in there.filled]
            assert [fill[2] for fill in here.filled] == pytest.approx([fill[2] for fill in there.filled], abs=1e-4)


def test_a_seed_gives_one_result_and_another_seed_another(engine: Engine) -> None:
    sampling = SamplingParams(temperature=1.0, place_temperature=1.0)
    first, again, other = engine.run(
        [Request(ids(0, 30), "edit", sampling=seeded) for seeded in sampling.with_seeds([1, 1, 2])]
    )
    assert first.ids == again.ids
    assert first.ids != other.ids


def test_nothing_special_is_ever_written(engine: Engine) -> None:
    for result in engine.run(mixed_requests()):
        assert not SPECIAL_IDS.intersection(result.ids)
        assert max(result.ids, default=0) < 512


@pytest.mark.parametrize("length", [0, 1, 3, 29, 30, 31, 200])
def test_keep_rate_one_without_growth_changes_nothing(engine: Engine, length: int) -> None:
    (result,) = engine.run([Request(ids(length, length), "edit", keep_rate=1.0, growth=0, rounds=5)])
    assert result.ids == ids(length, length)
    assert (len(result.rounds), result.stopped) == (1, Reason.NOTHING_TO_DO)


@pytest.mark.parametrize("keep_rate", [0.0, 0.3, 0.8, 0.995])
def test_the_deleted_share_is_exact_over_all_windows(engine: Engine, keep_rate: float) -> None:
    (edit, summary, stepwise) = engine.run(
        [
            Request(ids(0, 400), "edit", keep_rate=keep_rate, growth=0),
            Request(ids(0, 400), "summarize", keep_rate=keep_rate),
            Request(ids(0, 400), "summarize", keep_rate=keep_rate, rounds=3),
        ]
    )
    assert len(edit.rounds[0].deleted) == round((1 - keep_rate) * 400)
    assert len(edit.ids) == 400
    assert len(summary.ids) == len(stepwise.ids) == round(keep_rate * 400)
    assert subsequence(summary.ids, ids(0, 400))


@pytest.mark.parametrize("growth", [0, 1, 9, 150])
@pytest.mark.parametrize("rounds", [1, 4])
def test_an_asked_growth_is_met_exactly(engine: Engine, growth: int, rounds: int) -> None:
    requests = [
        Request(ids(1, 20), "generate", growth=growth, rounds=rounds),
        Request((), "generate", growth=growth, rounds=rounds, sampling=SamplingParams(place_temperature=1.0)),
        Request(ids(2, 50), "edit", growth=growth, rounds=rounds, keep_rate=0.9),
        Request(ids(3, 40), "edit", growth=-min(growth, 30), rounds=rounds, keep_rate=0.6),
    ]
    for request, result in zip(requests, engine.run(requests), strict=True):
        assert len(result.ids) == len(request.ids) + (request.growth or 0), request.mode


def test_without_an_asked_growth_the_bound_holds(engine: Engine) -> None:
    for bound in (0, 3, 10):
        for mode in ("edit", "generate"):
            (result,) = engine.run([Request(ids(9, 40), mode, max_growth=bound, rounds=3)])
            assert len(result.ids) <= 40 + bound


def test_generate_keeps_every_token_and_its_budget_follows_the_line(engine: Engine) -> None:
    (result,) = engine.run([Request(ids(1, 20), "generate", growth=40, rounds=4, anywhere=True)])
    assert subsequence(ids(1, 20), result.ids)
    assert [len(done.filled) for done in result.rounds] == [10, 10, 10, 10]
    assert not any(done.deleted for done in result.rounds)


def test_a_text_is_continued_behind_its_end(engine: Engine) -> None:
    text = ids(1, 20)
    (result,) = engine.run([Request(text, "generate", growth=40, rounds=4)])
    assert result.ids[:20] == text
    assert len(result.ids) == 60


def test_an_infill_writes_in_its_holes_only(engine: Engine) -> None:
    text = ids(7, 50)
    request = Request(text, "infill", holes=[Hole(0, 2), Hole(20, 30), Hole(50, 1)], rounds=2)
    (result,) = engine.run([request])
    assert len(result.ids) == 83
    assert result.ids[2:22] == text[:20]
    assert result.ids[52:82] == text[20:]
    (opinion,) = engine.run([Request(text, "infill", holes=[Hole(20)])])
    assert 51 <= len(opinion.ids) <= 58
    assert opinion.ids[:20] == text[:20]
    assert opinion.ids[-30:] == text[20:]


def contains(part: list[int], whole: list[int]) -> bool:
    return any(whole[start : start + len(part)] == part for start in range(len(whole) - len(part) + 1))


def test_locked_ranges_survive_a_thousand_random_edits(engine: Engine) -> None:
    chance = random.Random(0)
    requests = []
    for number in range(1000):
        text = ids(number, chance.randint(1, 60))
        start = chance.randrange(len(text))
        locked = [(start, chance.randint(start + 1, len(text)))]
        requests.append(
            Request(
                text,
                (mode := chance.choice(("edit", "edit", "auto", "auto", "summarize", "generate"))),
                keep_rate=chance.choice((0.0, 0.3, 0.7, None) if mode in ("edit", "auto") else (0.0, 0.5)),
                edit_threshold=chance.choice((0.1, 0.5)),
                gate_threshold=chance.choice((0.0, 0.5)),
                rounds=chance.randint(1, 3),
                locked=locked,
                growth=chance.choice((None, 0, 5)),
                sampling=SamplingParams(
                    temperature=chance.choice((0.0, 1.0)), place_temperature=chance.choice((0.0, 1.0)), seed=number
                ),
            )
        )
    for request, result in zip(requests, engine.run(requests), strict=True):
        ((start, end),) = request.locked
        assert contains(list(request.ids[start:end]), result.ids)


def test_a_draft_seen_before_ends_the_rounds(engine: Engine) -> None:
    (result,) = engine.run([Request(ids(3, 20), "edit", keep_rate=0.95, growth=0, rounds=200)])
    drafts = [tuple(done.draft) for done in result.rounds]
    assert len(drafts) == len(set(drafts)) < 200
    assert result.rounds[-1].result in [done.draft for done in result.rounds]
    assert result.stopped == Reason.SEEN_BEFORE


def test_each_request_has_stop_criteria_of_its_own(engine: Engine) -> None:
    request = Request(ids(3, 20), "edit", keep_rate=0.8, rounds=9, sampling=SamplingParams(temperature=1.0))
    whole, sure, settled, never_sure, growing = engine.run(
        [
            request,
            replace(request, stop_confidence=0.0),
            replace(request, stop_distance=1.0),
            replace(request, stop_confidence=1.0),
            replace(request, stop_confidence=0.0, growth=30),  # an asked length is reached all the same
        ]
    )
    assert (len(whole.rounds), whole.stopped) == (9, Reason.NONE)
    assert (len(sure.rounds), sure.stopped) == (1, Reason.CONFIDENT)
    assert (len(settled.rounds), settled.stopped) == (1, Reason.SETTLED)
    assert never_sure.ids == whole.ids
    assert len(growing.ids) == 50


def test_min_p_bounds_what_is_filled(loaded: Loaded, engine: Engine) -> None:
    """Of every token filled in one step, the model's tempered probability against that of its likeliest one."""
    text, temperature, min_p = ids(5, 18), 2.0, 0.9
    lowest = {}
    for limit in (0.0, min_p):
        sampling = SamplingParams(temperature, min_p=limit).with_seeds(range(8))
        results = engine.run([Request(text, "infill", holes=[Hole(9, 8)], sampling=own) for own in sampling])
        ratios = []
        for result in results:
            tokens = torch.tensor([[BOS_ID, *result.ids, EOS_ID]])
            slot = torch.tensor([position for position, _, _ in result.rounds[0].filled])
            written = tokens[0, slot]
            tokens[0, slot] = MASK_ID
            with torch.no_grad():
                logits = loaded.model.fill(tokens, torch.tensor([tokens.shape[1]]), slot)[:, :512]
            prob = (logits.masked_fill(~engine.model.lexicon.writable, -torch.inf) / temperature).softmax(-1)
            ratios += (prob.gather(1, written[:, None]).squeeze(1) / prob.amax(1)).tolist()
        assert len(ratios) == 64
        lowest[limit] = min(ratios)
    assert lowest[min_p] >= min_p - 1e-4
    assert lowest[0.0] < min_p / 2


def test_remasking_and_steps_only_change_what_is_written(engine: Engine) -> None:
    def place_of(result: Result) -> tuple[list[int], list[tuple[int, int]]]:
        return result.rounds[0].deleted, result.rounds[0].inserted

    request = Request(ids(4, 60), "edit", keep_rate=0.5)
    results = engine.run(
        [
            replace(request, sampling=SamplingParams(fill_steps=steps, remask=remask))
            for steps in (1, 8)
            for remask in (False, True)
        ]
    )
    assert len({str(place_of(result)) for result in results}) == 1
    assert len({tuple(result.ids) for result in results}) > 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep_rate": 1.5}, "keep rate 1.5"),
        ({"keep_rate": float("nan")}, "keep rate nan"),
        ({"mode": "summarize"}, "keep rate None"),
        ({"edit_threshold": -0.1}, "edit threshold -0.1"),
        ({"gate_threshold": float("nan")}, "gate threshold nan"),
        ({"stop_confidence": 2.0}, "stop confidence 2.0"),
        ({"stop_distance": -1.0}, "stop distance -1.0"),
        ({"growth_schedule": "steep"}, "growth schedule steep is not possible: give linear or cosine"),
        ({"mode": "auto", "growth": -3}, "growth -3"),
        ({"rounds": 0}, "rounds 0"),
        ({"mode": "improve"}, "mode improve"),
        ({"mode": "generate", "growth": -3}, "growth -3"),
        ({"locked": [(3, 2)]}, "locked range"),
        ({"holes": [Hole(99)]}, "hole 99"),
    ],
)
def test_impossible_requests_name_option_and_value(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Request(**{"ids": ids(0, 10), "mode": "edit", **options})


def test_one_edit_is_the_model_s_own_picks_counts_and_fills(loaded: Loaded, engine: Engine) -> None:
    """The engine against the model called by hand, on a text that fits."""
    model, text = loaded.model, ids(11, 25)
    tokens = torch.tensor([[BOS_ID, *text, EOS_ID]])
    batch = Batch(tokens, torch.tensor([27]), torch.tensor([0]))
    with torch.no_grad():
        keep = model.pick(batch, torch.tensor([0.8]), step=0, temperature=0.0).keep > 0.5
        skeleton = gaps.drop(tokens, keep)
        out = model.count(skeleton)
        count = allocate.exact_total(out.gap_logits.log_softmax(-1), out.gap_present, torch.tensor([5]))
        masked = gaps.insert(skeleton, count, 27)
        slot = masked.is_mask.flatten().nonzero().squeeze(1)
        logits = model.fill(masked.tokens, masked.length, slot)[:, :512]
    written = logits.masked_fill(~engine.model.lexicon.writable, float("-inf")).argmax(-1)
    expected = masked.tokens.flatten().scatter(0, slot, written)[1:-1].tolist()
    (result,) = engine.run([Request(text, "edit", keep_rate=0.8, growth=0)])
    assert result.rounds[0].deleted == (~keep[0]).nonzero().squeeze(1).tolist()
    assert result.ids == expected
