"""Diagonal Gaussians of latent variables: density, KL divergence, and parametrisations of posteriors.

Networks output 2D raw numbers per latent vector: means, and r with std = minimum_std + softplus(r + c), where c is such
that r = 0 gives std = 1. The slope of softplus is at most one, so gradients cannot explode, and the floor keeps every
ratio finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MINIMUM_STD = 1e-3

RAW_OFFSET = math.log(math.expm1(1.0 - MINIMUM_STD))
"""c for `MINIMUM_STD`."""

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def positive_std(raw: Tensor, minimum_std: float = MINIMUM_STD) -> Tensor:
    """Standard deviations of raw network outputs."""
    return minimum_std + F.softplus(raw + math.log(math.expm1(1.0 - minimum_std)))


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent Gaussians.

    Attributes:
        mean: (..., D).
        std: (..., D), positive.
    """

    mean: Tensor
    std: Tensor

    @staticmethod
    def from_raw(raw: Tensor, minimum_std: float = MINIMUM_STD) -> DiagonalGaussian:
        """Gaussians from network outputs (..., 2D): means, then raw standard deviations (`positive_std`)."""
        mean, raw_std = raw.chunk(2, -1)
        return DiagonalGaussian(mean, positive_std(raw_std, minimum_std))

    @staticmethod
    def standard(like: Tensor) -> DiagonalGaussian:
        """N(0, 1) with the shape of a tensor."""
        return DiagonalGaussian(torch.zeros_like(like), torch.ones_like(like))

    @property
    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """Samples (..., D) from standard normal noise (..., D), differentiable in mean and std."""
        return self.mean + self.std * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-densities (..., D) in nats, per dimension."""
        return -0.5 * ((z - self.mean) / self.std).square() - self.std.log() - _HALF_LOG_TWO_PI


def kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """KL(q || p) in nats, per dimension: (..., D)."""
    ratio = q.std / p.std
    return 0.5 * (ratio.square() + ((q.mean - p.mean) / p.std).square() - 1.0) - ratio.log()


def residual(prior: DiagonalGaussian, delta_mean: Tensor, std: Tensor) -> DiagonalGaussian:
    """A posterior whose mean is given relative to that of the prior (Fraccaro et al. 2016, 3.3)."""
    return DiagonalGaussian(prior.mean + delta_mean, std)


def precision_weighted(prior: DiagonalGaussian, evidence: DiagonalGaussian) -> DiagonalGaussian:
    """The normalised product of two Gaussians (ladder networks, Sonderby et al. 2016, eq. 17-18)."""
    prior_variance, evidence_variance = prior.std.square(), evidence.std.square()
    total = prior_variance + evidence_variance
    mean = (prior.mean * evidence_variance + evidence.mean * prior_variance) / total
    return DiagonalGaussian(mean, prior.std * evidence.std / total.sqrt())
