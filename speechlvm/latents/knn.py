"""Leave-one-out classification by the k nearest neighbours in the space of an LDA, for all k at once.

The most frequent class among the k nearest neighbours wins; ties go to the class with the nearest member. LDA and
neighbours come only from items that are not left out, so the classified item is unseen; `fit_on_all`, whose LDA is
fitted to all items, shows how optimistic the usual procedure is.
With two classes of equal size, leaving an item out makes its class the smaller one, so if features are uninformative,
accuracy falls below chance for k close to the number of items.
"""

from __future__ import annotations

import numpy as np

from speechlvm.latents import lda


def votes(neighbours: np.ndarray) -> np.ndarray:
    """The winning class among the first k neighbours, for k = 1 .. K.

    Args:
        neighbours: (n, K) classes 0 .. C - 1 of the neighbours of n items, the nearest first.

    Returns:
        (n, K) classes.
    """
    counts = np.cumsum(np.eye(neighbours.max() + 1, dtype=np.int32)[neighbours], axis=1)  # (n, K, C)
    leading = counts == counts.max(2, keepdims=True)
    candidates = np.broadcast_to(neighbours[:, None, :], (*neighbours.shape, neighbours.shape[1]))
    nearest_leader = np.take_along_axis(leading, candidates, axis=2).argmax(2)
    return np.take_along_axis(neighbours, nearest_leader, axis=1)


def leave_out(
    items: np.ndarray, labels: np.ndarray, groups: np.ndarray, dimensions: int, largest_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Leave out each group of items in turn; fit the LDA and find neighbours without it.

    Args:
        items: (N, D) float64.
        labels: (N,) classes 0 .. C - 1.
        groups: (N,) group of each item: item numbers, or speakers.
        dimensions: dimensions of the LDA.
        largest_k: K, at most the number of items outside the largest group.

    Returns:
        (N, K) bool, whether item n is classified correctly by k + 1 neighbours; and (N, d), each item in the space of
        the LDA that was fitted without it.
    """
    right, places = np.empty((len(items), largest_k), bool), np.empty((len(items), dimensions))
    for group in np.unique(groups):
        left = groups == group
        others = labels[~left]
        found = lda.fit(items[~left], others, dimensions)
        places[left] = found.project(items[left])
        nearest = _distances(places[left], found.project(items[~left])).argsort(1, kind="stable")[:, :largest_k]
        right[left] = votes(others[nearest]) == labels[left][:, None]
    return right, places


def fit_on_all(items: np.ndarray, labels: np.ndarray, dimensions: int, largest_k: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit one LDA to all items; neighbours of an item are the others. Arguments and results as in `leave_out`."""
    places = lda.fit(items, labels, dimensions).project(items)
    nearest = np.empty((len(items), largest_k), int)
    for n in range(len(items)):  # all distances at once would take N^2 numbers
        distances = _distances(places[n : n + 1], places)[0]
        distances[n] = np.inf
        nearest[n] = distances.argsort(kind="stable")[:largest_k]
    return votes(labels[nearest]) == labels[:, None], places


def _distances(of: np.ndarray, to: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return cdist(of, to, "sqeuclidean")
