"""Bernoulli and bivariate mixture against torch.distributions, integrals, their own samples, and known mixtures."""

import math

import pytest
import torch
from torch import distributions as td

from speechlvm.distributions.bivariate import MAX_CORRELATION, BernoulliBivariate
from speechlvm.distributions.gaussian import MAX_LOG_STD, MIN_LOG_STD, GaussianMixture

CASES = [(1, 0.3, True), (3, 0.2, True), (3, 0.2, False), (2, 0.0, True)]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(parameters, components, floor, correlated):
    """The pen's Bernoulli and the offset's mixture, built from covariance matrices."""
    pen, logits, means, raw, *twist = parameters.split(
        [1, components, 2 * components, 2 * components] + [components] * correlated, -1
    )
    std = raw.unflatten(-1, (components, 2)).exp()
    rho = MAX_CORRELATION * torch.tanh(twist[0]) if twist else torch.zeros_like(logits)
    covariance = torch.diag_embed(std.square() + floor**2)
    covariance[..., 0, 1] = covariance[..., 1, 0] = rho * std.prod(-1)
    offset = td.MultivariateNormal(means.unflatten(-1, (components, 2)), covariance)
    return td.Bernoulli(logits=pen.squeeze(-1)), td.MixtureSameFamily(td.Categorical(logits=logits), offset)


def events(*shape, seed=1):
    target = random(*shape, 3, seed=seed)
    target[..., 0] = (target[..., 0] > 0).to(target.dtype)
    return target


@pytest.mark.parametrize(("components", "floor", "correlated"), CASES)
def test_log_prob(components, floor, correlated):
    distribution = BernoulliBivariate(components, floor, correlated)
    parameters, target = random(6, 5, distribution.parameter_size), events(6, 5)
    pen, offset = reference(parameters, components, floor, correlated)
    expected = pen.log_prob(target[..., 0]) + offset.log_prob(target[..., 1:])
    torch.testing.assert_close(distribution.log_prob(parameters, target), expected)


def test_without_correlation_the_offset_has_a_diagonal_mixture():
    distribution, diagonal = BernoulliBivariate(4, 0.1, False), GaussianMixture(4, 2, 0.1)
    parameters, target = random(7, distribution.parameter_size), events(7)
    expected = diagonal.log_prob(parameters[:, 1:], target[:, 1:]) + reference(parameters, 4, 0.1, False)[0].log_prob(
        target[:, 0]
    )
    torch.testing.assert_close(distribution.log_prob(parameters, target), expected)


@pytest.mark.parametrize(("components", "floor", "correlated"), CASES[:3])
def test_samples_and_density_belong_together(components, floor, correlated):
    """Total probability, cross-entropy and moments of samples, against sums over pen states and a grid of offsets."""
    distribution = BernoulliBivariate(components, floor, correlated)
    parameters = 0.6 * random(distribution.parameter_size, seed=3)
    draws = distribution.draw(parameters.expand(100_000, -1), torch.Generator().manual_seed(2))
    assert draws.shape == (100_000, 3) and set(draws[:, 0].tolist()) == {0.0, 1.0}
    line = torch.linspace(-18, 18, 801, dtype=torch.float64)
    offsets, cell = torch.cartesian_prod(line, line), (line[1] - line[0]) ** 2
    total, entropy, mean, second = 0.0, 0.0, torch.zeros(3), torch.zeros(3, 3)
    for pen in (0.0, 1.0):
        target = torch.cat([torch.full((len(offsets), 1), pen, dtype=torch.float64), offsets], -1)
        log_prob = distribution.log_prob(parameters.expand(len(target), -1), target)
        mass = log_prob.exp() * cell
        total = total + mass.sum()
        entropy = entropy - (mass * log_prob).sum()
        mean = mean + mass @ target
        second = second + (mass[:, None] * target).t() @ target
    assert total.item() == pytest.approx(1.0, abs=1e-6)
    sampled = -distribution.log_prob(parameters.expand(100_000, -1), draws)
    assert (sampled.mean() - entropy).abs() < 4.5 * sampled.std() / math.sqrt(100_000)
    assert ((draws.mean(0) - mean).abs() < 4.5 * draws.std(0) / math.sqrt(100_000)).all()
    products = draws[:, :, None] * draws[:, None, :]
    assert ((products.mean(0) - second).abs() < 4.5 * products.std(0) / math.sqrt(100_000)).all()


@pytest.mark.parametrize("floor", [0.01, 0.0])
def test_the_density_is_bounded_in_every_direction(floor):
    """At the mean of two equal deviations with the strongest correlation, the thinnest line there is."""
    distribution = BernoulliBivariate(1, floor)
    widths = torch.linspace(MIN_LOG_STD - 5, MAX_LOG_STD, 200, dtype=torch.float64)
    parameters = torch.zeros(200, 7, dtype=torch.float64)
    parameters[:, 0], parameters[:, 4], parameters[:, 5], parameters[:, 6] = 1e4, widths, widths, 1e4
    target = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(200, -1)
    largest = distribution.log_prob(parameters, target).max().item()
    if floor:
        assert largest == pytest.approx(-math.log(2 * math.pi) - 2 * math.log(floor), abs=1e-6)
    else:
        thinnest = -math.log(2 * math.pi) - 2 * MIN_LOG_STD - 0.5 * math.log(1 - MAX_CORRELATION**2)
        assert largest == pytest.approx(thinnest, abs=1e-6)


def test_a_strong_correlation_is_computed_exactly_in_float32():
    distribution = BernoulliBivariate(1, 0.001)
    parameters = torch.tensor([0.3, 0.0, 0.5, -0.2, 0.1, -0.3, 4.0])
    target = torch.tensor([[1.0, 1.4, 0.4], [0.0, 0.5, -0.2], [0.0, 1.0, 3.0]])
    exact = distribution.log_prob(parameters.double().expand(3, -1), target.double())
    found = distribution.log_prob(parameters.expand(3, -1), target)
    torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("floor", [0.0, 0.01])
@pytest.mark.parametrize("correlated", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_finite_at_extremes(floor, correlated, dtype):
    distribution = BernoulliBivariate(2, floor, correlated)
    extremes = torch.tensor([-1e4, -40.0, 0.0, 40.0, 1e4], dtype=dtype)
    choice = torch.randint(5, (2000, distribution.parameter_size), generator=torch.Generator().manual_seed(0))
    parameters = extremes[choice].requires_grad_()
    target = events(2000).to(dtype) * torch.tensor([1.0, 100.0, 100.0], dtype=dtype)
    log_prob = distribution.log_prob(parameters, target)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all() and torch.isfinite(parameters.grad).all()
    assert torch.isfinite(distribution.draw(parameters.detach())).all()


def test_gradients_are_those_of_finite_differences():
    distribution = BernoulliBivariate(2, 0.1)
    parameters, target = random(5, distribution.parameter_size).requires_grad_(), events(5)
    assert torch.autograd.gradcheck(lambda p: distribution.log_prob(p, target), (parameters,))


def test_mode():
    distribution = BernoulliBivariate(2, 0.1)
    parameters = torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0] + [0.0] * 6)
    assert distribution.mode(parameters).tolist() == [1.0, 5.0, 6.0]
    parameters[0] = -0.5
    assert distribution.mode(parameters)[0] == 0.0


@pytest.mark.parametrize("correlated", [True, False])
def test_starts_at_a_known_mixture(correlated):
    """20 000 draws of two components are fitted as well as by their truth, and its parameters are found again."""
    truth = BernoulliBivariate(2, 0.05, correlated)
    parts = [-1.5, math.log(0.7), math.log(0.3), -1.0, 1.0, 1.0, 0.0, -1.0, 0.0, -0.5, -1.0] + [1.2, -0.4] * correlated
    parameters = torch.tensor(parts, dtype=torch.float64)
    draws = truth.draw(parameters.expand(20_000, -1), torch.Generator().manual_seed(1))
    bias = truth.initial_bias(draws, torch.ones(len(draws), dtype=torch.int64))
    best = -truth.log_prob(parameters.expand(20_000, -1), draws).mean()
    assert -truth.log_prob(bias, draws).mean() < best + 1e-4
    found = bias[:1], bias[1:3].softmax(0), bias[3:7], bias[7:11], bias[11:]
    wanted = parameters[:1], parameters[1:3].softmax(0), parameters[3:7], parameters[7:11], parameters[11:]
    for part, value in zip(found, wanted, strict=True):
        torch.testing.assert_close(part, value, rtol=0, atol=0.08)


def test_weights_count_as_repetitions():
    distribution = BernoulliBivariate(1, 0.1)
    targets = torch.tensor([[0.0, 1.0, 2.0], [1.0, 4.0, 3.0], [0.0, -1.0, 0.0], [1.0, 9.0, 9.0]])
    bias = distribution.initial_bias(targets, torch.tensor([2, 1, 1, 0]))
    repeated = distribution.initial_bias(targets[[0, 0, 1, 2]], torch.ones(4))
    torch.testing.assert_close(bias, repeated)
    assert torch.sigmoid(bias[0]).item() == pytest.approx(0.25)
    assert bias[2:4].tolist() == pytest.approx([1.25, 1.75])


def test_a_constant_training_set_can_be_fitted():
    targets = torch.tensor([[0.0, 0.5, 0.5]])
    for distribution in (BernoulliBivariate(1), BernoulliBivariate(3), BernoulliBivariate(3, 0.0, False)):
        bias = distribution.initial_bias(targets, torch.tensor([10]))
        assert torch.isfinite(bias).all()
        assert distribution.log_prob(bias, targets[0].double()) > 6.0
