"""Labels of any draft, held against plain loops over one row and against their purpose: to get the target back."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmask.core.batch import present
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.ops import gaps
from dualmask.ops.alignment import align, edit_distance, holes, within

INNER = st.lists(st.integers(6, 9), max_size=9)  # few ids: many equally long subsequences
PAIRS = st.lists(st.tuples(INNER, INNER), min_size=1, max_size=4)


def padded(texts, garbage=PAD_ID, width=0):
    """Texts without BOS and EOS as tokens [B, T] and length [B]; ``garbage`` stands in the padding."""
    rows = [[BOS_ID, *text, EOS_ID] for text in texts]
    width = max(width, *map(len, rows))
    tokens = torch.tensor([row + [garbage] * (width - len(row)) for row in rows])
    return tokens, torch.tensor([len(row) for row in rows])


def aligned(pairs, garbage=PAD_ID):
    draft, target = (padded(texts, garbage) for texts in zip(*pairs, strict=True))
    return draft, target, align(*draft, *target)


def common_length(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        above, row[0] = row[0], i + 1
        for j, y in enumerate(b):
            above, row[j + 1] = row[j + 1], min(above + (x != y), row[j] + 1, row[j + 1] + 1)
    return row[-1]


@settings(deadline=None, max_examples=150)
@given(PAIRS)
def test_the_match_is_a_longest_common_subsequence(pairs):
    (draft, length), (target, target_length), match = aligned(pairs)
    assert not (match[~present(length, draft.shape[1])] >= 0).any()
    for row, (draft_ids, target_ids) in enumerate(pairs):
        places = match[row][match[row] >= 0]
        assert (places.diff() > 0).all()
        assert torch.equal(draft[row][match[row] >= 0], target[row][places])
        assert len(places) == 2 + common_length(draft_ids, target_ids)
        assert (match[row, 0], match[row, length[row] - 1]) == (0, target_length[row] - 1)


@settings(deadline=None, max_examples=50)
@given(PAIRS)
def test_the_match_depends_neither_on_padding_nor_on_companions(pairs):
    (_, length), _, together = aligned(pairs)
    assert torch.equal(aligned(pairs, garbage=7)[2], together)
    for row, pair in enumerate(pairs):
        assert torch.equal(aligned([pair])[2][0], together[row, : length[row]])


def test_what_a_match_looks_like():
    _, _, match = aligned([([10, 11, 99, 13], [10, 12, 11, 13]), ([], [10, 11]), ([10], [11])])
    assert match.tolist() == [[0, 1, 3, -1, 4, 5], [0, 3, -1, -1, -1, -1], [0, -1, 2, -1, -1, -1]]


@settings(deadline=None, max_examples=150)
@given(PAIRS)
def test_filling_the_holes_between_right_tokens_gives_the_target_back(pairs):
    (draft, _), (target, target_length), match = aligned(pairs)
    keep = match >= 0
    hole = holes(match, keep)
    skeleton = gaps.drop(draft, keep)
    masked = gaps.insert(skeleton, hole.count, target.shape[1])
    assert torch.equal(hole.known, gaps.gap_present(skeleton.length, draft.shape[1]))
    assert torch.equal(masked.length, target_length)
    turn = (
        masked.is_mask.long().cumsum(1)
        - 1
        - torch.nn.functional.pad(hole.count.cumsum(1), (1, 1)).gather(1, masked.gap)
    )
    source = torch.nn.functional.pad(hole.first, (0, 1)).gather(1, masked.gap) + turn
    filled = torch.where(masked.is_mask, target.gather(1, source.clamp(0, target.shape[1] - 1)), masked.tokens)
    assert torch.equal(filled, target)


def holes_of_row(match, keep):
    """(count, first, known) of each gap, one token after the other."""
    skeleton = [position for position, kept in zip(match, keep, strict=True) if kept]
    result = []
    for j, position in enumerate(skeleton[:-1]):
        if position < 0:
            result.append((0, 0, False))
            continue
        wrong = next(n for n, other in enumerate(skeleton[j + 1 :]) if other >= 0)
        missing = skeleton[j + 1 + wrong] - position - 1
        result.append((max(0, missing - wrong), position + 1, wrong == 0))
    return result + [(0, 0, False)] * (len(match) - 1 - len(result))


@settings(deadline=None, max_examples=150)
@given(PAIRS, st.integers(0, 2**30))
def test_the_holes_of_any_skeleton(pairs, seed):
    (draft, length), _, match = aligned(pairs)
    kept = torch.rand(draft.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    kept[:, 0] = True
    keep = kept.scatter(1, length[:, None] - 1, True) & present(length, draft.shape[1])
    hole = holes(match, keep)
    for row in range(len(draft)):
        hole_rows = zip(hole.count[row].tolist(), hole.first[row].tolist(), hole.known[row].tolist(), strict=True)
        assert list(hole_rows) == holes_of_row(match[row].tolist(), keep[row].tolist())


def test_wrong_tokens_occupy_places_of_missing_ones():
    # target places 1-4 are missing between BOS and 5; two wrong tokens stand there
    match = torch.tensor([[0, -1, -1, 5, 6]])
    hole = holes(match, torch.ones(1, 5, dtype=torch.bool))
    assert hole.count.tolist() == [[2, 0, 0, 0]]
    assert hole.known.tolist() == [[False, False, False, True]]
    one_deleted = holes(match, torch.tensor([[True, False, True, True, True]]))
    assert one_deleted.count.tolist() == [[3, 0, 0, 0]]
    both_deleted = holes(match, torch.tensor([[True, False, False, True, True]]))
    assert both_deleted.count.tolist() == [[4, 0, 0, 0]]
    assert both_deleted.first.tolist() == [[1, 6, 0, 0]]
    assert both_deleted.known.tolist() == [[True, True, False, False]]


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(0, 20))
def test_counts_are_cut_from_the_right(count, room):
    expected = []
    for number in count:
        expected.append(min(number, room - sum(expected)))
    assert within(torch.tensor([count]), torch.tensor([room])).tolist() == [expected]


@settings(deadline=None, max_examples=50)
@given(PAIRS)
def test_edit_distance_is_levenshteins_over_the_longer_length(pairs):
    draft, target = (padded(texts, garbage=7) for texts in zip(*pairs, strict=True))
    expected = [distance(a, b) / (max(len(a), len(b)) + 2) for a, b in pairs]
    actual = edit_distance(*draft, *target)
    assert actual.dtype == torch.float32
    assert torch.allclose(actual, torch.tensor(expected))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(6, 30), min_size=1, max_size=9, unique=True), st.data())
def test_of_a_token_that_is_written_several_times_all_but_the_first_are_wrong(text, data):
    place, times = data.draw(st.integers(0, len(text) - 1)), data.draw(st.integers(2, 4))
    _, _, match = aligned([([*text[:place], *[text[place]] * times, *text[place + 1 :]], text)])
    wrong = (match[0] < 0).nonzero().squeeze(1).tolist()
    assert wrong == list(range(place + 2, place + 1 + times))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(6, 30), min_size=2, max_size=9, unique=True), st.data())
def test_of_swapped_tokens_always_the_second_is_wrong(text, data):
    place = data.draw(st.integers(0, len(text) - 2))
    swapped = [*text[:place], text[place + 1], text[place], *text[place + 2 :]]
    _, _, match = aligned([(swapped, text)])
    assert (match[0] < 0).nonzero().squeeze(1).tolist() == [place + 2]


@settings(deadline=None, max_examples=100)
@given(PAIRS)
def test_matches_stand_as_far_left_as_they_can(pairs):
    (draft, _), (target, _), match = aligned(pairs)
    for row, (draft_ids, target_ids) in enumerate(pairs):
        common = draft[row, 1 : len(draft_ids) + 1][match[row, 1 : len(draft_ids) + 1] >= 0].tolist()
        places = (match[row, : len(draft_ids) + 1] >= 0).nonzero().squeeze(1).tolist()[1:]
        for ids, where in ((draft_ids, places), (target_ids, match[row][places].tolist())):
            start = 0
            for token, place in zip(common, where, strict=True):
                start = ids.index(token, start) + 1
                assert place == start
    assert target.shape[0] == len(pairs)
