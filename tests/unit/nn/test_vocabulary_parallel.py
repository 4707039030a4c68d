"""What is said of a whole vocabulary, against torch. That tensor-parallel ranks say the same: tests/distributed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dualmask.core.tokenizer import EOS_ID, MASK_ID, PRED_ID
from dualmask.nn.parallel import mesh
from dualmask.nn.parallel.vocabulary import cross_entropy, entropy, log_normaliser, top_logits


@pytest.fixture
def logits() -> Tensor:
    mesh.single_process()
    draw = torch.Generator().manual_seed(0)
    return torch.randn(9, 40, generator=draw) * torch.tensor([0.0, 1e-3, 1, 5, 50, 500, 5000, 1, 1])[:, None] + 3


def test_entropy_and_its_gradient(logits: Tensor) -> None:
    logits.requires_grad_()
    actual, expected = entropy(logits), torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-5)
    weight = torch.arange(1.0, 10.0)
    (slope,) = torch.autograd.grad((actual * weight).sum(), [logits])
    (expected_slope,) = torch.autograd.grad((expected * weight).sum(), [logits])
    torch.testing.assert_close(slope, expected_slope, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy_and_its_gradient(logits: Tensor, dtype: torch.dtype) -> None:
    logits = logits.to(dtype).requires_grad_()
    target, weight = torch.arange(9) * 4, torch.arange(9.0) - 2
    actual, reference = (
        cross_entropy(logits, target),
        torch.nn.functional.cross_entropy(logits.float(), target, reduction="none"),
    )
    assert torch.equal(actual, reference)
    (actual,), (reference,) = (torch.autograd.grad((nats * weight).sum(), [logits]) for nats in (actual, reference))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual, reference, rtol=1e-5, atol=1e-6)


def test_log_normaliser(logits: Tensor) -> None:
    torch.testing.assert_close(log_normaliser(logits), logits.logsumexp(-1))
    assert log_normaliser(logits.bfloat16()).dtype == entropy(logits.bfloat16()).dtype == torch.float32


def test_top_logits_leave_out_what_is_refused(logits: Tensor) -> None:
    logits[:, [0, MASK_ID, PRED_ID, 39]] = 1e6
    value, token = top_logits(logits, 50, range(EOS_ID, 39), refused=(MASK_ID, PRED_ID))
    able = [EOS_ID, *range(PRED_ID + 1, 39)]
    assert torch.equal(value[:, : len(able)], logits[:, able].sort(descending=True).values)
    assert set(token[:, : len(able)].unique().tolist()) == set(able)
    assert torch.isinf(value[:, len(able) :]).all()
