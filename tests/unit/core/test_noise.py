import torch

from dualmask.core import noise


def test_draws_depend_on_key_stream_and_step_only():
    key = torch.tensor([3, 9, 27])
    together = noise.uniform(key, "a", 5, 16)
    assert torch.equal(together[1:2], noise.uniform(key[1:2], "a", 5, 16))
    assert torch.equal(together[:, :8], noise.uniform(key, "a", 5, 8))
    assert not torch.equal(together, noise.uniform(key, "b", 5, 16))
    assert not torch.equal(together, noise.uniform(key, "a", 6, 16))


def test_draws_are_uniform_and_uncorrelated():
    draw = noise.uniform(torch.arange(2000), "test", 0, 100)
    assert abs(draw.mean().item() - 0.5) < 0.003
    assert abs(draw.std().item() - 12**-0.5) < 0.003
    assert draw.min() > 0
    assert draw.max() < 1
    neighbours = torch.corrcoef(torch.stack([draw[:-1].flatten(), draw[1:].flatten()]))[0, 1]
    places = torch.corrcoef(torch.stack([draw[:, :-1].flatten(), draw[:, 1:].flatten()]))[0, 1]
    assert abs(neighbours.item()) < 0.01
    assert abs(places.item()) < 0.01


def test_gumbel_has_its_mean_and_variance():
    draw = noise.gumbel(torch.arange(2000), "test", 0, 100)
    assert abs(draw.mean().item() - 0.5772) < 0.01
    assert abs(draw.var().item() - 1.6449) < 0.03
