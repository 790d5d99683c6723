"""Figures over experiments: bits per frame of each, sweeps, and learning curves over time; each as PNG and PDF."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection
from pathlib import Path
from typing import Any

from speechlvm.reporting.analysis_results import SPECTRA, MeanCurve
from speechlvm.reporting.collect import Score
from speechlvm.reporting.pictures import new_figure, panel_grid, save_figure
from speechlvm.reporting.tables import Table

LEGEND_ROWS = 26
LEAST_KL = 1e-5  # drawn on logarithmic axes, bits per frame
LINE_STYLES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))


def save(figure, stem: Path) -> None:
    """<stem>.png and <stem>.pdf."""
    save_figure(figure, *(stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")))


def shared_legend(figure) -> None:
    """One for all panels, at the right."""
    entries = {label: h for axis in figure.axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside right upper", fontsize=8)


def bits_figure(stem: Path, scores: list[Score], name: str, codings: Collection[str]) -> None:
    """Horizontal bars of bits per frame on one set, best on top; baselines in grey.

    Whiskers are standard deviations over seeds, or the 95 % interval over utterances where there is one seed.

    Args:
        stem: path without ending.
        scores: of the recipe.
        name: of the set.
        codings: to show together; their bits must be comparable.
    """
    chosen = [c for c in scores if c.set == name and c.coding in codings and c.first.unit == "pmf"]
    chosen.sort(key=lambda c: (-c.mean("bits_per_frame"), c.experiment))
    figure = new_figure(figsize=(7, 1.0 + 0.26 * len(chosen)))
    axis = figure.add_subplot()
    values = [c.mean("bits_per_frame") for c in chosen]
    width = max(values) - max(0.0, min(values) - 1.0)
    whiskers = [_whiskers(score) for score in chosen]
    colours = ["0.75" if score.is_reference else "tab:blue" for score in chosen]
    axis.barh(range(len(chosen)), values, color=colours, height=0.7)
    axis.errorbar(
        values, range(len(chosen)), xerr=list(zip(*whiskers, strict=True)), fmt="none", color="0.2", capsize=2
    )
    for row, (score, value, (_, above)) in enumerate(zip(chosen, values, whiskers, strict=True)):
        axis.text(value + above + 0.015 * width, row, f"{score.symbol}{value:.2f}", va="center", fontsize=8)
    axis.set_yticks(range(len(chosen)), [c.label for c in chosen], fontsize=8)
    axis.set_ylim(-0.7, len(chosen) - 0.3)
    axis.set_xlim(max(values) - width, max(values) + 0.15 * width)
    axis.set_xlabel(f"bits per frame on {name} ({' and '.join(sorted({c.coding for c in chosen}))} cells)")
    axis.spines[["top", "right"]].set_visible(False)
    save(figure, stem)


def _whiskers(score: Score) -> tuple[float, float]:
    """How far they reach below and above the mean."""
    std = score.std("bits_per_frame")
    if std is not None:
        return std, std
    value = score.first.bits_per_frame
    interval = score.first.bits_per_frame_interval or [value, value]
    return max(0.0, value - interval[0]), max(0.0, interval[1] - value)


def sweep_figure(stem: Path, table: Table, results: dict[str, list[tuple[float, Score]]]) -> None:
    """A table's unit over its axis, one line per set; whiskers are standard deviations over seeds.

    Args:
        stem: path without ending.
        table: with an axis.
        results: by set, from `compare.sweep`.
    """
    figure = new_figure(figsize=(5, 3.6))
    axis = figure.add_subplot()
    for name, places in results.items():
        at, values = [at for at, _ in places], [score.mean(table.unit) for _, score in places]
        [line] = axis.plot(at, values, marker="o", label=name)
        several = [(at, value, score.std(table.unit)) for (at, score), value in zip(places, values, strict=True)]
        several = [place for place in several if place[2] is not None]
        if several:
            axis.errorbar(*zip(*several, strict=True), fmt="none", color=line.get_color(), capsize=3)
    axis.set_xticks(sorted({row.at for row in table.rows}))
    axis.margins(x=0.08)
    signs = {score.symbol for places in results.values() for _, score in places}
    axis.set_xlabel(table.axis)
    axis.set_ylabel(max(signs) + table.unit.replace("_", " "))
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    save(figure, stem)


def curves_figure(stem: Path, curves: dict[str, list[dict[str, Any]]], field: str) -> None:
    """Validation over minutes of training, one line per run, lower is better.

    The legend lists runs in the order of their last values, the worst on top as in the figure; runs of one
    experiment have one colour.

    Args:
        stem: path without ending.
        curves: entries of history.jsonl by run.
        field: bits_per_frame, or nats_per_frame, whose negative is drawn.
    """
    sign = 1 if field == "bits_per_frame" else -1
    runs = sorted(curves, key=lambda run: -sign * curves[run][-1][field])
    figure = new_figure(figsize=(7, 4.6))
    axis = figure.add_subplot()
    for run, style in _styles(runs).items():
        axis.plot([e["seconds"] / 60 for e in curves[run]], [sign * e[field] for e in curves[run]], **style)
    first, last = ([sign * curve[place][field] for curve in curves.values()] for place in (0, -1))
    least = min(sign * entry[field] for curve in curves.values() for entry in curve)
    # the marginal at the start is far above what matters
    height = max(max(last) - least, 0.25 * (statistics.median(first) - least), 1e-3)
    axis.set_ylim(least - 0.05 * height, min(max(first), max(last) + height) + 0.05 * height)
    axis.set_xlabel("training time [min]")
    axis.set_ylabel("validation bits per frame" if sign == 1 else "negative validation nats per frame")
    columns = -(-len({run.partition("/")[0] for run in runs}) // LEGEND_ROWS)
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.01), borderaxespad=0, ncols=columns)
    axis.grid(alpha=0.3)
    save(figure, stem)


def kl_figure(stem: Path, curves: dict[str, list[dict[str, Any]]], levels: Collection[str]) -> None:
    """KL of each level on the validation set over minutes of training: a panel per level, a line per run.

    Args:
        stem: path without ending.
        curves: entries of history.jsonl by run.
        levels: names of the levels, z1 first.
    """
    figure, axes = panel_grid(len(levels), 3, (3.6, 3.2), (2.5, 0.0))
    terms = {f"kl_{level}" for level in levels}
    styles = _styles(sorted(run for run, curve in curves.items() if terms & set(curve[-1]["terms_nats_per_frame"])))
    for axis, level in zip(axes, levels, strict=True):
        for run, style in styles.items():
            if f"kl_{level}" in curves[run][-1]["terms_nats_per_frame"]:
                values = [max(e["terms_nats_per_frame"][f"kl_{level}"] / math.log(2), LEAST_KL) for e in curves[run]]
                axis.plot([e["seconds"] / 60 for e in curves[run]], values, **style)
        axis.set_yscale("log")
        axis.set_title(level, fontsize=10)
        axis.set_xlabel("training time [min]")
        axis.set_ylabel("validation KL [bits per frame]")
        axis.grid(alpha=0.3)
    shared_legend(figure)
    save(figure, stem)


def _styles(runs: Collection[str]) -> dict[str, dict[str, Any]]:
    """Of the lines of runs: one colour and one entry of the legend for each experiment, in this order."""
    from matplotlib import colormaps

    experiments: dict[str, list[str]] = {}
    for run in runs:
        experiments.setdefault(run.partition("/")[0], []).append(run)
    styles = {}
    for place, (experiment, seeds) in enumerate(experiments.items()):
        colour = colormaps["turbo"](0.05 + 0.9 * place / max(1, len(experiments) - 1))
        style = {"linestyle": LINE_STYLES[place % len(LINE_STYLES)], "linewidth": 1, "marker": ".", "markersize": 3}
        label = f"{experiment} ({len(seeds)} seeds)" if len(seeds) > 1 else experiment
        for seed, name in zip(seeds, [label, *[None] * len(seeds)], strict=False):
            styles[seed] = {"color": colour, "label": name, **style}
    return styles


def neighbours_figure(stem: Path, panels: dict[str, list[MeanCurve]]) -> None:
    """Accuracy over k, a panel for each subject, a line for each representation; spectra in grey, chance dotted.

    Representations of one experiment have one colour.

    Args:
        stem: path without ending.
        panels: curves by title.
    """
    from matplotlib import colormaps

    everything = dict.fromkeys((c.experiment, c.representation) for curves in panels.values() for c in curves)
    experiments = list(dict.fromkeys(experiment for experiment, _ in everything if experiment != SPECTRA))
    figure, axes = panel_grid(len(panels), 2, (4.2, 3.4), (2.5, 0.0))
    lines = {}
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for curve in curves:
            who = (curve.experiment, curve.representation)
            own = [name for experiment, name in everything if experiment == curve.experiment]
            place = own.index(curve.representation)
            if curve.experiment == SPECTRA:
                colour = str(0.1 + 0.6 * place / len(own))
            else:
                colour = colormaps["turbo"](0.05 + 0.9 * experiments.index(who[0]) / max(1, len(experiments) - 1))
            k, percent = range(1, len(curve.accuracy) + 1), [100 * value for value in curve.accuracy]
            style = LINE_STYLES[place % len(LINE_STYLES)]
            [lines[who]] = axis.plot(k, percent, linestyle=style, color=colour, linewidth=1.2)
        for chance in {curve.chance for curve in curves}:
            dotted = axis.axhline(100 * chance, color="0.5", linewidth=1, linestyle=":")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("k")
        axis.set_ylabel("accuracy [%]")
        axis.grid(alpha=0.3)
    names = [" ".join(who) for who in everything] + ["largest class"]
    handles = [*(lines[who] for who in everything), dotted]
    columns = -(-len(names) // (18 * -(-len(panels) // 2)))
    figure.legend(handles, names, loc="outside right upper", fontsize=7, ncols=columns)
    save(figure, stem)
