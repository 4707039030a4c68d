import pytest
import torch

from dualmask.core import noise
from dualmask.ops import estimators

ESTIMATORS = ("straight_through", "gumbel", "hard_concrete")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_forward_is_hard_and_gradient_is_the_relaxed_slope(name):
    logit = torch.linspace(-3, 3, 25, dtype=torch.float64)
    spread = noise.logistic(torch.arange(25), "test", 0).double()
    hard = (logit + spread > 0).double()
    leaf = logit.clone().requires_grad_()
    out = estimators.straight_through(hard, estimators.relaxed_keep(name, leaf, spread, 0.7))
    assert torch.equal(out.detach(), hard)
    out.sum().backward()
    step = 1e-6
    high = estimators.relaxed_keep(name, logit + step, spread, 0.7)
    low = estimators.relaxed_keep(name, logit - step, spread, 0.7)
    assert torch.allclose(leaf.grad, (high - low) / (2 * step), atol=1e-6)


def test_hard_concrete_reaches_both_ends():
    value = estimators.relaxed_keep("hard_concrete", torch.tensor([-9.0, 0.0, 9.0]), torch.zeros(3), 0.5)
    assert value.tolist() == pytest.approx([0.0, 0.5, 1.0])


def test_calibration_gives_the_asked_mean_over_the_right_tokens():
    logit = torch.randn(8, 30, generator=torch.Generator().manual_seed(1)) * 4
    where = torch.arange(30) < torch.arange(5, 21, 2)[:, None]
    mean = torch.linspace(0.05, 0.95, 8)
    offset = estimators.calibrate(logit, where, mean)
    got = (torch.sigmoid(offset + logit) * where).sum(1) / where.sum(1)
    assert torch.allclose(got, mean, atol=1e-4)
