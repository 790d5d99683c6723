"""Gaussian and Gaussian mixture against torch.distributions and their own samples."""

import math

import pytest
import torch
from torch import distributions as td

from speechlvm.distributions.gaussian import Gaussian, GaussianMixture


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("floor", [0.0, 0.01, 0.5])
def test_gaussian_log_prob(floor):
    parameters, target = random(6, 5, 4), random(6, 5, 2, seed=1)
    mean, raw = parameters.chunk(2, -1)
    std = (floor**2 + (2 * raw).exp()).sqrt()
    expected = td.Independent(td.Normal(mean, std), 1).log_prob(target)
    torch.testing.assert_close(Gaussian(2, floor).log_prob(parameters, target), expected)


def test_the_floor_bounds_the_density():
    parameters = torch.tensor([0.3, -40.0])
    log_prob = Gaussian(1, 0.01).log_prob(parameters, torch.tensor([0.3]))
    assert log_prob.item() == pytest.approx(-math.log(0.01) - 0.5 * math.log(2 * math.pi), abs=1e-5)


def mixture_reference(parameters, components, dim, floor):
    logits, means, raw = parameters.split([components, components * dim, components * dim], -1)
    stds = (floor**2 + (2 * raw).exp()).sqrt()
    shape = (components, dim)
    normal = td.Independent(td.Normal(means.unflatten(-1, shape), stds.unflatten(-1, shape)), 1)
    return td.MixtureSameFamily(td.Categorical(logits=logits), normal)


@pytest.mark.parametrize("dim", [1, 3])
def test_mixture_log_prob(dim):
    distribution = GaussianMixture(4, dim, 0.1)
    parameters, target = random(7, distribution.parameter_size), random(7, dim, seed=1)
    expected = mixture_reference(parameters, 4, dim, 0.1).log_prob(target)
    torch.testing.assert_close(distribution.log_prob(parameters, target), expected)


@pytest.mark.parametrize("distribution", [Gaussian(2, 0.1), GaussianMixture(3, 2, 0.1)])
def test_samples_have_the_cross_entropy_of_the_density(distribution):
    """E[-log p(x)] over its own samples, against an integral over a grid."""
    parameters = 0.5 * random(distribution.parameter_size)
    draws = distribution.draw(parameters.expand(100_000, -1), torch.Generator().manual_seed(2))
    assert draws.shape == (100_000, 2)
    line = torch.linspace(-9, 9, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    log_prob = distribution.log_prob(parameters.expand(len(grid), -1), grid)
    cell = (line[1] - line[0]) ** 2
    assert (log_prob.exp().sum() * cell).item() == pytest.approx(1.0, abs=1e-6)
    entropy = -(log_prob.exp() * log_prob).sum() * cell
    sampled = -distribution.log_prob(parameters.expand(100_000, -1), draws)
    assert (sampled.mean() - entropy).abs() < 4.5 * sampled.std() / math.sqrt(100_000)
    mean = (log_prob.exp()[:, None] * grid).sum(0) * cell
    assert ((draws.mean(0) - mean).abs() < 4.5 * draws.std(0) / math.sqrt(100_000)).all()


def test_modes():
    assert Gaussian(2).mode(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [1.0, 2.0]
    parameters = torch.tensor([0.0, 1.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0])
    assert GaussianMixture(2, 2).mode(parameters).tolist() == [3.0, 4.0]


def test_gaussian_starts_at_the_moments():
    targets, weights = torch.tensor([[1.0], [2.0], [4.0], [9.0]]), torch.tensor([2, 1, 1, 0])
    bias = Gaussian(1, 0.5).initial_bias(targets, weights)
    assert bias[0].item() == pytest.approx(2.0)
    assert 0.25 + math.exp(2 * bias[1]) == pytest.approx(1.5)


def test_mixture_starts_at_the_marginal():
    generator = torch.Generator().manual_seed(0)
    targets = torch.cat(
        [torch.randn(6000, 1, generator=generator) * 0.2 - 1, torch.randn(4000, 1, generator=generator)]
    )
    distribution = GaussianMixture(4, 1, 0.01)
    bias = distribution.initial_bias(targets, torch.ones(10_000, dtype=torch.int64))
    truth = torch.tensor([math.log(0.6), math.log(0.4), -1.0, 0.0, math.log(0.2), 0.0], dtype=torch.float64)
    truth = mixture_reference(truth, 2, 1, 0.0)
    best = -truth.log_prob(targets.double()).mean()
    assert -distribution.log_prob(bias.expand(10_000, -1), targets.double()).mean() < best + 0.005


def test_a_constant_training_set_can_be_fitted():
    targets, weights = torch.full((1, 1), 0.5), torch.tensor([10])
    for distribution in (Gaussian(), GaussianMixture(3)):
        bias = distribution.initial_bias(targets, weights)
        assert torch.isfinite(bias).all()
        assert distribution.log_prob(bias, targets[0].double()) > 3.0
