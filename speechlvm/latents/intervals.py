"""95 % intervals of accuracies."""

from __future__ import annotations

import numpy as np

NORMAL_QUANTILE = 1.959963984540054
DRAWS = 5000


def wilson(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score interval of a proportion of independent items (E. B. Wilson, JASA 22, 1927).

    Args:
        right: (N, K) bool.

    Returns:
        Lower and upper ends, (K,) each.
    """
    n, share, z2 = len(right), right.mean(0), NORMAL_QUANTILE**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL_QUANTILE / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return np.maximum(center - half, 0.0), np.minimum(center + half, 1.0)


def of_mean(shares: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the mean of independent proportions from their intervals (Zou, Donner, Stat. Med. 27, 2008).

    Args:
        shares: (N, K), the proportions.
        low, high: (N, K), ends of their intervals.

    Returns:
        Lower and upper ends, (K,) each.
    """
    mean, n = shares.mean(0), len(shares)
    return mean - np.sqrt(np.square(shares - low).sum(0)) / n, mean + np.sqrt(np.square(high - shares).sum(0)) / n


def over_speakers(right: np.ndarray, speakers: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of the accuracy, with whole speakers drawn with replacement.

    With few speakers n, percentile intervals are too narrow: the bootstrap's variance is too small by a factor of
    (n - 1) / n, and normal quantiles are smaller than Student's. Expanded percentiles correct for both (T. C.
    Hesterberg, What Teachers Should Know About the Bootstrap, American Statistician 69, 2015). For two or three
    speakers they are the extremes, and the interval is still too narrow.

    Args:
        right: (N, K), bool for items, or float, the accuracy of each speaker.
        speakers: (N,), speaker of each row; items of one speaker are not independent.
        seed: seed of the bootstrap.

    Returns:
        Lower and upper ends, (K,) each.
    """
    from scipy.stats import norm, t

    _, index, counts = np.unique(speakers, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), right.shape[1]))
    np.add.at(sums, index, right)
    drawn = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=DRAWS)
    freedom = max(len(counts) - 1, 1)
    tail = norm.cdf(-np.sqrt(len(counts) / freedom) * t.ppf(norm.cdf(NORMAL_QUANTILE), freedom))
    low, high = np.quantile((drawn @ sums) / (drawn @ counts)[:, None], (tail, 1 - tail), axis=0)
    return low, high
