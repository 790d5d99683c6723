"""How well representations separate classes: accuracy of kNN in the space of an LDA, under three protocols.

    leave_one_out           LDA and neighbours from all other items
    fit_on_all              neighbours from all other items, LDA fitted to all items
    leave_one_speaker_out   LDA and neighbours from the items of all other speakers

All intervals are 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from speechlvm.latents import intervals, knn
from speechlvm.latents.labelled import Items, Unsuitable
from speechlvm.latents.store import Store
from speechlvm.utils.errors import UserError

DEFAULT_LARGEST_K = 50
HEADLINE_PROTOCOL, HEADLINE_K = "leave_one_out", 10
DIGITS = 5  # of coordinates in the space of an LDA, which are only for figures

Classification = dict[str, Any]
"""items, speakers, classes (name -> items), left_out (classes of fewer than two items), chance (share of the largest
class), notes, and representations: name -> kind, rate_hz (steps per second), dimensions, curves (protocol -> k,
accuracy, low, high, items, chance), headline (one point of a curve), places (labels, and N points by protocol)."""


def compare(
    items: Items, store: Store, dimensions: int, largest_k: int | None, by_speaker: bool, what: str
) -> Classification:
    """Compare how well representations classify items.

    Args:
        items: items to classify, of one or several speakers.
        store: store with the representations of the items.
        dimensions: dimensions of the LDA; at most the number of classes minus 1 are used.
        largest_k: maximum number of neighbours; None: 50, or as many as there are.
        by_speaker: whether to also leave out whole speakers, and to use the bootstrap over speakers where its intervals
            are wider than those for independent items.
        what: description of the items for messages, such as "phones of speaker X".

    Raises:
        Unsuitable: there are fewer than two classes with at least two items each.
        UserError: `largest_k` is larger than the number of neighbours.
    """
    names, counts = np.unique(items.labels, return_counts=True)
    left_out = [str(name) for name, count in zip(names, counts, strict=True) if count < 2]
    items = items.where(~np.isin(items.labels, left_out))
    classes = _counted(items.labels)
    if len(classes) < 2:
        found = ", ".join(f"{name} ({count})" for name, count in zip(names, counts, strict=True)) or "none"
        raise Unsuitable(f"{what}: classes (and items): {found}; expected two classes of at least two items each")
    if largest_k is not None and largest_k > len(items) - 1:
        raise UserError(
            f"--largest_k {largest_k}: one of {len(items)} {what} is left out at a time; give at most {len(items) - 1}"
        )
    notes = [f"{what}: left out, as they have fewer than two items: {', '.join(left_out)}"] if left_out else []
    wanted_k = largest_k or DEFAULT_LARGEST_K
    k = min(wanted_k, len(items) - 1)
    if k < wanted_k:
        notes.append(f"{what}: k is at most {k}, as there are {len(items)} items")
    folds = _by_speaker(items, wanted_k, notes, what) if by_speaker else None
    return {
        "items": len(items),
        "speakers": len(np.unique(items.speakers)),
        "classes": classes,
        "left_out": left_out,
        "chance": max(classes.values()) / len(items),
        "representations": {
            name: _representation(items, store, name, dimensions, k, folds, by_speaker) for name in items.features
        },
        "notes": notes,
    }


def _counted(labels: np.ndarray) -> dict[str, int]:
    return {str(name): int(count) for name, count in zip(*np.unique(labels, return_counts=True), strict=True)}


def _by_speaker(items: Items, largest_k: int, notes: list[str], what: str) -> tuple[np.ndarray, int] | None:
    """Items of classes with several speakers, and the largest k; None if there are fewer than two such classes."""
    speakers_of = {name: set(items.speakers[items.labels == name]) for name in _counted(items.labels)}
    alone = [name for name, speakers in speakers_of.items() if len(speakers) < 2]
    if alone:
        notes.append(f"{what}: not in leave one speaker out, as they have one speaker: {', '.join(alone)}")
    if len(speakers_of) - len(alone) < 2:
        return None
    chosen = ~np.isin(items.labels, alone)
    counts = _counted(items.speakers[chosen])
    k = min(largest_k, sum(counts.values()) - max(counts.values()))
    if k < largest_k:
        notes.append(f"{what}: k is at most {k} in leave one speaker out, as other speakers have no more items")
    return chosen, k


def _representation(
    items: Items,
    store: Store,
    name: str,
    dimensions: int,
    largest_k: int,
    folds: tuple[np.ndarray, int] | None,
    by_speaker: bool,
) -> dict[str, Any]:
    values, (classes, index) = items.features[name], np.unique(items.labels, return_inverse=True)
    dimensions = min(dimensions, len(classes) - 1)
    clusters = items.speakers if by_speaker else None
    right, held_out = knn.leave_out(values, index, np.arange(len(items)), dimensions, largest_k)
    seen, fitted = knn.fit_on_all(values, index, dimensions, largest_k)
    curves = {
        "leave_one_out": _curve(right, index, clusters),
        "fit_on_all": _curve(seen, index, clusters),
    }
    if folds is not None:
        chosen, k = folds
        _, part = np.unique(items.labels[chosen], return_inverse=True)
        right, _ = knn.leave_out(values[chosen], part, items.speakers[chosen], min(dimensions, part.max()), k)
        curves["leave_one_speaker_out"] = _curve(right, part, items.speakers[chosen])
    return {
        "kind": store.representations[name].kind,
        "rate_hz": store.step_rate_hz(name),
        "dimensions": store.representations[name].dimensions,
        "curves": curves,
        "headline": headline(curves),
        "places": {
            "labels": items.labels.tolist(),
            "leave_one_out": held_out.round(DIGITS).tolist(),
            "fit_on_all": fitted.round(DIGITS).tolist(),
        },
    }


def _curve(right: np.ndarray, labels: np.ndarray, clusters: np.ndarray | None) -> dict[str, Any]:
    low, high = intervals.wilson(right)
    # if all items are right, the bootstrap gives no width: intervals are at least those for independent items
    if clusters is not None:
        drawn_low, drawn_high = intervals.over_speakers(right, clusters)
        low, high = np.minimum(low, drawn_low), np.maximum(high, drawn_high)
    return {
        "k": list(range(1, right.shape[1] + 1)),
        "accuracy": right.mean(0).tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "items": len(right),
        "chance": float(np.bincount(labels).max() / len(labels)),
    }


def headline(curves: Mapping[str, Any]) -> dict[str, Any]:
    """The point that tables show: leave one out, k = 10 (chosen before any result was seen)."""
    curve = curves[HEADLINE_PROTOCOL]
    place = min(HEADLINE_K, len(curve["k"])) - 1
    return {"protocol": HEADLINE_PROTOCOL, **{key: curve[key][place] for key in ("k", "accuracy", "low", "high")}}


def mean_over_speakers(comparisons: Mapping[str, Classification]) -> dict[str, Any]:
    """Curves of the mean accuracy over speakers, with equal weights, up to the largest k that all of them have.

    Intervals are those of the bootstrap over speakers, but at least as wide as those over items of these speakers: if
    two speakers happen to have similar accuracies, this says little about others. For one speaker they are over items.
    """
    parts = list(comparisons.values())
    result = {}
    for name, first in parts[0]["representations"].items():
        several = [part["representations"][name] for part in parts]
        curves = {protocol: _mean_curve([one["curves"][protocol] for one in several]) for protocol in first["curves"]}
        described = {key: first[key] for key in ("kind", "rate_hz", "dimensions")}
        result[name] = {**described, "curves": curves, "headline": headline(curves)}
    return result


def _mean_curve(curves: list[dict[str, Any]]) -> dict[str, Any]:
    if len(curves) == 1:
        return curves[0]
    k = min(len(curve["k"]) for curve in curves)
    accuracies = np.array([curve["accuracy"][:k] for curve in curves])
    drawn_low, drawn_high = intervals.over_speakers(accuracies, np.arange(len(curves)))
    ends = (np.array([curve[end][:k] for curve in curves]) for end in ("low", "high"))
    low, high = intervals.of_mean(accuracies, *ends)
    low, high = np.minimum(low, drawn_low), np.maximum(high, drawn_high)
    return {
        "k": list(range(1, k + 1)),
        "accuracy": accuracies.mean(0).tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "items": sum(curve["items"] for curve in curves),
        "chance": float(np.mean([curve["chance"] for curve in curves])),
    }
