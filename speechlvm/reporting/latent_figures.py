"""Figures of comparisons: accuracy over k, and classes in the space of an LDA (source A, figures 3 to 6)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechlvm.data.kaldi.phones import MANNERS, OTHER, manner
from speechlvm.latents.speakers import GENDERS, HEIGHTS
from speechlvm.reporting.analysis_results import PROTOCOLS
from speechlvm.reporting.figures import save, shared_legend
from speechlvm.reporting.pictures import new_figure, panel_grid
from speechlvm.utils.errors import UserError

ALL_PROTOCOLS = {**PROTOCOLS, "fit_on_all": "the LDA has seen all"}
MANNER_COLOURS = dict(
    zip(
        [*MANNERS, OTHER],
        ["tab:red", "tab:brown", "tab:pink", "tab:orange", "tab:green", "tab:cyan", "tab:blue", "0.35", "tab:purple"],
        strict=True,
    )
)
SPECTRA_GREYS = ("black", "0.4", "0.65")
DENSITY_POINTS = 400
LETTER_POINTS = (5.2, 9.0)  # width and height of a letter of 8 points
ROUNDS = 400
LEGEND_INCHES, CHARACTERS_PER_INCH = 1.5, 11.5  # the widest legend; a title of 10 points
OUTERMOST = 0.02  # share of points on each side that limits of axes ignore
LEAST_SPREAD = 1e-6  # of points in the space of an LDA, where the spread within classes is about 1

Representations = Mapping[str, Mapping[str, Any]]
"""As in a comparison."""


def draw(out: Path, result: Mapping[str, Any], spectra: Mapping[str, Any] | None) -> None:
    """<out>/accuracy and <out>/clusters, PNG and PDF.

    Args:
        out: directory.
        result: of the analysis of phones, gender or height.
        spectra: the same analysis of the spectra, shown in the same figures.

    Raises:
        UserError: `spectra` is of other items.
    """
    own, other = _parts(result), _parts(spectra) if spectra else {}
    for title, part in own.items():
        if other and (other.get(title) or {}).get("classes") != part["classes"]:
            raise UserError(
                f"{result['analysis']} of {result['source']} ({', '.join(result['set'])}) and of {spectra['source']} "
                f"({', '.join(spectra['set'])}) are of different items; run both with the same data and settings"
            )
    panels = {
        title: {**part["representations"], **(other[title]["representations"] if other else {})}
        for title, part in own.items()
    }
    heading = f"{result['source']} on {', '.join(result['set'])}"
    if result["analysis"] == "phones":
        without = f" without {' '.join(result['skipped'])}" if result["skipped"] else ""
        accuracies(out / "accuracy", panels, f"phones ({result['folding']} classes{without}), {heading}")
        shown = result["speakers"][result["speaker"]]["representations"]
        what = f"phones of speaker {result['speaker']}{without}"
        phone_clusters(out / "clusters", shown, f"{what}, {heading}; LDA fitted on them")
    else:
        what = f"speakers' {result['analysis']} from averages over utterances"
        accuracies(out / "accuracy", panels, f"{what}, {heading}")
        fitted = "; points: the LDA is fitted on them" if result["analysis"] == "height" else ""
        speaker_clusters(out / "clusters", panels, f"{what}, {heading}{fitted}")


def _parts(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What is shown side by side, by title."""
    if result["analysis"] == "height":
        return result["groups"]
    if result["analysis"] == "phones" and len(result["speakers"]) > 1:
        one = result["speaker"]
        return {f"{len(result['speakers'])} speakers": result, f"speaker {one}": result["speakers"][one]}
    return {"": result}


def _styles(names: Representations) -> dict[str, dict[str, Any]]:
    """Colours and lines by name; spectra, which others are compared with, are dashed and grey."""
    from matplotlib import colormaps

    spectra = [name for name in names if names[name]["kind"] == "spectrum"]
    others = [name for name in names if name not in spectra]
    return {
        **{name: {"color": colormaps["tab10"](i % 10)} for i, name in enumerate(others)},
        **{name: {"color": SPECTRA_GREYS[i % 3], "linestyle": "--"} for i, name in enumerate(spectra)},
    }


def accuracies(stem: Path, panels: Mapping[str, Representations], note: str) -> None:
    """Accuracy over k with 95 % intervals: a row for each panel, a column for each protocol that one of them has.

    Args:
        stem: path without ending.
        panels: representations by title.
        note: what was classified, for the title.
    """
    found = {p for names in panels.values() for one in names.values() for p in one["curves"]}
    protocols = [protocol for protocol in ALL_PROTOCOLS if protocol in found]
    styles = _styles({name: one for names in panels.values() for name, one in names.items()})
    figure = new_figure(figsize=(3.6 * len(protocols) + 1.2, 3.2 * len(panels) + 0.4), layout="constrained")
    axes = figure.subplots(len(panels), len(protocols), squeeze=False, sharey="row", sharex=True)
    for row, (title, names) in zip(axes, panels.items(), strict=True):
        for axis, protocol in zip(row, protocols, strict=True):
            curves = {name: one["curves"][protocol] for name, one in names.items() if protocol in one["curves"]}
            for name, curve in curves.items():
                low, high, accuracy = (100 * np.array(curve[key]) for key in ("low", "high", "accuracy"))
                axis.fill_between(curve["k"], low, high, color=styles[name]["color"], alpha=0.1, linewidth=0)
                axis.plot(curve["k"], accuracy, label=name, linewidth=1.3, **styles[name])
            if curves:
                chance = 100 * next(iter(curves.values()))["chance"]
                axis.axhline(chance, color="0.3", linestyle=":", linewidth=1, label="largest class")
            else:
                axis.text(0.5, 0.5, "not possible", transform=axis.transAxes, ha="center", color="0.4")
            axis.set_title(_joined(title, ALL_PROTOCOLS[protocol]), fontsize=9)
            axis.grid(alpha=0.3)
        row[0].set_ylabel("accuracy [%]")
    for axis in axes[-1]:
        axis.set_xlabel("neighbours k")
    shared_legend(figure)
    _title(figure, note)
    save(figure, stem)


def phone_clusters(stem: Path, names: Representations, note: str) -> None:
    """Phones of one speaker in two dimensions, coloured by manner, each class's label at its mean."""
    from matplotlib.lines import Line2D

    figure, axes = panel_grid(len(names), 2, (6.4, 5.6), (0.6, 0.4))
    seen = set()
    for axis, (name, one) in zip(axes, names.items(), strict=True):
        labels, places = np.array(one["places"]["labels"]), np.array(one["places"]["fit_on_all"])
        if places.shape[1] < 2:
            places = np.column_stack([places, np.zeros(len(places))])
        colours = [MANNER_COLOURS[manner(label)] for label in labels]
        axis.scatter(places[:, 0], places[:, 1], s=9, c=colours, alpha=0.45, linewidths=0)
        axis.set_title(_joined(name, _look_at_most(axis, places)), fontsize=9)
        classes = np.unique(labels)
        seen |= {manner(label) for label in classes}
        means = np.array([places[labels == label, :2].mean(0) for label in classes])
        _write_apart(axis, classes, means, [MANNER_COLOURS[manner(label)] for label in classes])
        _name_axes(axis, name)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=name)
        for name, colour in MANNER_COLOURS.items()
        if name in seen
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=9)
    _title(figure, note)
    save(figure, stem)


def _look_at_most(axis, places: np.ndarray) -> str:
    """Set limits that ignore the outermost points, as power spectra have outliers; returns how many are outside."""
    low, high = np.quantile(places[:, :2], (OUTERMOST, 1 - OUTERMOST), axis=0)
    margin = 0.25 * (high - low) + LEAST_SPREAD
    axis.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axis.set_ylim(low[1] - margin[1], high[1] + margin[1])
    outside = ((places[:, :2] < low - margin) | (places[:, :2] > high + margin)).any(1).sum()
    return f"{outside} of {len(places)} points lie outside" if outside else ""


def _write_apart(axis, names: Sequence[str], points: np.ndarray, colours: Sequence[str]) -> None:
    """Write names near points without overlap, with lines to the points.

    Args:
        axis: with its limits, within which names stay.
        names: n.
        points: (n, 2) in units of the data.
        colours: of the names.
    """
    from matplotlib.patheffects import withStroke

    scale = 72 / axis.figure.dpi  # from pixels
    low, high = axis.bbox.get_points() * scale
    sizes = np.array([[LETTER_POINTS[0] * len(name) + 2, LETTER_POINTS[1]] for name in names])
    least = (sizes[:, None] + sizes) / 2  # distances between centres
    at = axis.transData.transform(points) * scale + 0.01 * np.arange(len(names))[:, None]  # equal ones can part
    for _ in range(ROUNDS):
        at = np.clip(at, low + sizes / 2, high - sizes / 2)
        apart = at[:, None] - at
        overlap = least - np.abs(apart)
        covers = (overlap > 0).all(2) & ~np.eye(len(names), dtype=bool)
        if not covers.any():
            break
        shorter = overlap == overlap.min(2, keepdims=True)
        at = at + 0.25 * (covers[..., None] * shorter * np.sign(apart) * overlap).sum(1)
    places = axis.transData.inverted().transform(at / scale)
    for name, place, point, colour in zip(names, places, points, colours, strict=True):
        axis.plot(*zip(point, place, strict=True), color=colour, linewidth=0.6, alpha=0.8)
        outline = [withStroke(linewidth=1.5, foreground="white")]
        axis.text(*place, name, color=colour, fontsize=8, weight="bold", ha="center", va="center", path_effects=outline)


def speaker_clusters(stem: Path, panels: Mapping[str, Representations], note: str) -> None:
    """Utterances in the space of an LDA: densities in one dimension, points in two; a panel for each representation.

    Args:
        stem: path without ending.
        panels: representations by title, "" for none.
        note: for the title.
    """
    drawn = [(title, name, one) for title, names in panels.items() for name, one in names.items()]
    figure, axes = panel_grid(len(drawn), 3, (3.6, 3.0), (0.6, 0.4))
    for axis, (title, name, one) in zip(axes, drawn, strict=True):
        labels = np.array(one["places"]["labels"])
        classes = [label for label in (*GENDERS, *HEIGHTS) if label in labels]
        if np.array(one["places"]["fit_on_all"]).shape[1] == 1:
            heading = _densities(axis, one["places"], labels, classes)
            axis.set_xlabel(f"LDA 1 ({name})")
            axis.set_ylabel("density")
        else:
            places = np.array(one["places"]["fit_on_all"])
            heading = _look_at_most(axis, places)
            for place, label in enumerate(classes):
                x, y = places[labels == label].T
                axis.scatter(x, y, s=12, alpha=0.6, linewidths=0, color=f"C{place}", label=label)
            _name_axes(axis, name)
        axis.set_title(_joined(title, name, heading), fontsize=9)
        axis.grid(alpha=0.3)
    shared_legend(figure)
    _title(figure, note)
    save(figure, stem)


def _densities(axis, places: Mapping[str, Any], labels: np.ndarray, classes: list[str]) -> str:
    """Of items in LDAs that have not seen them (filled) and in one that has (dashed); returns how far they overlap."""
    held_out, fitted = (np.array(places[protocol])[:, 0] for protocol in ("leave_one_out", "fit_on_all"))
    everything = np.concatenate([held_out, fitted])
    margin = 0.15 * (np.ptp(everything) + LEAST_SPREAD)
    grid = np.linspace(everything.min() - margin, everything.max() + margin, DENSITY_POINTS)
    curves = []
    for place, label in enumerate(classes):
        curves.append(_density(held_out[labels == label], grid))
        axis.fill_between(grid, curves[-1], alpha=0.3, color=f"C{place}", linewidth=0)
        axis.plot(grid, curves[-1], color=f"C{place}", label=GENDERS.get(label, label))
        axis.plot(grid, _density(fitted[labels == label], grid), "--", color=f"C{place}", linewidth=0.9)
    axis.plot([], [], "--", color="0.4", linewidth=0.9, label="seen by the LDA")
    axis.set_ylim(bottom=0)
    return f"overlap {100 * np.trapezoid(np.min(curves, axis=0), grid):.0f} %" if len(curves) == 2 else ""


def _density(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Kernel density estimate; equal values, as of a collapsed level, get a kernel as wide as the grid's spacing."""
    from scipy.stats import gaussian_kde, norm

    if np.std(values) < LEAST_SPREAD:
        return norm.pdf(grid, values.mean(), 2 * (grid[1] - grid[0]))
    return gaussian_kde(values)(grid)


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _title(figure, note: str) -> None:
    """Wrapped so that it does not overlap the legend at the right."""
    characters = int((figure.get_figwidth() - 2 * LEGEND_INCHES) * CHARACTERS_PER_INCH)
    figure.suptitle(textwrap.fill(note, characters), fontsize=10)


def _name_axes(axis, name: str) -> None:
    axis.set_xlabel(f"LDA 1 ({name})")
    axis.set_ylabel(f"LDA 2 ({name})")
    axis.grid(alpha=0.3)
