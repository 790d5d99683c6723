"""Bits of the PCM signal over training time: models and their files beside lossless codecs."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speechlvm.reporting.collect import File, Score
from speechlvm.reporting.figures import save
from speechlvm.reporting.pictures import new_figure

# Colours of Okabe and Ito, which the colour-blind can tell apart; markers tell systems of similar grey apart.
STYLES = {
    "wavenet": ("#0072B2", "s"),
    "lstm": ("#E69F00", "o"),
    "vrnn": ("#009E73", "^"),
    "srnn": ("#CC79A7", "v"),
    "cwvae": ("#D55E00", "d"),
    "stcn": ("#56B4E9", "p"),
    "stochastic_wavenet": ("#6A3D9A", "h"),
    "zforcing": ("#7F6000", "P"),
}
REFERENCES = {
    "flac": "FLAC",
    "flac-cli": "FLAC as its program writes it",
    "wavpack": "WavPack",
    "adaptive": "adaptive, untrained",
    "dmol": "DMoL, memoryless",
}
LEFT, WIDTH, BOTTOM = 0.7, 4.2, 1.2  # inches: margin, axes, margin with the legend
LABEL_INCHES = 0.19  # between the lines of labels
HOLLOW = {"markersize": 6.5, "markerfacecolor": "white", "markeredgewidth": 1.4}
ARROW = {"marker": r"$\downarrow$", "markersize": 6.5, "markeredgewidth": 0}
BESIDE = 7.0  # points between the markers of a likelihood and of its file


class _Label(NamedTuple):
    """Text to the right of the axes, at the height of what it names."""

    at: float
    text: str
    colour: str
    marker: str


def compute_figure(
    stem: Path, scores: Sequence[Score], name: str, codings: Collection[str], files: Sequence[File]
) -> None:
    """Bits per sample on one set over the hours of training; nothing if no model has been scored.

    A hollow marker is a likelihood, with an arrow if it is a bound. The filled one beside it is its file; where a file
    holds only a part of the set, it is the bits on the set times what the file takes more than the model says of that
    part. Initial bits of bits back, which do not grow with the number of utterances, are a line on top of it. Lines
    join experiments with the same network, references are horizontal lines.

    Args:
        stem: path without ending.
        scores: of the recipe.
        name: of the set.
        codings: whose bits are those of the signal.
        files: of all experiments and sets.
    """
    here = [score for score in scores if score.set == name and score.coding in codings and not score.root]
    trained = [score for score in here if not score.is_reference and score.mean("hours")]
    references = [score for score in here if score.is_reference and score.first.system != "uniform"]
    if not trained:
        return
    found = {score.experiment: [f for f in files if (f.model, f.set) == (score.experiment, name)] for score in trained}
    labels = [_of_reference(score) for score in references]
    networks = _networks(trained)
    labels += [_of_network(network) for network in networks]
    height = max(4.6, LABEL_INCHES * (len(labels) + 2))
    figure = new_figure(figsize=(LEFT + WIDTH + 2.6, BOTTOM + height + 0.4))
    inches = figure.get_size_inches()
    axis = figure.add_axes((LEFT / inches[0], BOTTOM / inches[1], WIDTH / inches[0], height / inches[1]))
    for score in references:
        axis.axhline(_bits(score), color="0.5", linewidth=1.2, zorder=1)
    values = [label.at for label in labels]
    for network in networks:
        values += _draw_network(axis, network, found)
    _set_scales(axis, [score.mean("hours") for score in trained], values)
    _write_labels(axis, labels, LABEL_INCHES / height)
    _explain(figure, axis, trained, [file for own in found.values() for file in own])
    axis.set_xlabel("training time [h]")
    axis.set_ylabel("bits per sample")
    axis.set_title(f"Bits of the 16-bit signal on {name}", fontsize=11, loc="left")
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    save(figure, stem)


def _bits(score: Score) -> float:
    return score.mean("bits_per_frame")


def _style(system: str) -> tuple[str, str]:
    return STYLES.get(system, ("0.2", "X"))


def _networks(scores: Sequence[Score]) -> list[list[Score]]:
    """Scores of the same network and bound, in order of training time."""
    found: dict[tuple, list[Score]] = {}
    for score in sorted(scores, key=lambda score: score.mean("hours")):
        first = score.first
        key = (first.system, first.parameters, first.stack, first.bound, score.coding)
        found.setdefault(key, []).append(score)
    return list(found.values())


def _of_reference(score: Score) -> _Label:
    return _Label(
        _bits(score), f"{REFERENCES.get(score.first.system, score.experiment)}  {_bits(score):.2f}", "0.5", ""
    )


def _of_network(network: Sequence[Score]) -> _Label:
    """What the experiments' names have in common, and the bits of that trained longest."""
    last = network[-1]
    parts = os.path.commonprefix([score.experiment.split("_") for score in network])
    words = f"{'_'.join(parts) or last.experiment}  {last.symbol}{_bits(last):.2f}"
    return _Label(_bits(last), words, *_style(last.first.system))


def _draw_network(axis: Any, network: Sequence[Score], found: dict[str, list[File]]) -> list[float]:
    """Markers of a network's likelihoods and files, and the line through the former; returns their bits."""
    from matplotlib.transforms import ScaledTranslation

    def shifted(right: float, up: float) -> Any:
        return axis.transData + ScaledTranslation(right / 72, up / 72, axis.figure.dpi_scale_trans)

    colour, marker = _style(network[0].first.system)
    hours, bits = [score.mean("hours") for score in network], [_bits(score) for score in network]
    axis.plot(hours, bits, color=colour, linewidth=1.4, zorder=3, marker=marker, **HOLLOW)
    axis.hlines(bits[-1], hours[-1], 1e9, color=colour, linewidth=0.7, linestyle=":", alpha=0.7, zorder=1)
    values = bits.copy()
    for score, at, own in zip(network, hours, bits, strict=True):
        if score.symbol:
            axis.plot(at, own, color=colour, transform=shifted(0, -8.5), zorder=4, **ARROW)
        one = found[score.experiment]
        if one and score.first.bound in ("exact", "elbo"):  # files are of the bound with one sample
            whole = own * sum(8 * file.file_bytes for file in one) / sum(file.model_bits for file in one)
            net = whole - own * sum(file.initial_bits for file in one) / sum(file.model_bits for file in one)
            beside = shifted(BESIDE, 0)
            axis.vlines(at, net, whole, color=colour, linewidth=1.4, transform=beside, zorder=3)
            axis.plot(at, net, marker=marker, markersize=6, color=colour, transform=beside, zorder=4)
            values.append(net)
    return values


def _set_scales(axis: Any, hours: Sequence[float], values: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ratio = max(hours) / min(hours)
    beyond = max(1.6, np.sqrt(10 / ratio))  # at least a decade
    axis.set_xscale("log")
    axis.set_xlim(min(hours) / beyond, max(hours) * beyond)
    steps = (1, 2, 5) if ratio < 1000 else (1,)
    axis.xaxis.set_major_locator(FixedLocator([step * 10.0**power for power in range(-6, 7) for step in steps]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    margin = max(0.05 * (max(values) - min(values)), 0.1)
    axis.set_ylim(min(values) - 1.5 * margin, max(values) + margin)


def _write_labels(axis: Any, labels: Sequence[_Label], distance: float) -> None:
    """All labels beside the axes, each as near to its height as the others let it.

    Args:
        axis: with its final limits.
        labels: what to write.
        distance: between two lines, as a share of the axis' height.
    """
    low, high = axis.get_ylim()
    labels = sorted(labels, key=lambda label: label.at)
    heights = [(label.at - low) / (high - low) for label in labels]
    for label, height, place in zip(labels, heights, spread(heights, distance), strict=True):
        style = {"color": label.colour, "transform": axis.transAxes, "clip_on": False}
        axis.plot([1.0, 1.015, 1.05, 1.06], [height, height, place, place], linewidth=0.8, **style)
        if label.marker:
            axis.plot(1.075, place, marker=label.marker, **HOLLOW, **style)
        left = 1.1 if label.marker else 1.07
        axis.text(left, place, label.text, color="0.1", fontsize=9.5, va="center", transform=axis.transAxes)


def spread(places: Sequence[float], distance: float) -> np.ndarray:
    """The nearest places (in squares) from 0 to 1 that are in the same order and at least a distance apart.

    Args:
        places: ascending.
        distance: which leaves room for all of them.
    """
    from scipy.optimize import isotonic_regression

    steps = distance * np.arange(len(places))
    return np.clip(isotonic_regression(np.array(places) - steps).x, 0, 1 - steps[-1]) + steps


def _explain(figure: Any, axis: Any, trained: Sequence[Score], files: Sequence[File]) -> None:
    """What the kinds of markers mean, below the axis."""
    from matplotlib.lines import Line2D

    grey = {"color": "0.3", "linestyle": "none"}
    entries = {}
    if any(not score.symbol for score in trained):
        entries["likelihood"] = Line2D([], [], marker="o", **HOLLOW, **grey)
    if any(score.symbol for score in trained):
        entries["bound: at most so many bits"] = Line2D([], [], **ARROW, **grey)
    if files:
        entries["its file, scaled to the whole set"] = Line2D([], [], marker="o", markersize=6, **grey)
    if any(file.initial_bits for file in files):
        entries["with the initial bits of bits back"] = Line2D(
            [], [], marker="|", markersize=9, markeredgewidth=1.4, **grey
        )
    figure.legend(
        entries.values(), entries.keys(), loc="upper left", ncols=2, fontsize=9, frameon=False, borderaxespad=0,
        bbox_to_anchor=(0, -0.5 / (axis.get_position().height * figure.get_size_inches()[1])),
        bbox_transform=axis.transAxes, handletextpad=0.4, columnspacing=1.5,
    )  # fmt: skip
