"""The mixture around experts: masses over all codes, its cdf, its samples."""

import math

import numpy as np
import pytest
import torch

from speechlvm.distributions.experts import ExpertMixture

CODES = torch.arange(65536)


def mixture(components=3):
    return ExpertMixture(65536, components, 4, 2, (4, 8), (0.5, 2.0), 1e-6)


def parameters(predictions, scale, seed=0):
    """(1, P) of a mixture whose network says anything."""
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(mixture().parameter_size, generator=generator)
    weights = torch.rand(4, generator=generator, dtype=torch.float64) + 0.01
    known = torch.tensor([*predictions, scale], dtype=torch.float64)
    return torch.cat([outputs.double(), known, weights / weights.sum()])[None]


NEAR, FAR = (100.25, 90.0, -3.5, 120.0), (-40000.0, 90000.0, 0.0, 32767.0)


@pytest.mark.parametrize(("predictions", "scale"), [(NEAR, 0.225), (NEAR, 30.0), (FAR, 4000.0)])
def test_masses_sum_to_one_and_are_those_of_the_cdf(predictions, scale):
    given = parameters(predictions, scale)
    masses = mixture().log_prob(given.expand(len(CODES), -1), CODES[:, None]).exp()
    assert abs(float(masses.sum()) - 1) < 1e-9 and masses.min() > 0
    cdf = mixture().cdf(given.expand(len(CODES) - 1, -1).numpy())(CODES[1:].numpy())
    np.testing.assert_allclose(np.diff([0.0, *cdf, 1.0]), masses, atol=1e-14)


def test_known_masses():
    """Of one logistic, and of m alone; two of its components are as wide as a uniform distribution is long."""
    given = parameters(NEAR, 2.0)
    given[0, :10] = torch.tensor([-800.0, 0.0, 900.0, 0.0, 0.0, 0.5, 0.0, 0.0, math.log(3.0), 0.0])
    a, b = ((100 + side - (90.0 + 0.5 * 2.0)) / 6.0 for side in (0.5, -0.5))
    expected = 1 / (1 + math.exp(-a)) - 1 / (1 + math.exp(-b))
    target = torch.tensor([[100 + 32768]])
    assert float(mixture().log_prob(given, target).exp()) == pytest.approx(expected, rel=1e-9)
    given[0, 0] = 800.0
    given[0, -4:] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    x = torch.distributions.StudentT(4.0).log_prob(torch.tensor((100 - 100.25) / 1.0)).exp()
    assert float(mixture().log_prob(given, target).exp()) == pytest.approx(float(x), rel=0.05)


def test_samples_have_the_masses_and_the_temperature_that_were_asked_for():
    given = parameters(NEAR, 3.0)
    uniform = (torch.arange(20000) + 0.5)[:, None] / 20000
    drawn = mixture().sample(given.expand(20000, -1), uniform)[:, 0]
    assert (drawn.diff() >= 0).all()
    counts = torch.bincount(drawn, minlength=65536) / 20000
    masses = mixture().log_prob(given.expand(len(CODES), -1), CODES[:, None]).exp()
    assert (counts - masses).abs().max() < 1e-4
    assert int(mixture().mode(given)) == int(drawn[10000])
    cold = mixture().sample(given.expand(20000, -1), uniform, temperature=0.01)[:, 0]
    assert len(cold.unique()) < 5 and len(drawn.unique()) > 50


def test_the_gradient_is_that_of_the_masses():
    given = parameters(NEAR, 5.0)
    known, code = given[:, mixture().parameter_size :], torch.tensor([32768 + 104])

    def log_prob(outputs):
        mass = torch.tensor([math.log(0.01)], dtype=torch.float64)
        return mixture().log_prob_beside(outputs, known[:, :4], known[:, 4], mass, code)

    outputs = given[:, : mixture().parameter_size].clone().requires_grad_()
    assert torch.autograd.gradcheck(log_prob, outputs)
