import random

import pytest
import torch

from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.ops.repeats import FEATURES, REACH, repeats


def features(ids: list[int], width: int | None = None) -> torch.Tensor:
    """[T, FEATURES] of one text without BOS and EOS."""
    row = [BOS_ID, *ids, EOS_ID]
    tokens = torch.tensor([row + [PAD_ID] * ((width or len(row)) - len(row))])
    position = torch.arange(tokens.shape[1])
    inner = (position > 0) & (position < len(row) - 1)
    return repeats(tokens, inner[None])[0]


def by_definition(ids: list[int]) -> torch.Tensor:
    out = torch.zeros(len(ids) + 2, FEATURES)
    for size in range(1, REACH + 1):
        for start in range(len(ids) - 2 * size + 1):
            if ids[start : start + size] == ids[start + size : start + 2 * size]:
                first, second = start + 1, start + 1 + size  # BOS stands in front
                out[second : second + size, size - 1] = 1
                out[first : first + size, REACH + size - 1] = 1
    return out


def test_they_are_what_the_definition_says():
    chance = random.Random(0)
    for _ in range(300):
        ids = [chance.randrange(10, 13) for _ in range(chance.randrange(12))]
        assert torch.equal(features(ids), by_definition(ids)), ids


def test_of_a_doubled_word_of_two_pieces_the_second_two_are_marked():
    assert features([20, 21, 20, 21, 22])[:, 1].tolist() == [0, 0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("size", range(3))
def test_short_texts_repeat_nothing(size):
    assert not features(list(range(10, 10 + size))).any()


def test_padding_changes_nothing():
    ids = [10, 10, 11, 12, 11, 12]
    assert torch.equal(features(ids, 20)[: len(ids) + 2], features(ids))
    assert not features(ids, 20)[len(ids) + 2 :].any()
