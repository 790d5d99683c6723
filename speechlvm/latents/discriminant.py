"""Linear discriminant analysis: the directions in which classes lie apart most for the spread within them.

The covariance within classes is that of features scaled to unit deviation within classes, shrunk towards the identity
by as much as O. Ledoit and M. Wolf derive (Journal of Multivariate Analysis 88, 2004; scikit-learn's `ledoit_wolf`).
With many items this is the usual analysis. With few for their dimensions the usual one fits chance, most of all where
both numbers are alike, and representations of different dimensions could not be compared: of 290 phones of a speaker of
TIMIT in 256 hidden units of an LSTM, 5 dimensions and 10 neighbours tell 34 % when left out, but 21 % without
shrinkage. scikit-learn's own analysis shrinks the covariance of each class by itself, for which two members are too
few, and 55 of them for each phone left out take too long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_RELATIVE_RANGE = 1e-10  # of features that vary; float64 leaves less of constant ones, as empty mel bins are
LEAST_VARIANCE = 1e-6  # within classes, of scaled features


@dataclass(frozen=True)
class Discriminant:
    """A linear map into the space in which classes lie apart.

    Attributes:
        center: (D,) mean of the items it was fitted on.
        directions: (D, d), most telling first; the (shrunk) covariance within classes is 1 along each. The first of the
            classes lies on the negative side. Beyond the number of features that vary, directions are 0.
    """

    center: np.ndarray
    directions: np.ndarray

    def project(self, items: np.ndarray) -> np.ndarray:
        """(N, D) -> (N, d)."""
        return (items - self.center) @ self.directions


def fit(items: np.ndarray, labels: np.ndarray, dimensions: int) -> Discriminant:
    """The discriminant of labelled items.

    Args:
        items: (N, D) float64.
        labels: (N,) of at least two classes.
        dimensions: d; one less than there are classes at most.
    """
    from scipy.linalg import cholesky, solve_triangular, svd
    from sklearn.covariance import ledoit_wolf

    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if not 1 <= dimensions < len(counts):
        raise ValueError(f"{dimensions} dimensions of {len(counts)} classes")
    ranges, center = np.ptp(items, axis=0), items.mean(0)
    directions = np.zeros((items.shape[1], dimensions))
    varying = ranges > LEAST_RELATIVE_RANGE * np.abs(items).max(0)
    if not varying.any():
        return Discriminant(center, directions)
    centered = (items - center)[:, varying]
    means = (np.eye(len(counts))[index].T @ centered) / counts[:, None]
    within = centered - means[index]
    scale = np.maximum(within.std(0), LEAST_RELATIVE_RANGE * ranges[varying])
    covariance, _ = ledoit_wolf(within / scale, assume_centered=True)
    covariance[np.diag_indices_from(covariance)] += LEAST_VARIANCE
    factor = cholesky(covariance, lower=True)
    between = solve_triangular(factor, (np.sqrt(counts)[:, None] * means / scale).T, lower=True)
    axes = svd(between, full_matrices=False)[0][:, :dimensions]
    axes = solve_triangular(factor, axes, lower=True, trans="T") / scale[:, None]
    directions[varying, : axes.shape[1]] = axes * np.where(means[0] @ axes > 0, -1.0, 1.0)
    return Discriminant(center, directions)
