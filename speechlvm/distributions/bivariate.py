"""Pen lift and offset: a Bernoulli and a mixture of bivariate Gaussians (Graves 2013, arXiv:1308.0850, 4.1).

The covariance of a component is a floor plus a function of the raw outputs r_x, r_y (clamped as in `gaussian`) and c:

    minimum_std^2 I + [ exp(2 r_x)            rho exp(r_x + r_y) ]      rho = MAX_CORRELATION tanh(c)
                      [ rho exp(r_x + r_y)    exp(2 r_y)         ]

so that its standard deviations are those of `gaussian`. A floor on them alone would not bound the density: with equal
standard deviations s the smaller eigenvalue is s^2 (1 - |rho|), which is tiny for a thin line. Here no eigenvalue is
below minimum_std^2, whatever the correlation, and the log-density of an offset is at most -log(2 pi) - 2
log(minimum_std), twice that of a univariate Gaussian. With minimum_std = 0 it is bounded by the clamps of r and
MAX_CORRELATION.

Without correlation it is the diagonal Gaussian that source B names (and has in its code, commented out), with a
Bernoulli for the pen: a Gaussian density of a number that is 0 or 1 is unbounded and meaningless.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from speechlvm.distributions.base import Distribution, unit_of_mean
from speechlvm.distributions.gaussian import (
    MAX_LOG_STD,
    MIN_LOG_STD,
    above_floor,
    floored_log_std,
    of_component,
    shares,
    start_of_em,
)

MAX_CORRELATION = 0.9999

_LOG_TWO_PI = math.log(2 * math.pi)
_LEAST_SHARE = 1e-6


class BernoulliBivariate(Distribution):
    """Bernoulli x mixture of bivariate Gaussians.

    Events (..., 3): pen (0 or 1), dx, dy. Parameters (..., 1 + 6 K, or 1 + 5 K uncorrelated): the pen's logit, then the
    components' logits, means (component by component), raw log standard deviations (likewise) and raw correlations.
    One sample takes four uniform numbers: pen, component, two for the offset.

    Args:
        components: K.
        minimum_std: lower bound of the standard deviation in every direction.
        correlated: whether dx and dy are correlated within a component.
    """

    continuous = True
    event_size = 3
    noise_size = 4

    def __init__(self, components: int = 20, minimum_std: float = 0.01, correlated: bool = True) -> None:
        super().__init__()
        self.components = components
        self.minimum_std = minimum_std
        self.correlated = correlated
        self.parameter_size = 1 + components * (6 if correlated else 5)

    def _split(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """Split and transform the parameters.

        Returns:
            Logit (...) of the pen, logits (..., K), means (..., K, 2), log standard deviations (..., K, 2),
            correlations r (..., K) of the floored covariances, and 1 - r^2 (..., K).
        """
        K = self.components
        pen, logits, means, raw, *twist = parameters.split([1, K, 2 * K, 2 * K] + [K] * self.correlated, -1)
        raw = raw.unflatten(-1, (K, 2)).clamp(MIN_LOG_STD, MAX_LOG_STD)
        log_stds = floored_log_std(raw, self.minimum_std)
        if twist:
            rho = MAX_CORRELATION * torch.tanh(twist[0])
            correlation = rho * torch.exp(raw - log_stds).prod(-1)
            # 1 - r^2 as a sum of positive terms, since the difference cancels; f: share of the floor in a variance
            f = self.minimum_std**2 * torch.exp(-2 * log_stds)
            sech_squared = 4 * torch.sigmoid(2 * twist[0]) * torch.sigmoid(-2 * twist[0])
            uncorrelated = 1 - MAX_CORRELATION**2 + MAX_CORRELATION**2 * sech_squared
            complement = uncorrelated + rho.square() * (f.sum(-1) - f.prod(-1))
        else:
            correlation, complement = torch.zeros_like(logits), torch.ones_like(logits)
        return pen.squeeze(-1), logits, means.unflatten(-1, (K, 2)), log_stds, correlation, complement

    def log_prob(self, parameters: Tensor, target: Tensor) -> Tensor:
        """Log-probability of the pen plus log-density of the offset, (...) in nats."""
        pen, logits, means, log_stds, correlation, complement = self._split(parameters)
        x, y = ((target[..., None, 1:] - means) * torch.exp(-log_stds)).unbind(-1)
        square = y.square() + (x - correlation * y).square() / complement
        of_components = -0.5 * (square + complement.log()) - log_stds.sum(-1) - _LOG_TWO_PI
        offset = torch.logsumexp(torch.log_softmax(logits, -1) + of_components, -1)
        return offset + F.logsigmoid((2 * target[..., 0] - 1) * pen)

    def sample(self, parameters: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Events (..., 3): the first two numbers choose pen and component, the others give the offset by inversion."""
        pen, logits, means, log_stds, correlation, complement = self._split(parameters)
        lifted = (noise[..., :1] < torch.sigmoid(pen.unsqueeze(-1) / temperature)).to(noise.dtype)
        below = torch.softmax(logits / temperature, -1).cumsum(-1)[..., :-1]
        component = (below < noise[..., 1:2]).sum(-1)
        x, y = torch.special.ndtri(noise[..., 2:]).unbind(-1)
        correlation, complement = (value.gather(-1, component[..., None]) for value in (correlation, complement))
        place = torch.stack([correlation.squeeze(-1) * y + complement.squeeze(-1).sqrt() * x, y], -1)
        offset = of_component(means, component) + of_component(log_stds, component).exp() * temperature * place
        return torch.cat([lifted, offset], -1)

    def mode(self, parameters: Tensor) -> Tensor:
        """The likelier state of the pen, and the mean of the component with the largest weight: (..., 3)."""
        pen, logits, means, *_ = self._split(parameters)
        lifted = (pen > 0).to(parameters.dtype)
        return torch.cat([lifted[..., None], of_component(means, logits.argmax(-1))], -1)

    def initial_bias(self, targets: Tensor, weights: Tensor, iterations: int = 100) -> Tensor:
        """Parameters that fit the marginal: EM in float64 with full covariances from equal parts of the data."""
        targets, share = shares(targets, weights)
        lifted = (share @ targets[:, 0]).clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
        centre = share @ targets[:, 1:]
        offsets = targets[:, 1:] - centre
        products = offsets[:, [0, 0, 1, 1]] * offsets[:, [0, 1, 0, 1]]
        responsibility, floor = start_of_em(offsets, share, self.components, self.minimum_std)
        for _ in range(iterations):
            mass = (responsibility * share[:, None]).sum(0) + 1e-12
            assigned = (responsibility * share[:, None]).t() / mass[:, None]
            means = assigned @ offsets
            covariances = (assigned @ products).unflatten(-1, (2, 2)) - means[:, :, None] * means[:, None, :]
            if not self.correlated:
                covariances = torch.diag_embed(covariances.diagonal(dim1=-2, dim2=-1))
            variances, axes = torch.linalg.eigh(covariances)
            variances = torch.maximum(variances, floor.max())
            scaled = torch.einsum("nkd,kde->nke", offsets[:, None] - means, axes / variances.sqrt()[:, None])
            log_density = -0.5 * (scaled.square() + variances.log()).sum(-1)
            responsibility = torch.softmax(log_density + mass.log(), -1)
        raw = axes @ torch.diag_embed(above_floor(variances, self.minimum_std)) @ axes.mT
        stds = raw.diagonal(dim1=-2, dim2=-1).sqrt()
        parts = [lifted.logit()[None], mass.log(), (means + centre).flatten()]
        parts.append(stds.log().clamp(MIN_LOG_STD, MAX_LOG_STD).flatten())
        if self.correlated:
            rho = raw[:, 0, 1] / stds.prod(-1)
            parts.append(torch.atanh((rho / MAX_CORRELATION).clamp(-MAX_CORRELATION, MAX_CORRELATION)))
        return torch.cat(parts)

    def units(self, parameters: Tensor) -> Tensor:
        """Units of means from the standard deviations of one coordinate given the other, the thickness of a line."""
        *_, log_stds, _, complement = self._split(parameters)
        units = torch.ones_like(parameters)
        thickness = log_stds.exp() * complement.sqrt()[:, None]
        units[1 + self.components : 1 + 3 * self.components] = unit_of_mean(thickness).flatten()
        return units
