"""Corruption is exact at its extremes (no token, every token) and close to the configured rates in between."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from dualmask.config.corruption import CorruptionConfig
from dualmask.core.batch import deletable, present
from dualmask.core.confusions import Confusions
from dualmask.core.errors import ErrorTables
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.ops.corruption import KINDS, LOOKED_UP, by_weight, corrupt

ROWS, WIDTH = 300, 48
MORE = 1000


def texts(rows=ROWS, width=WIDTH, low=2, high=None, ids=2**50, garbage=PAD_ID, seed=0):
    """tokens, length, key; with many ``ids`` the tokens of a text are all different."""
    source = torch.Generator().manual_seed(seed)
    length = torch.randint(low, (high or width) + 1, (rows,), generator=source)
    tokens = torch.randint(6, 6 + ids, (rows, width), generator=source)
    tokens[:, 0] = BOS_ID
    tokens.scatter_(1, length[:, None] - 1, EOS_ID)
    return torch.where(present(length, width), tokens, garbage), length, torch.arange(rows) + 1000 * seed


def only(kind=None, rate=1.0, shuffle_share=0.0, **more):
    weights = {name: float(name == (kind or "drop")) for name in KINDS}
    return CorruptionConfig(rate_low=rate, rate_high=rate, shuffle_share=shuffle_share, **weights, **more)


def inner(tokens, length, row):
    return tokens[row, 1 : length[row] - 1].tolist()


def test_rate_0_changes_nothing_and_clears_the_padding():
    tokens, length, key = texts(garbage=17)
    corrupted, corrupted_length = corrupt(tokens, length, key, 0, only(rate=0.0), None)
    assert torch.equal(corrupted, tokens.masked_fill(~present(length, WIDTH), PAD_ID))
    assert torch.equal(corrupted_length, length)


def test_dropping_everything_leaves_bos_and_eos():
    corrupted, length = corrupt(*texts(), 0, only("drop"), None)
    assert (length == 2).all()
    assert (corrupted[:, :2] == torch.tensor([BOS_ID, EOS_ID])).all()
    assert (corrupted[:, 2:] == PAD_ID).all()


def test_blocks_are_doubled_whole():
    """Of each text the blocks that stand there twice, and nothing else, are more than there was."""
    tokens, length, key = texts(low=20, high=WIDTH // 2)
    corrupted, corrupted_length = corrupt(tokens, length, key, 0, only("double", rate=0.05, double_most=3), None)
    sizes, whole = set(), []
    for row in range(ROWS):
        text, wrong = inner(tokens, length, row), inner(corrupted, corrupted_length, row)
        if len(wrong) - len(text) > 3:
            continue  # several blocks
        size = len(wrong) - len(text)
        sizes.add(size)
        ends = [end for end in range(size, len(text) + 1) if text[:end] + text[end - size : end] + text[end:] == wrong]
        assert size != 1 or ends
        whole += [bool(ends)] if size > 1 else []
    assert sizes == {0, 1, 2, 3}
    assert sum(whole) > 0.6 * len(whole)  # the others are two shorter blocks, or three


def test_doubling_everything():
    tokens, length, key = texts(high=WIDTH // 2)
    corrupted, corrupted_length = corrupt(tokens, length, key, 0, only("double"), None)
    for row in range(ROWS):
        assert inner(corrupted, corrupted_length, row) == [x for x in inner(tokens, length, row) for _ in range(2)]


def test_in_a_full_text_as_much_is_doubled_as_there_is_room_for_anywhere():
    tokens, length, key = texts(low=WIDTH - 5, high=WIDTH - 5)
    corrupted, corrupted_length = corrupt(tokens, length, key, 0, only("double"), None)
    assert (corrupted_length == WIDTH).all()
    doubled = torch.zeros(WIDTH - 7)
    for row in range(ROWS):
        before, after = inner(tokens, length, row), inner(corrupted, corrupted_length, row)
        number = torch.tensor([after.count(token) for token in before])
        assert after == [token for token, n in zip(before, number, strict=True) for _ in range(n)]
        doubled += number - 1
    assert doubled.sum() == 5 * ROWS
    assert doubled.min() > 0.3 * doubled.mean()
    assert doubled.max() < 2 * doubled.mean()


def test_swapping_everything_exchanges_neighbours():
    tokens, length, key = texts()
    corrupted, corrupted_length = corrupt(tokens, length, key, 0, only("swap"), None)
    for row in range(ROWS):
        before = inner(tokens, length, row)
        exchanged = [x for i in range(0, len(before), 2) for x in before[i : i + 2][::-1]]
        assert inner(corrupted, corrupted_length, row) == exchanged


def test_swaps_move_tokens_by_one_place():
    tokens, length, key = texts(low=3)
    corrupted, corrupted_length = corrupt(tokens, length, key, 0, only("swap", rate=0.3), None)
    moved = 0
    for row in range(ROWS):
        before, after = inner(tokens, length, row), inner(corrupted, corrupted_length, row)
        assert sorted(before) == sorted(after)
        steps = [abs(after.index(x) - position) for position, x in enumerate(before)]
        assert max(steps) <= 1
        moved += sum(steps)
    # a pair is begun by 0.3 of the tokens that are not the right half of one
    assert 0.3 < moved / deletable(length, WIDTH).sum() < 0.55


def test_a_swapped_token_has_no_other_mistake():
    tokens, length, key = texts(low=WIDTH // 2, high=WIDTH // 2)
    config = only("swap").model_copy(update={"double": 1.0})
    corrupted, corrupted_length = corrupt(tokens, length, key, 0, config, None)
    swapped = 0
    for row in range(ROWS):
        before, after = inner(tokens, length, row), inner(corrupted, corrupted_length, row)
        for left, right in pairwise(before):
            if after.index(left) > after.index(right):
                swapped += 1
                assert after.count(left) == after.count(right) == 1
    assert swapped > 5 * ROWS


def test_substitutes_are_other_tokens_of_the_same_text():
    tokens, length, key = texts(ids=4)
    corrupted, corrupted_length = corrupt(tokens, length, key, 0, only("substitute"), None)
    assert torch.equal(corrupted_length, length)
    for row in range(ROWS):
        before, after = inner(tokens, length, row), inner(corrupted, length, row)
        assert set(after) <= set(before)
        assert all(x != y for x, y in zip(before, after, strict=True)) or len(set(before)) == 1


def test_substitutes_come_from_all_other_places_alike():
    rows = 3000
    tokens = torch.tensor([[BOS_ID, 10, 11, 12, 12, EOS_ID]]).expand(rows, -1).contiguous()
    corrupted, _ = corrupt(tokens, torch.full((rows,), 6), torch.arange(rows), 0, only("substitute"), None)
    share = [(corrupted[:, 1] == token).float().mean().item() for token in (10, 11, 12)]
    assert share == pytest.approx([0, 1 / 3, 2 / 3], abs=0.04)


def test_a_shuffled_span_is_one_span_and_the_rest_stays():
    tokens, length, key = texts(low=WIDTH)
    config = only(rate=0.0, shuffle_share=1.0, mean_span=6.0)
    corrupted, _ = corrupt(tokens, length, key, 0, config, None)
    assert torch.equal(corrupted.sort(1).values, tokens.sort(1).values)
    changed = corrupted != tokens
    position = torch.arange(WIDTH)
    extent = torch.where(changed, position, -1).amax(1) - torch.where(changed, position, WIDTH).amin(1) + 1
    # ends of a span may happen to stay where they are, so that spans look a little shorter
    assert 4.0 < extent[changed.any(1)].float().mean() < 6.5
    assert changed.any(1).float().mean() > 0.75
    some, _ = corrupt(tokens, length, key, 0, only(rate=0.0, shuffle_share=0.3, mean_span=6.0), None)
    shuffled = (some != tokens).any(1)
    assert 0.2 < shuffled.float().mean() < 0.36
    assert torch.equal(some[shuffled], corrupted[shuffled])  # which rows are shuffled says nothing about their spans
    assert extent[shuffled].float().mean() == pytest.approx(extent[changed.any(1)].float().mean(), rel=0.25)


def test_spans_of_two_when_two_is_the_mean():
    tokens, length, key = texts(low=WIDTH)
    corrupted, _ = corrupt(tokens, length, key, 0, only(rate=0.0, shuffle_share=1.0, mean_span=2.0), None)
    assert set((corrupted != tokens).sum(1).tolist()) == {0, 2}


def test_the_share_of_hit_tokens_lies_between_the_rates():
    tokens, length, key = texts(width=400, low=400)
    config = only("substitute").model_copy(update={"rate_low": 0.2, "rate_high": 0.6})
    share = (corrupt(tokens, length, key, 0, config, None)[0] != tokens).sum(1) / 398
    assert share.mean().item() == pytest.approx(0.4, abs=0.03)
    assert 0.12 < share.min() < 0.25
    assert 0.55 < share.max() < 0.68


def test_kinds_are_drawn_by_weight():
    draw = (torch.arange(1000) + 0.5) / 1000
    number = torch.bincount(by_weight(draw, [0.0, 3.0, 0.0, 1.0, 0.0]), minlength=5)
    assert number.tolist() == [0, 750, 0, 250, 0]
    ends = torch.tensor([2.0**-24, 1 - 2.0**-24])  # the extreme draws of ops.noise
    assert by_weight(ends, [0.0, 1.1, 2.3, 0.0]).tolist() == [1, 2]


def test_nothing_depends_on_companions_or_on_padding():
    config = CorruptionConfig(rate_low=0.3, rate_high=0.6, shuffle_share=0.5)
    tokens, length, key = texts(rows=20, high=WIDTH // 2)
    together, together_length = corrupt(tokens, length, key, 5, config, None)
    for row in range(20):
        one = slice(row, row + 1)
        wide = pad(tokens[one], (0, 9), value=23)
        alone, alone_length = corrupt(wide, length[one], key[one], 5, config, None)
        assert torch.equal(alone_length, together_length[one])
        assert torch.equal(alone[:, :WIDTH], together[one])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LOOKED_UP])
def test_other_steps_give_other_mistakes(kind):
    tokens, length, key = texts(low=18, high=24)
    first, second = (corrupt(tokens, length, key, step, only(kind, rate=0.5), None)[0] for step in (0, 1))
    assert (first != second).any(1).all()


def test_where_everything_is_substituted_other_steps_take_other_tokens():
    tokens, length, key = texts(low=20)
    first, second = (corrupt(tokens, length, key, step, only("substitute"), None)[0] for step in (0, 1))
    assert (first != second).any(1).all()


def table(ids=20):
    """Even ids are misspelt as 100 + id, or as 100 + id and MORE; odd ones cannot be misspelt."""
    typos = torch.full((ids, 2, 3), -1)
    even = torch.arange(6, ids, 2)
    typos[even, :, 0] = 100 + even[:, None]
    typos[even, 1, 1] = MORE
    return typos


def test_typos_stand_in_the_place_of_their_token():
    tokens, length, key = texts(high=WIDTH // 2, ids=14)
    corrupted, corrupted_length = corrupt(tokens, length, key, 0, only("typo"), ErrorTables(table()))
    misspelt = (corrupted > 100) & (corrupted != MORE)
    assert 0.45 < (corrupted == MORE).sum() / misspelt.sum() < 0.55  # both variants alike
    for row in range(ROWS):
        before = inner(tokens, length, row)
        after = [token for token in inner(corrupted, corrupted_length, row) if token != MORE]
        for token, wrong in zip(before, after, strict=True):
            if token % 2 == 0:
                assert wrong == 100 + token
            else:  # substituted
                assert (wrong in before and wrong != token) or len(set(before)) == 1


def test_a_typo_that_finds_no_room_becomes_a_substitute():
    tokens = torch.tensor([[BOS_ID, 8, 8, 9, EOS_ID]])
    typos = torch.full((10, 1, 2), -1)
    typos[8, 0] = torch.tensor([50, 51])
    length, key, config = torch.tensor([5]), torch.tensor([1]), only("typo")
    assert corrupt(tokens, length, key, 0, config, ErrorTables(typos))[0].tolist() == [[BOS_ID, 9, 9, 8, EOS_ID]]
    wider, wider_length = corrupt(pad(tokens, (0, 1)), length, key, 0, config, ErrorTables(typos))
    assert wider_length.tolist() == [6]
    assert wider.tolist()[0] in ([BOS_ID, 50, 51, 9, 8, EOS_ID], [BOS_ID, 9, 50, 51, 8, EOS_ID])


def confusions(ids=20):
    """Pieces of 20 ids: 6 is left out, 8 becomes 50, 10 becomes 51 52 or is left alone; the others have no confusion.
    12 goes on with the word before, 14 is a suffix that becomes 53 behind the stem 16."""
    table, count = torch.full((ids, 2, 3), -1), torch.full((ids, 2), -1)
    count[6], count[8], count[10, 0], count[14] = 0, 1, 2, 1
    table[8, :, 0], table[14, :, 0] = 50, 53
    table[10, 0, :2] = torch.tensor([51, 52])
    flags = {"goes_on": [12, 14], "open_end": [6, 8, 10, 12, 14, 16], "suffix": [14], "stem": [16]}
    masks = {name: torch.isin(torch.arange(ids), torch.tensor(members)) for name, members in flags.items()}
    return Confusions(table, count, **masks)


def confuse(inner_tokens, width=16, rows=40):
    """What becomes of a text in which every token is confused, over ``rows`` keys."""
    text = torch.tensor([[BOS_ID, *inner_tokens, EOS_ID]])
    length = torch.full((rows,), text.shape[1])
    tokens = pad(text, (0, width - text.shape[1])).expand(rows, -1).contiguous()
    found = corrupt(tokens, length, torch.arange(rows), 0, only("confuse"), ErrorTables(confusions=confusions()))
    return {tuple(inner(*found, row)) for row in range(rows)}


@pytest.mark.parametrize(
    ("text", "results"),
    [
        ([7, 6, 7], {(7, 7)}),  # left out
        ([6, 6, 6], {()}),
        ([7, 8, 9], {(7, 50, 9)}),
        ([7, 10, 7], {(7, 51, 52, 7), (7, 10, 7)}),  # one variant is none
        ([8, 12, 8], {(8, 12, 50)}),  # the first 8 goes on: it is no whole word
        ([16, 14, 7], {(16, 53, 7)}),  # a suffix behind a stem
        ([8, 14, 7], {(8, 14, 7)}),  # behind none
        ([16, 14, 12], {(16, 14, 12)}),  # the word goes on
    ],
)
def test_a_confusion_happens_to_whole_words_and_suffixes(text, results):
    assert confuse(text) == results


def test_a_confusion_that_finds_no_room_does_not_happen():
    assert confuse([10, 7], width=4) == {(10, 7)}
    assert confuse([10, 7], width=5) == {(51, 52, 7), (10, 7)}
    assert confuse([6, 10], width=4) == {(51, 52), (10,)}  # what is left out makes room


def test_without_a_table_nothing_is_confused():
    tokens, length, key = texts()
    assert torch.equal(corrupt(tokens, length, key, 0, only("confuse"), None)[0], tokens)


def test_a_kind_without_weight_changes_no_draw_of_the_others():
    tokens, length, key = texts(high=WIDTH // 2, ids=14)
    config = CorruptionConfig(rate_low=0.5, rate_high=0.9)
    plain, plain_length = corrupt(tokens, length, key, 3, config, ErrorTables(table()))
    both = corrupt(tokens, length, key, 3, config, ErrorTables(table(), confusions()))
    assert torch.equal(both[0], plain)
    assert torch.equal(both[1], plain_length)


weight = st.sampled_from([0.0, 1.0, 3.0])


@settings(deadline=None, max_examples=100)
@given(
    st.tuples(*[weight] * len(KINDS)).filter(any),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(2, 12),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1000),
)
def test_a_corrupted_text_is_a_text(weights, rate, width, with_typos, with_confusions, seed):
    tokens, length, key = texts(rows=6, width=width, ids=14, garbage=9, seed=seed)
    config = CorruptionConfig(
        rate_low=rate, rate_high=rate, shuffle_share=0.5, mean_span=3.0, **dict(zip(KINDS, weights, strict=True))
    )
    errors = ErrorTables(table() if with_typos else None, confusions() if with_confusions else None)
    corrupted, corrupted_length = corrupt(tokens, length, key, seed, config, errors)
    assert corrupted.shape == tokens.shape
    assert ((corrupted_length >= 2) & (corrupted_length <= width)).all()
    assert (corrupted[:, 0] == BOS_ID).all()
    assert (corrupted.gather(1, corrupted_length[:, None] - 1) == EOS_ID).all()
    assert torch.equal(corrupted == PAD_ID, ~present(corrupted_length, width))
    assert (corrupted[deletable(corrupted_length, width)] >= 6).all()
