"""What each level of a model encodes, and on which time scale: information, active units, autocorrelation.

A level has collapsed if its posterior equals its prior: its KL is zero, and its posterior means do not depend on the
data. Active units are counted in two ways: by the variance of the posterior mean over all steps (Burda et al.,
Importance Weighted Autoencoders, 2016) and by the mean KL. For hidden states, spectra and sets without KL, only
statistics of means are computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from speechlvm.latents.store import Store

ACTIVE_VARIANCE = 0.01
"""A unit is active if the variance of its posterior mean is larger (Burda et al.).

Means over K sampled paths also vary by chance, by up to 1/K of the variance of the prior if the prior depends on the
path. With fewer than `LEAST_SAMPLES` paths, this alone could make a unit active, so the count is unknown.
"""
LEAST_SAMPLES = round(1 / ACTIVE_VARIANCE)
ACTIVE_NATS = 0.01
"""A unit is active if its KL in nats per step is larger."""
LONGEST_LAG_MS = 1000.0
LONGEST_LAG_STEPS = 250
"""Used if steps have no rate."""
LEAST_PAIRS = 0.1
"""Lags with fewer pairs than this share of all steps are left out."""
_COLUMNS = 16


class Correlation:
    """Moments of vectors over time, summed utterance by utterance, so that memory does not grow with their number.

    Args:
        longest_lag: maximum lag in steps.

    Attributes:
        pairs: (longest_lag + 1,) number of pairs of steps at each lag.
    """

    def __init__(self, longest_lag: int) -> None:
        self.pairs = np.zeros(longest_lag + 1)
        self._products = np.zeros(longest_lag + 1)
        self._centre: np.ndarray | None = None

    def add(self, values: np.ndarray) -> None:
        """Add an utterance, (steps, D)."""
        from scipy.fft import irfft, next_fast_len, rfft

        wide = values.astype(np.float64)
        if self._centre is None:
            # relative to a point within the data, sums of squares do not cancel even if the mean is large
            self._centre = wide.mean(0)
            self._squares = np.zeros(wide.shape[1])
            self._ends = np.zeros((len(self.pairs), wide.shape[1]))
        wide -= self._centre
        steps = len(wide)
        lags = np.arange(min(len(self.pairs), steps))
        size = next_fast_len(steps + len(lags), real=True)
        power = sum(
            (np.abs(rfft(wide[:, first : first + _COLUMNS], size, axis=0)) ** 2).sum(1)
            for first in range(0, wide.shape[1], _COLUMNS)
        )
        self._products[lags] += irfft(power, size)[lags]
        sums = np.concatenate([np.zeros((1, wide.shape[1])), wide.cumsum(0)])
        self._ends[lags] += sums[steps - lags] + sums[-1] - sums[lags]  # all but the last, all but the first
        self.pairs[lags] += steps - lags
        self._squares += (wide**2).sum(0)

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return int(self.pairs[0])

    def _mean(self) -> np.ndarray:
        return self._ends[0] / (2 * self.steps)

    def variances(self) -> np.ndarray:
        """Variances (D,) over all steps."""
        return np.maximum(self._squares / self.steps - self._mean() ** 2, 0.0)

    def autocorrelation(self) -> np.ndarray:
        """Autocorrelation (lags,) from lag 0: covariance of vectors at each lag, divided by that at lag 0.

        Covariances are summed over dimensions, which are thus weighted by their variance: constant ones have no
        influence. The mean over all utterances is removed, so differences between utterances count as correlation.
        Lags with too few pairs are left out; empty if nothing varies.
        """
        total = self.variances().sum()
        if total == 0:
            return np.zeros(0)
        mean = self._mean()
        kept = self.pairs >= LEAST_PAIRS * self.steps
        covariances = (self._products - self._ends @ mean)[kept] / self.pairs[kept] + mean @ mean
        return covariances / total


def correlation_length(autocorrelation: np.ndarray) -> float | None:
    """First lag in steps at which the autocorrelation is below 1/e, linearly interpolated; None if it never is."""
    level = math.exp(-1)
    below = np.flatnonzero(autocorrelation < level)
    if not len(below):
        return None
    after = int(below[0])
    high, low = autocorrelation[after - 1], autocorrelation[after]
    return float(after - 1 + (high - level) / (high - low))


def analyse(stores: Sequence[Store]) -> dict[str, Any]:
    """Analyse all levels, pooled over sets; KL and standard deviations are taken from the sets that have them.

    Args:
        stores: stores of one model, or of spectra; one for each set.

    Returns:
        items (utterances) and representations, by name; unknown values are None. A level has collapsed if no unit is
        active: by its KL, or by its variance if KL is unknown.
    """
    return {
        "items": sum(len(store.utterances) for store in stores),
        "representations": {name: _level(stores, name) for name in stores[0].representations},
    }


def _level(stores: Sequence[Store], name: str) -> dict[str, Any]:
    representation, step_rate_hz = stores[0].representations[name], stores[0].step_rate_hz(name)
    step_ms = None if step_rate_hz is None else 1000 / step_rate_hz
    correlation = Correlation(LONGEST_LAG_STEPS if step_ms is None else max(1, round(LONGEST_LAG_MS / step_ms)))
    for values in _read(stores, name, "mean"):
        correlation.add(values)
    variances, autocorrelation = correlation.variances(), correlation.autocorrelation()
    length = correlation_length(autocorrelation)
    unit_kl = _average(_read(stores, name, "kl"))
    squares = _average(np.square(values) for values in _read(stores, name, "std"))
    nats = None if unit_kl is None else math.fsum(unit_kl)
    known: dict[str, Any] = {
        "kind": representation.kind,
        "rate_hz": step_rate_hz,
        "hop_frames": representation.hop_frames,
        "dimensions": representation.dimensions,
        "steps": correlation.steps,
        "kl_nats_per_step": nats,
        "kl_nats_per_second": _product(nats, step_rate_hz),
        "kl_bits_per_second": _product(nats, step_rate_hz, 1 / math.log(2)),
        "kl_bits_per_frame": _product(nats, 1 / math.log(2) / representation.hop_frames),
        "unit_kl_nats_per_step": None if unit_kl is None else unit_kl.tolist(),
        "unit_variances": variances.tolist(),
        "active_units": None,
        "active_units_by_kl": None if unit_kl is None else int((unit_kl > ACTIVE_NATS).sum()),
        "posterior_std": None if squares is None else math.sqrt(squares.mean()),
        "autocorrelation": autocorrelation.tolist(),
        "autocorrelation_steps": length,
        "autocorrelation_ms": _product(length, step_ms),
        "collapsed": False,
    }
    if representation.kind == "latent":
        varying = int((variances > ACTIVE_VARIANCE).sum())
        if all(store.info["num_samples"] >= LEAST_SAMPLES for store in stores):
            known["active_units"] = varying
        known["collapsed"] = (varying if unit_kl is None else known["active_units_by_kl"]) == 0
    return known


def _read(stores: Sequence[Store], name: str, statistic: str) -> Iterator[np.ndarray]:
    """Values of all utterances of the sets that have the statistic."""
    for store in stores:
        if statistic in store.representations[name].statistics:
            for utterance in store.utterances:
                yield store.read(name, utterance, statistic)


def _average(arrays: Iterable[np.ndarray]) -> np.ndarray | None:
    """Averages (D,) over all steps; None if there are no arrays."""
    total, steps = 0.0, 0
    for array in arrays:
        total, steps = total + array.sum(0, dtype=np.float64), steps + len(array)
    return total / steps if steps else None


def _product(*factors: float | None) -> float | None:
    """The product of factors; None if one of them is unknown."""
    return None if None in factors else math.prod(factors)
