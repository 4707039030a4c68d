"""Stage ``draft``: what it teaches is what the decoder would write, and drafts are accepted the more for it."""

from __future__ import annotations

import pytest
import torch
from stages import make_stage
from tiny_span import SPAN, VOCAB, make_model, make_texts

from dualmask.core.sampling import GREEDY
from dualmask.core.tokenizer import EOS_ID
from dualmask.curriculum import plan_at
from dualmask.families.span import spans, verified
from dualmask.families.span.config import DraftStage
from dualmask.families.span.drafts import continuation, draft_loss
from dualmask.inference import autoregressive


def draft_plan(step=0, **draft):
    section = {"lengths": [SPAN]} | draft
    train = ["decoder", "encoder"]
    stage = make_stage({"name": "draft", "steps": 500, "train": train, "lr": {"peak": 1e-3}, "draft": section})
    assert isinstance(stage, DraftStage)
    return plan_at([stage], step)


def test_the_continuation_is_that_of_the_decoder_token_by_token():
    model, batch = make_model().eval(), make_texts(6)
    cut = spans.cut(batch, 1, SPAN)
    ours = continuation(model, batch, cut, model(batch)[1]).tolist()
    prompts = [row[1:length].tolist() for row, length in zip(batch.tokens, cut.prompt_length, strict=True)]
    written = autoregressive.write(model, prompts, tokens=SPAN, sampling=[GREEDY] * len(prompts))
    assert len({tuple(text) for text in written}) > 1
    for row, text in zip(ours, written, strict=True):
        assert row == [*text, *[EOS_ID] * (SPAN - len(text))]


@pytest.mark.parametrize(("own", "same"), [(1.0, False), (0.0, True)])
def test_spans_learn_the_decoders_own_text_or_the_true_one(own, same):
    """With the text as target another decoder's opinion changes nothing in which targets there are."""
    model, batch = make_model(), make_texts(6)
    cut = spans.cut(batch, 0, SPAN)
    ours = continuation(model, batch, cut, model(batch)[1])
    assert (ours != cut.target).any()
    behind = model(batch)[1].up_to(cut.prompt_length, 4)
    look = model.look(model.begin(*ours.shape), cut.position, behind)
    target = cut.target if same else ours
    nats = torch.nn.functional.cross_entropy(look.logits, target.flatten(), reduction="none").view_as(target)
    weight = 0.9 ** torch.arange(SPAN)
    expected = (nats * weight / weight.sum()).sum(1).mean()
    parts = draft_loss(model, batch, draft_plan(own=own, spans=1)).parts
    assert float(parts["token"]) == pytest.approx(float(expected), rel=1e-4)


def test_learning_drafts_saves_passes_and_changes_no_text_of_the_decoder():
    torch.manual_seed(0)
    model, batch = make_model(), make_texts(12)
    for parameter in (*model.table.parameters(), *model.decoder.parameters()):
        parameter.requires_grad_(False)  # its text is the same before and after
    prompts = [row[1:3].tolist() for row in batch.tokens]

    def passes():
        model.eval()
        written = verified.write(model, prompts, tokens=12, span=SPAN, least=12, sampling=[GREEDY] * len(prompts))
        model.train()
        return sum(len(each.spans) for each in written), [each.ids for each in written]

    before, text = passes()
    learning = torch.optim.Adam(model.encoder.parameters(), lr=3e-3)
    for step in range(120):
        loss = draft_loss(model, batch, draft_plan(step, losses={"ar": 0, "pred": 0}))
        learning.zero_grad()
        loss.total.backward()
        learning.step()
    after, same = passes()
    assert same == text
    assert after < 0.9 * before
    assert float(loss.parts["tokens_a_pass"]) > 1.3


def test_every_trained_part_gets_a_gradient():
    model, batch = make_model(), make_texts(6)
    draft_loss(model, batch, draft_plan()).total.backward()
    parts = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {"table", "decoder", "encoder"} <= parts
    assert model.vocab_size == VOCAB
