"""Verified spans: the text of the decoder alone, to the last token, whatever is drafted and whoever else is written."""

from __future__ import annotations

import pytest
import torch
from tiny_span import VOCAB, make_model

from dualmask.core.sampling import GREEDY, SamplingParams
from dualmask.core.tokenizer import EOS_ID, PRED_ID, SPECIAL_IDS
from dualmask.families.span import verified
from dualmask.inference import autoregressive
from dualmask.nn import branches
from dualmask.nn.branches import Branches
from dualmask.nn.cache import KVCache

TOKENS = 14


@pytest.fixture(scope="module")
def model():
    return make_model().eval()


@pytest.fixture(scope="module")
def prompts():
    draw = torch.Generator().manual_seed(4)
    lengths = torch.randint(0, 5, (16,), generator=draw).tolist()
    return [torch.randint(6, VOCAB, (length,), generator=draw).tolist() for length in lengths]


def draws(number, temperature):
    return [SamplingParams(temperature=temperature, top_p=0.95, seed=seed) for seed in range(number)]


@pytest.mark.parametrize("span", [1, 2, 4, 8])
@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0])
def test_the_text_is_that_of_the_decoder_token_by_token(model, prompts, span, temperature):
    sampling = draws(len(prompts), temperature)
    expected = autoregressive.write(model, prompts, tokens=TOKENS, sampling=sampling)
    together = verified.write(model, prompts, tokens=TOKENS, span=span, sampling=sampling)
    assert [each.ids for each in together] == expected
    alone = [
        verified.write(model, [prompt], tokens=TOKENS, span=span, sampling=[one])[0]
        for prompt, one in zip(prompts, sampling, strict=True)
    ]
    assert [each.ids for each in alone] == expected


@pytest.mark.parametrize("span", [3, 8])
@pytest.mark.parametrize("right", [0.3, 0.8, 1.0])
def test_right_drafts_are_accepted_and_wrong_ones_refused(model, prompts, monkeypatch, span, right):
    """Drafts are the true continuation, but each token of it is another one with probability 1 - ``right``."""
    expected = autoregressive.write(model, prompts, tokens=40, least=40, sampling=[GREEDY] * len(prompts))
    whole = verified._Texts.draft
    draw = torch.Generator().manual_seed(0)

    def draft(texts, certain, states, rules):
        nats = whole(texts, certain, states, rules)
        for row, text in enumerate(texts.sampling.seed.tolist()):
            place = int(texts.number[row]) + 1
            for number, token in enumerate(expected[text][place : place + span - 1], 1):
                good = torch.rand((), generator=draw) < right
                texts.chain[row, number] = token if good else 6 + (token - 5) % (VOCAB - 6)
        return nats

    monkeypatch.setattr(verified._Texts, "draft", draft)
    numbered = [SamplingParams(temperature=0.0, seed=number) for number in range(len(prompts))]
    written = verified.write(model, prompts, tokens=40, span=span, least=40, sampling=numbered)
    assert [each.ids for each in written] == expected
    passes = [len(each.spans) for each in written]
    if right == 1.0:
        assert set(passes) == {1 + -(-39 // span)}
    else:
        assert max(passes) < 41
        assert min(passes) > 1 + 39 // span


def test_texts_end_where_the_decoder_ends_them_and_not_before_the_least(model, prompts):
    sampling = draws(len(prompts), 1.0)
    for least in (0, 5, TOKENS):
        expected = autoregressive.write(model, prompts, tokens=TOKENS, least=least, sampling=sampling)
        written = verified.write(model, prompts, tokens=TOKENS, span=4, least=least, sampling=sampling)
        assert [each.ids for each in written] == expected
        assert all(len(ids) >= least for ids in expected)


def test_only_what_is_allowed_is_written(model, prompts):
    allowed = torch.zeros(VOCAB, dtype=torch.bool)
    allowed[10:20] = True
    written = verified.write(model, prompts, tokens=9, span=4, sampling=draws(len(prompts), 1.0), allowed=allowed)
    assert {token for each in written for token in each.ids} <= set(range(10, 20))


def test_each_pass_says_what_it_made_certain(model, prompts):
    for each in verified.write(model, prompts, tokens=9, span=4, least=9, sampling=[GREEDY] * len(prompts)):
        sizes = [len(span.confidence) for span in each.spans]
        assert sum(sizes) == 9
        assert [span.position for span in each.spans] == [sum(sizes[:number]) for number in range(len(sizes))]
        assert all(0 < value <= 1 for span in each.spans for value in span.confidence)


def test_nothing_to_write(model):
    assert verified.write(model, [], tokens=4, span=4, sampling=[]) == []
    assert verified.write(model, [[7]], tokens=0, span=4, sampling=[GREEDY])[0].ids == []


def test_a_branch_reads_what_it_would_read_in_a_row(model, prompts):
    """States of a chain and its branches in one pass against a pass for each branch."""
    prompt = torch.tensor([[1, *range(8, 14)], [1, *range(20, 26)]])
    chain = torch.tensor([[30, 31, 32], [40, 41, 42]])
    separate = []
    for text, link in zip(prompt.tolist(), chain.tolist(), strict=True):
        for end in range(1, 4):
            row = torch.tensor([[*text, *link[:end], *[PRED_ID] * 2]])
            place = torch.arange(row.shape[1])[None].float()
            separate.append(model.decoder(model.table(row), place, torch.ones_like(row, dtype=torch.bool))[0, -2:])
    for row, text in enumerate(prompt.tolist()):
        one = KVCache(model.depth, 40)
        tokens = torch.tensor([text])
        place = torch.arange(len(text))[None].float()
        model.decoder(model.table(tokens), place, torch.ones_like(tokens, dtype=torch.bool), one)
        present = torch.ones_like(tokens, dtype=torch.bool)
        new = torch.cat([chain[row], torch.full((6,), PRED_ID)])[None]
        layout = Branches.behind(present, 3, 2, 4)
        where = branches.positions(present.sum(1), 3, 2)
        states = model.decoder(model.table(new), where, torch.ones_like(new), one, layout=layout)
        for end in range(3):
            torch.testing.assert_close(states[0, 3 + 2 * end : 5 + 2 * end], separate[3 * row + end])


def test_special_tokens_are_never_written(model, prompts):
    written = verified.write(model, prompts, tokens=TOKENS, span=4, sampling=draws(len(prompts), 1.5))
    assert not {token for each in written for token in each.ids} & (set(SPECIAL_IDS) - {EOS_ID})
