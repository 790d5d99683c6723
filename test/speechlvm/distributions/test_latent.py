"""Diagonal Gaussian of latents against torch.distributions, sampling and integration."""

import math

import pytest
import torch
from torch import distributions as td

from speechlvm.distributions.latent import (
    MINIMUM_STD,
    DiagonalGaussian,
    kl,
    positive_std,
    precision_weighted,
    residual,
)


def gaussian(seed):
    generator = torch.Generator().manual_seed(seed)
    return DiagonalGaussian.from_raw(torch.randn(4, 10, generator=generator, dtype=torch.float64))


def test_density_and_kl():
    q, p = gaussian(0), gaussian(1)
    z = q.sample(torch.randn(4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    torch.testing.assert_close(q.log_prob(z), td.Normal(q.mean, q.std).log_prob(z))
    expected = td.kl_divergence(td.Normal(q.mean, q.std), td.Normal(p.mean, p.std))
    torch.testing.assert_close(kl(q, p), expected)
    assert torch.equal(kl(q, q), torch.zeros(4, 5, dtype=torch.float64))


def test_kl_is_the_mean_log_ratio_of_samples():
    q, p = gaussian(0), gaussian(1)
    z = q.sample(torch.randn(50_000, 4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    ratio = q.log_prob(z) - p.log_prob(z)
    assert ((ratio.mean(0) - kl(q, p)).abs() < 4.5 * ratio.std(0) / math.sqrt(50_000)).all()


def test_std_is_one_at_zero_and_never_below_the_floor():
    raw = torch.tensor([0.0, -1e4, 1e4], dtype=torch.float64, requires_grad=True)
    std = positive_std(raw)
    assert std[0].item() == pytest.approx(1.0)
    assert std[1].item() == MINIMUM_STD
    std.sum().backward()
    assert ((raw.grad >= 0) & (raw.grad <= 1)).all()


def test_kl_stays_finite_at_the_extremes():
    raw = torch.tensor([[0.0, -1e4], [0.0, 1e4], [1e3, -1e4]], requires_grad=True)
    values = [kl(DiagonalGaussian.from_raw(a), DiagonalGaussian.from_raw(b)) for a in raw for b in raw]
    total = torch.stack(values).sum()
    total.backward()
    assert torch.isfinite(total) and torch.isfinite(raw.grad).all()


def test_residual_moves_the_prior_mean():
    p, delta, std = gaussian(0), torch.full((4, 5), 0.5, dtype=torch.float64), torch.ones(4, 5, dtype=torch.float64)
    q = residual(p, delta, std)
    torch.testing.assert_close(q.mean - p.mean, delta)
    assert q.std is std


def test_precision_weighted_is_the_normalised_product():
    p, e = gaussian(0), gaussian(1)
    q = precision_weighted(p, e)
    z = torch.linspace(-3, 3, 9, dtype=torch.float64).view(9, 1, 1)
    difference = p.log_prob(z) + e.log_prob(z) - q.log_prob(z)
    torch.testing.assert_close(difference, difference[:1].expand_as(difference))


def test_standard_and_mode():
    standard = DiagonalGaussian.standard(torch.full((2, 3), 7.0))
    assert torch.equal(standard.mode, torch.zeros(2, 3)) and torch.equal(standard.std, torch.ones(2, 3))
