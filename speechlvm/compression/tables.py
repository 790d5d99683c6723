"""Integer tables of probabilities, from the same cells that likelihoods are made of.

Of K symbols, C(j) the mass of those below j, symbol j has the interval [Q(j), Q(j + 1)) of 2^P with

    Q(j) = floor(C(j) (2^P - 2 K)) + 2 j,    C(0) = 0, C(K) = 1

so that each has at least 1 even where rounding lets C fall by a unit in the last place. It costs 2 K / (2^P ln 2) bits
a symbol, 0.0002 for 65 536 codes. C is a function of j alone: the encoder needs it at two edges, and the decoder finds
j by halving. All is float64, elementwise and added up in a fixed order: no bit depends on what is computed beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.dmol import MAX_LOG_SCALE, MIN_LOG_SCALE
from speechlvm.distributions.experts import ExpertMixture, sum_in_order

PRECISION = 30
"""P. A finer table would cost more in the coder, whose heads of 64 bits would be only a few times its intervals."""

MOST_LATENT_BITS = 20
"""2^b bins must be few beside 2^P."""

_quiet = np.errstate(over="ignore", invalid="ignore")
"""Infinities give the right masses; NaN is for others to see."""


@dataclass(frozen=True)
class Table:
    """Integer distributions of n symbols.

    Attributes:
        cdf: edges j (n,) int64 -> C(j) (n,); of j = size, any number.
        size: (n,) or one number: symbols that there are of each.
    """

    cdf: Callable[[np.ndarray], np.ndarray]
    size: np.ndarray | int

    @_quiet
    def interval(self, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start and frequency (n,) uint64 of symbols (n,) int64."""
        start = self._start(symbols)
        return start, self._start(symbols + 1) - start

    @_quiet
    def find(self, numbers: np.ndarray) -> np.ndarray:
        """Symbols (n,) whose intervals contain numbers (n,) below 2^P."""
        low = np.zeros(len(numbers), np.int64)
        high, sought, scale = low + self.size, numbers.astype(np.float64), self._scale
        for _ in range(int(np.max(self.size) - 1).bit_length()):
            middle = (low + high) >> 1
            below = np.floor(self.cdf(middle) * scale) + 2.0 * middle <= sought
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return low

    @property
    def _scale(self) -> np.ndarray | float:
        return (1 << PRECISION) - 2.0 * self.size

    def _start(self, edges: np.ndarray) -> np.ndarray:
        mass = np.where(edges <= 0, 0.0, np.where(edges >= self.size, 1.0, self.cdf(edges)))
        return (np.floor(mass * self._scale) + 2.0 * edges).astype(np.uint64)


def cost_bits(frequency: np.ndarray) -> float:
    """What symbols of these frequencies take."""
    return PRECISION * frequency.size - float(np.log2(frequency.astype(np.float64)).sum())


def least_bits(size: int) -> float:
    """What the likeliest symbol of `size` takes at least."""
    return -math.log1p(-2.0 * (size - 1) / (1 << PRECISION)) / math.log(2.0)


def mixture_table(parameters: np.ndarray, edges: np.ndarray) -> Table:
    """The discretised mixture of logistics (`distributions/dmol.py`).

    Args:
        parameters: (n, 3 M) logits, means, log-scales.
        edges: (K + 1,) float64 of the cells.
    """
    columns = parameters.astype(np.float64).T.reshape(3, -1, len(parameters))  # components first
    weights = np.exp(columns[0] - columns[0].max(0))
    weights /= sum_in_order(weights)
    means, inverse = columns[1], np.exp(-columns[2].clip(MIN_LOG_SCALE, MAX_LOG_SCALE))

    def cdf(j: np.ndarray) -> np.ndarray:
        return sum_in_order(weights / (1.0 + np.exp((means - edges[j]) * inverse)))

    return Table(cdf, len(edges) - 1)


def frame_table(distribution: Distribution, parameters: np.ndarray, edges: np.ndarray) -> Table:
    """The table of an output distribution: logistics with the edges (K + 1,) of its cells, or a mixture around experts.

    Args:
        distribution: of the frames, which the parameters are of.
        parameters: (n, P).
        edges: as of `mixture_table`.
    """
    if isinstance(distribution, ExpertMixture):
        return Table(distribution.cdf(parameters), distribution.codes)
    return mixture_table(parameters, edges)


class Bins:
    """Latents in bins of equal prior mass (Townsend et al. 2019, 2.5.1): 2^b for each dimension.

    A latent then is b plain bits under its prior, whatever this is, and a symbol of a table under its posterior.

    Args:
        bits: b (D,), from 1 to `MOST_LATENT_BITS`.
    """

    def __init__(self, bits: np.ndarray) -> None:
        self.bits = bits.astype(np.int64)
        finest = int(self.bits.max()) + 1
        self._quantiles = ndtri(np.arange((1 << finest) + 1) / (1 << finest))  # of edges and centres
        self._shift = finest - self.bits

    def centres(self, symbols: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        """Latents of bins (n, D) under priors (n, D)."""
        return mean + std * self._quantiles[(2 * symbols + 1) << (self._shift - 1)]

    def table(self, q: tuple[np.ndarray, np.ndarray], p: tuple[np.ndarray, np.ndarray], dimension: np.ndarray) -> Table:
        """Of bins (n,) under posteriors.

        Args:
            q, p: means and deviations (n,) float64 of posteriors and priors.
            dimension: (n,) that each is of.
        """
        shift = self._shift[dimension]

        def cdf(j: np.ndarray) -> np.ndarray:
            return ndtr((p[0] + p[1] * self._quantiles[j << shift] - q[0]) / q[1])

        return Table(cdf, 1 << self.bits[dimension])
