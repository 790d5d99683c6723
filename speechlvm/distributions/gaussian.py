"""Gaussian densities of normalised samples, with a floor on the standard deviation (source A, A.12 and A.13).

The floor bounds the likelihood, so every result reports it. It is smooth: a network output r gives

    variance = minimum_std^2 + exp(2 r),    r clamped to [MIN_LOG_STD, MAX_LOG_STD]

With minimum_std = 0 this is the clamped log-sigma of source B's code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from speechlvm.distributions.base import Distribution, unit_of_mean

MIN_LOG_STD = -18.0
MAX_LOG_STD = 8.0

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def floored_log_std(raw: Tensor, minimum_std: float) -> Tensor:
    """Log standard deviations of raw network outputs, elementwise."""
    raw = raw.clamp(MIN_LOG_STD, MAX_LOG_STD)
    if minimum_std == 0:
        return raw
    return 0.5 * torch.logaddexp(2 * raw, torch.full_like(raw, 2 * math.log(minimum_std)))


def above_floor(variance: Tensor, minimum_std: float) -> Tensor:
    """The variance to add to that of the floor to give `variance`; small where `variance` is below the floor."""
    return torch.maximum(variance - minimum_std**2, (0.1 * minimum_std) ** 2 + 1e-12 * variance)


def _raw_of_variance(variance: Tensor, minimum_std: float) -> Tensor:
    """The network output whose floored variance is `variance`, or close to the floor where `variance` is below it."""
    return 0.5 * above_floor(variance, minimum_std).log().clamp(2 * MIN_LOG_STD, 2 * MAX_LOG_STD)


def _log_density(target: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return -0.5 * ((target - mean) * torch.exp(-log_std)).square() - log_std - _HALF_LOG_TWO_PI


def _moments(targets: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    mean = (share[:, None] * targets).sum(0)
    return mean, (share[:, None] * (targets - mean).square()).sum(0)


def shares(targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct targets (N, E) that occur, and their relative frequencies (N,), float64."""
    present = weights > 0
    share = weights[present].detach().cpu().double()
    return targets[present].detach().cpu().double(), share / share.sum()


def start_of_em(targets: Tensor, share: Tensor, components: int, minimum_std: float) -> tuple[Tensor, Tensor]:
    """Responsibilities (N, K) that give each component an equal part of the sorted data, and a floor (E,) of variances.

    Args:
        targets: (N, E), float64.
        share: (N,), summing to 1.
        components: K.
        minimum_std: lower bound of the standard deviations of the distribution.
    """
    mean, variance = _moments(targets, share)
    # smaller variances would only fit single distinct values
    floor = torch.clamp(1e-6 * variance, min=max(minimum_std**2, 1e-12))
    order = ((targets - mean) / (variance + floor).sqrt()).sum(-1).argsort()
    group = (share[order].cumsum(0) * components).long().clamp(max=components - 1)
    responsibility = torch.zeros(len(share), components, dtype=torch.float64)
    responsibility[order, group] = 1.0
    return responsibility, floor


class Gaussian(Distribution):
    """Diagonal Gaussian.

    Parameters (..., 2 dim): means, raw log standard deviations. One sample takes one uniform number per dimension.

    Args:
        dim: E.
        minimum_std: lower bound of the standard deviation.
    """

    continuous = True

    def __init__(self, dim: int = 1, minimum_std: float = 0.01) -> None:
        super().__init__()
        self.event_size = self.noise_size = dim
        self.parameter_size = 2 * dim
        self.minimum_std = minimum_std

    def log_prob(self, parameters: Tensor, target: Tensor) -> Tensor:
        """Log-density (...) in nats."""
        mean, raw = parameters.chunk(2, -1)
        return _log_density(target, mean, floored_log_std(raw, self.minimum_std)).sum(-1)

    def sample(self, parameters: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Targets (..., dim), by inversion of the cdf."""
        mean, raw = parameters.chunk(2, -1)
        return mean + floored_log_std(raw, self.minimum_std).exp() * temperature * torch.special.ndtri(noise)

    def mode(self, parameters: Tensor) -> Tensor:
        """The mean (..., dim)."""
        return parameters.chunk(2, -1)[0]

    def initial_bias(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Mean and standard deviation of the training data."""
        mean, variance = _moments(*shares(targets, weights))
        return torch.cat([mean, _raw_of_variance(variance, self.minimum_std)])

    def units(self, parameters: Tensor) -> Tensor:
        """Units of means from their standard deviations."""
        stds = floored_log_std(parameters[self.event_size :], self.minimum_std).exp()
        return torch.cat([unit_of_mean(stds), torch.ones_like(stds)])


class GaussianMixture(Distribution):
    """Mixture of diagonal Gaussians.

    Parameters (..., K + 2 K dim): logits, means and raw log standard deviations (component by component).
    One sample takes 1 + dim uniform numbers: component, values.

    Args:
        components: K.
        dim: E.
        minimum_std: lower bound of every standard deviation.
    """

    continuous = True

    def __init__(self, components: int = 20, dim: int = 1, minimum_std: float = 0.01) -> None:
        super().__init__()
        self.components = components
        self.event_size = dim
        self.noise_size = 1 + dim
        self.parameter_size = components * (1 + 2 * dim)
        self.minimum_std = minimum_std

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (..., K), means (..., K, dim), log standard deviations (..., K, dim)."""
        size = self.components * self.event_size
        logits, means, raw = parameters.split([self.components, size, size], -1)
        shape = (self.components, self.event_size)
        return logits, means.unflatten(-1, shape), floored_log_std(raw.unflatten(-1, shape), self.minimum_std)

    def log_prob(self, parameters: Tensor, target: Tensor) -> Tensor:
        """Log-density (...) in nats."""
        logits, means, log_stds = self._split(parameters)
        of_components = _log_density(target.unsqueeze(-2), means, log_stds).sum(-1)
        return torch.logsumexp(torch.log_softmax(logits, -1) + of_components, -1)

    def sample(self, parameters: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Targets (..., dim): the first number chooses a component, the others give values by inversion of its cdf."""
        logits, means, log_stds = self._split(parameters)
        below = torch.softmax(logits / temperature, -1).cumsum(-1)[..., :-1]
        component = (below < noise[..., :1]).sum(-1)
        std = of_component(log_stds, component).exp() * temperature
        return of_component(means, component) + std * torch.special.ndtri(noise[..., 1:])

    def mode(self, parameters: Tensor) -> Tensor:
        """Mean (..., dim) of the component with the largest weight."""
        logits, means, _ = self._split(parameters)
        return of_component(means, logits.argmax(-1))

    def initial_bias(self, targets: Tensor, weights: Tensor, iterations: int = 100) -> Tensor:
        """A mixture that fits the marginal: EM in float64 from equal shares of the sorted data."""
        targets, share = shares(targets, weights)
        responsibility, floor = start_of_em(targets, share, self.components, self.minimum_std)
        for _ in range(iterations):
            mass = (responsibility * share[:, None]).sum(0) + 1e-12
            assigned = (responsibility * share[:, None]).t() / mass[:, None]
            means = assigned @ targets
            second = assigned @ targets.square() - means.square()
            variances = torch.maximum(second, floor.expand_as(second))
            of_components = _log_density(targets[:, None], means, 0.5 * variances.log()).sum(-1) + mass.log()
            responsibility = torch.softmax(of_components, -1)
        return torch.cat([mass.log(), means.flatten(), _raw_of_variance(variances, self.minimum_std).flatten()])

    def units(self, parameters: Tensor) -> Tensor:
        """Units of means from the standard deviations of their components."""
        logits, _, log_stds = self._split(parameters)
        stds = log_stds.exp().flatten()
        return torch.cat([torch.ones_like(logits), unit_of_mean(stds), torch.ones_like(stds)])


def of_component(values: Tensor, component: Tensor) -> Tensor:
    """Values (..., D) of the chosen component (...) from those of all components (..., K, D)."""
    return values.take_along_dim(component[..., None, None], -2).squeeze(-2)
