"""What a temperature draws from, in closed form, on evenly spread numbers in the place of noise."""

import pytest
import torch

from speechlvm.distributions.bivariate import BernoulliBivariate
from speechlvm.distributions.categorical import Categorical
from speechlvm.distributions.dmol import DiscretizedLogisticMixture
from speechlvm.distributions.gaussian import Gaussian, GaussianMixture

TEMPERATURES = [0.25, 0.5, 1.0, 2.0]
COUNT = 20_000


def grid(*others):
    """(COUNT, 1 + len(others)): evenly spread numbers in (0, 1), and constants beside them."""
    constants = (torch.full((COUNT,), other).double() for other in others)
    return torch.stack([(torch.arange(COUNT).double() + 0.5) / COUNT, *constants], -1)


def sharpened(p, temperature):
    q = p ** (1 / temperature)
    return q / q.sum()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_categorical(temperature):
    p = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    codes = Categorical(3).sample(p.log().expand(COUNT, -1), grid(), temperature)
    found = codes.flatten().bincount().double() / COUNT
    torch.testing.assert_close(found, sharpened(p, temperature), rtol=0, atol=2e-4)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gaussian_and_its_floor(temperature):
    distribution = Gaussian(1, minimum_std=0.3)
    parameters = torch.tensor([2.0, torch.tensor(0.4).log()], dtype=torch.float64).expand(COUNT, -1)
    x = distribution.sample(parameters, grid(), temperature)
    assert x.mean() == pytest.approx(2.0, abs=1e-6)
    assert x.std() == pytest.approx(0.5 * temperature, rel=1e-3)  # 0.3^2 + 0.4^2, the floor within


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_mixture_of_gaussians(temperature):
    p = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    distribution = GaussianMixture(3, 1, minimum_std=0.0)
    parameters = torch.cat([p.log(), torch.tensor([-50.0, 0.0, 50.0]), torch.tensor([0.5, 1.0, 2.0]).log()])
    parameters = parameters.expand(COUNT, -1)
    x = distribution.sample(parameters, grid(0.5), temperature)  # at the medians: which component it is
    found = torch.stack([(x == place).double().mean() for place in (-50, 0, 50)])
    torch.testing.assert_close(found, sharpened(p, temperature), rtol=0, atol=2e-4)
    x = distribution.sample(parameters, grid(0.5).flip(-1), temperature)  # places of the middle component
    assert x.std() == pytest.approx(temperature, rel=1e-3)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_mixture_of_logistics(temperature):
    distribution = DiscretizedLogisticMixture(torch.linspace(-100, 100, 200_001), components=2)
    p = torch.tensor([0.3, 0.7], dtype=torch.float64)
    parameters = torch.cat([p.log(), torch.tensor([-60.0, 10.0]), torch.tensor([0.1, 2.0]).log()]).expand(COUNT, -1)
    low = distribution.sample(parameters, grid(0.5), temperature) < 100_000
    assert low.double().mean() == pytest.approx(sharpened(p, temperature)[0].item(), abs=2e-4)
    code = distribution.sample(parameters, grid(0.99).flip(-1), temperature)  # all of the second component
    quantiles = [torch.quantile(code.double() / 1000 - 100, q).item() for q in (0.25, 0.5, 0.75)]
    expected = torch.logit(torch.tensor([0.25, 0.5, 0.75])) * 2.0 * temperature + 10  # of a logistic of scale 2
    assert quantiles == pytest.approx(expected.tolist(), abs=5e-3)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_pen_and_offset(temperature):
    distribution = BernoulliBivariate(1, minimum_std=0.0)
    pen = torch.tensor(0.8).logit()
    parameters = torch.tensor([pen, 0.0, 3.0, -1.0, 0.0, 0.0, 0.9], dtype=torch.float64).expand(COUNT, -1)
    lifted = distribution.sample(parameters, grid(0.5, 0.5, 0.5), temperature)[:, 0]
    share = sharpened(torch.tensor([0.8, 0.2], dtype=torch.float64), temperature)[0]
    assert lifted.mean() == pytest.approx(share.item(), abs=2e-4)
    noise = torch.rand(COUNT, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    warm, plain = (distribution.sample(parameters, noise, t)[:, 1:] for t in (temperature, 1.0))
    centre = torch.tensor([3.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(warm - centre, temperature * (plain - centre))
    assert (plain - centre).std(0).tolist() == pytest.approx([1.0, 1.0], rel=0.02)


@pytest.mark.parametrize(
    "distribution",
    [
        Categorical(5),
        Gaussian(2),
        GaussianMixture(4, 2),
        DiscretizedLogisticMixture(torch.linspace(-1, 1, 65), 3),
        BernoulliBivariate(3),
    ],
    ids=lambda distribution: type(distribution).__name__,
)
def test_one_temperature_for_each_row_and_none_at_one(distribution):
    generator = torch.Generator().manual_seed(5)
    parameters = torch.randn(3, 50, distribution.parameter_size, generator=generator)
    noise = torch.rand(3, 50, distribution.noise_size, generator=generator)
    rows = torch.tensor([0.5, 1.0, 1e-6]).view(3, 1, 1)
    drawn = distribution.sample(parameters, noise, rows)
    assert torch.equal(drawn[0], distribution.sample(parameters[0], noise[0], 0.5))
    assert torch.equal(drawn[1], distribution.sample(parameters[1], noise[1]))
    assert not torch.equal(drawn[0], distribution.sample(parameters[0], noise[0]))
    torch.testing.assert_close(drawn[2], distribution.mode(parameters[2]), rtol=0, atol=2e-4)
