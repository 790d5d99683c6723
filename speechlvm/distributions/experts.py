"""A mixture around the predictions of an adaptive model, which is one of its components.

    p(v) = w_0 m(v) + (1 - w_0) sum_k w_k [F((v + 1/2 - mu_k) / s_k) - F((v - 1/2 - mu_k) / s_k)]

m is the adaptive model's own mass of the PCM value v, a mixture of Student-t distributions, and F is the logistic
function. A network gives the weights; mu_k is a prediction moved by a multiple of the adaptive scale, s_k a multiple of
that scale. The end cells take the tails, so the masses sum to one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.dmol import MAX_LOG_SCALE, MIN_LOG_SCALE, log_masses

_OUTERMOST_EDGE = 1e18  # infinities would give NaN gradients
# On the training set of TIMIT's sample these are together as good as m alone.
_INITIAL_GATE = 2.0  # w_0 = 0.88
_INITIAL_LOG_SCALES = (-1.0, 0.0)
_UNIT_OF_GATE = 4.0  # the network's share grows early in training, not after thousands of steps of Adam's size


class ExpertMixture(Distribution):
    """See the module. Targets (..., 1): int64 codes, for PCM values v those of v + 32768.

    Of the parameters (..., `parameter_size` + `known_size`) the first are what a network gives: the logit of w_0; K
    logits, K shifts and K log-multiples, the last clamped as log-scales of `dmol` are. The others are what the adaptive
    model knows: predictions, scale, weights of m. They are float64, as predictions near 32768 need it. Where m(v) is
    known already, `log_prob_beside` has no use for the weights of m. A sample takes one uniform number.

    Args:
        codes: number of values, the first half of them below 0.
        components: K; component k is around prediction k modulo their number.
        predictions: their number, the centres of m first.
        centres: of m.
        shapes, multiples: nu, 4 or 8, and scale in units of the adaptive scale, of the Student-t distributions around
            each centre of m.
        uniform: share of the uniform distribution in m.
    """

    event_size = 1
    noise_size = 1
    continuous = False

    def __init__(
        self,
        codes: int,
        components: int,
        predictions: int,
        centres: int,
        shapes: Sequence[int],
        multiples: Sequence[float],
        uniform: float,
    ) -> None:
        super().__init__()
        self.components, self.predictions, self.codes = components, predictions, codes
        self.parameter_size = 1 + 3 * components
        self._uniform = uniform
        # indexing by anything but a tensor of the device waits for it
        self.register_buffer("_of_logistic", torch.arange(components) % predictions, persistent=False)
        self._of_student = np.repeat(np.arange(centres), len(shapes))
        self._inverse = np.tile(1.0 / (np.array(multiples) * np.sqrt(shapes)), centres)[:, None]
        terms = np.arange(4)[:, None] < np.array(shapes) // 2
        self._coefficients = np.tile(np.cumprod([1.0, 1 / 2, 3 / 4, 5 / 6])[:, None] * terms, centres)[..., None]

    @property
    def known_size(self) -> int:
        """Numbers behind those of the network."""
        return self.predictions + 1 + len(self._of_student)

    def log_prob(self, parameters: Tensor, target: Tensor) -> Tensor:
        """Log-mass (...) in nats of targets (..., 1)."""
        flat, code = parameters.reshape(-1, parameters.shape[-1]).double(), target.reshape(-1)
        outputs, known = flat.split([self.parameter_size, self.known_size], -1)
        predictions, scale, _ = known.split([self.predictions, 1, len(self._of_student)], -1)
        j, adaptive = code.cpu().numpy(), self._adaptive(known.detach().cpu().numpy())
        mass = np.where(j + 1 < self.codes, adaptive(j + 1), 1.0) - np.where(j > 0, adaptive(j), 0.0)
        of_adaptive = torch.from_numpy(np.log(mass)).to(flat.device)
        values = self.log_prob_beside(outputs, predictions, scale.squeeze(-1), of_adaptive, code)
        return values.view(parameters.shape[:-1])

    def log_prob_beside(
        self, outputs: Tensor, predictions: Tensor, scale: Tensor, log_mass: Tensor, code: Tensor
    ) -> Tensor:
        """Log-mass (N,) in nats.

        Args:
            outputs: (N, `parameter_size`) of the network.
            predictions, scale: (N, `predictions`), (N,) of the adaptive model.
            log_mass: (N,) log m of the codes.
            code: (N,) int64.
        """
        gate, logits, shifts, log_multiples = outputs.split([1, *[self.components] * 3], -1)
        # in units of the scale around the first prediction
        value, origin = code.to(predictions.dtype) - self.codes // 2, predictions[:, 0]
        lower = ((value - 0.5 - origin) / scale).masked_fill(code == 0, -_OUTERMOST_EDGE).to(outputs.dtype)
        upper = ((value + 0.5 - origin) / scale).masked_fill(code == self.codes - 1, _OUTERMOST_EDGE).to(outputs.dtype)
        width = torch.where((code == 0) | (code == self.codes - 1), upper - lower, (1.0 / scale).to(outputs.dtype))
        around = ((predictions - origin[:, None]) / scale[:, None]).to(outputs.dtype)[:, self._of_logistic]
        logistic = log_masses(torch.cat([logits, around + shifts, log_multiples], -1), lower, upper, width)
        gate = gate.squeeze(-1)
        return torch.logaddexp(F.logsigmoid(gate) + log_mass.to(outputs.dtype), F.logsigmoid(-gate) + logistic)

    def cdf(self, parameters: np.ndarray, temperature: np.ndarray | float = 1.0) -> Callable[[np.ndarray], np.ndarray]:
        """The mass below a code, as a function of codes from 1 on; elementwise, and added up in a fixed order.

        Args:
            parameters: (N, `parameter_size` + `known_size`).
            temperature: (N,) or one number, see `sample`.

        Returns:
            codes (N,) -> (N,) float64.
        """
        outputs, known = np.split(parameters.astype(np.float64), [self.parameter_size], 1)
        gate, (logits, shifts, log_multiples) = outputs[:, 0], outputs[:, 1:].T.reshape(3, -1, len(outputs))
        adaptive, scale = self._adaptive(known, temperature), known[:, self.predictions]
        weights = np.exp((logits - logits.max(0)) / temperature)
        weights /= sum_in_order(weights)
        means = known.T[np.arange(self.components) % self.predictions] + shifts * scale
        inverse = np.exp(-log_multiples.clip(MIN_LOG_SCALE, MAX_LOG_SCALE)) / (scale * temperature)
        with np.errstate(over="ignore"):
            share = 1.0 / (1.0 + np.exp(-gate / temperature))

        def at(code: np.ndarray) -> np.ndarray:
            with np.errstate(over="ignore"):  # infinities give the right masses
                logistic = weights / (1.0 + np.exp((means - (code - (self.codes // 2 + 0.5))) * inverse))
            return share * adaptive(code) + (1.0 - share) * sum_in_order(logistic)

        return at

    def _adaptive(self, known: np.ndarray, temperature: np.ndarray | float = 1.0) -> Callable:
        """The same for m, as `models/adaptive.py` has it."""
        predictions, scale, weights = np.split(known.T, [self.predictions, self.predictions + 1])
        if np.any(temperature != 1.0):
            weights = weights ** (1.0 / temperature)
            weights = weights / sum_in_order(weights)
        mu, inverse, a = predictions[self._of_student], self._inverse / (scale * temperature), self._coefficients

        def at(code: np.ndarray) -> np.ndarray:
            z = (code - (self.codes // 2 + 0.5) - mu) * inverse
            q = 1.0 / (1.0 + z * z)
            each = z * np.sqrt(q) * (a[0] + q * (a[1] + q * (a[2] + q * a[3])))
            return (1.0 - self._uniform) * (0.5 + 0.5 * sum_in_order(weights * each)) + self._uniform * (
                code / self.codes
            )

        return at

    def sample(self, parameters: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Codes (..., 1) by the quantile function; the uniform share of m has no temperature."""
        rows = torch.as_tensor(temperature, dtype=torch.float64).expand(*parameters.shape[:-1], 1).reshape(-1)
        cdf = self.cdf(parameters.detach().cpu().reshape(-1, parameters.shape[-1]).numpy(), rows.cpu().numpy())
        low = _quantile(cdf, noise.double().cpu().reshape(-1).numpy(), self.codes)
        return torch.from_numpy(low).to(parameters.device).view(*parameters.shape[:-1], 1)

    def mode(self, parameters: Tensor) -> Tensor:
        """Codes (..., 1) of the median."""
        return self.sample(parameters, parameters.new_full((*parameters.shape[:-1], 1), 0.5))

    def initial_bias(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Nearly the adaptive model, and logistics of several widths; nothing depends on the data."""
        parameters = torch.zeros(self.parameter_size, dtype=torch.float64)
        parameters[0] = _INITIAL_GATE
        order = (0.618 * torch.arange(self.components) % 1.0).argsort()  # wide and narrow ones in turn
        parameters[-self.components :] = torch.linspace(*_INITIAL_LOG_SCALES, self.components)[order]
        return parameters

    def units(self, parameters: Tensor) -> Tensor:
        """A larger one of the logit of w_0."""
        units = torch.ones_like(parameters)
        units[0] = _UNIT_OF_GATE
        return units


def _quantile(cdf: Callable[[np.ndarray], np.ndarray], uniform: np.ndarray, codes: int) -> np.ndarray:
    """Codes (N,) with cdf(code) <= uniform < cdf(code + 1)."""
    low = np.zeros(len(uniform), np.int64)
    high = np.full(len(uniform), codes)
    for _ in range((codes - 1).bit_length()):
        middle = (low + high) // 2
        below = cdf(middle) <= uniform
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low


def sum_in_order(values: np.ndarray) -> np.ndarray:
    """Sum over the first axis, one term after another: the order of `sum` depends on the shape."""
    return values.cumsum(0)[-1]
