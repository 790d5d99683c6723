"""95 % intervals of accuracies."""

from __future__ import annotations

import numpy as np

NORMAL_QUANTILE = 1.959963984540054
LEVELS = (0.025, 0.975)
DRAWS = 1000


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


def over_speakers(right: np.ndarray, speakers: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap of the share of right items when whole speakers are drawn with replacement.

    Args:
        right: (N, K), bool, or an accuracy of each speaker.
        speakers: (N,) whose items they are; those of one speaker are not independent.
        seed: of the draws.

    Returns:
        Lower and upper ends, (K,) each.
    """
    _, index, counts = np.unique(speakers, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), right.shape[1]))
    np.add.at(sums, index, right)
    drawn = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=DRAWS)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts)[:, None], LEVELS, axis=0)
    return low, high
