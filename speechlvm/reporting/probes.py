"""Results of probes: error rates over the amount of labelled data, as a figure and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechlvm.reporting.figures import LINE_STYLES, save, shared_legend
from speechlvm.reporting.pictures import panel_grid
from speechlvm.utils.text import counted

TITLES = {
    "phone_error_rate": "phones: phone error rate [%]",
    "unit_error_rate": "units: unit error rate [%]",
    "word_error_rate": "units: word error rate [%]",
    "accuracy": "steps: phones not recognised [%]",
}
PANEL_ROWS = 2

Result = Mapping[str, Any]
"""Contents of probes/result.json."""
Point = tuple[float, float, float]
"""Minutes of training data, error in per cent, its standard deviation."""


def probes_figure(stem: Path, results: Sequence[Result]) -> None:
    """A panel for each error rate, a line for each representation; whiskers are standard deviations over seeds.

    Where all was trained on one size of the data, lines become bars. Of steps, a dotted line shows the error of always
    naming the commonest phone.

    Args:
        stem: path without ending.
        results: of one experiment, and of other sources to compare with.
    """
    from matplotlib import colormaps

    metrics = [name for name in TITLES if any(name in row for row in results[0]["summary"])]
    names = list(
        dict.fromkeys((p, row["representation"]) for p, result in enumerate(results) for row in result["summary"])
    )
    colours = {key: colormaps["turbo"](0.05 + 0.9 * i / max(1, len(names) - 1)) for i, key in enumerate(names)}
    columns = -(-len(metrics) // PANEL_ROWS)
    figure, axes = panel_grid(len(metrics), columns, (4.6, 1.2 + max(2.2, 0.26 * len(names))), (1.4, 0.0))
    for axis, metric in zip(axes, metrics, strict=True):
        curves = {(place, name): _curve(results[place], name, metric) for place, name in names}
        curves = {key: curve for key, curve in curves.items() if curve}
        chance = _chance(results[0], metric)
        if all(len(curve) == 1 for curve in curves.values()):
            _bars(axis, {key: curve[0] for key, curve in curves.items()}, colours, TITLES[metric], chance)
        else:
            _lines(axis, curves, colours, TITLES[metric], chance)
    shared_legend(figure)
    save(figure, stem)


def _chance(result: Result, metric: str) -> float | None:
    """Error in per cent of a constant guess; None where that is no figure to compare with."""
    values = (task["chance"][metric] for task in result["tasks"].values() if metric in task["chance"])
    return next((100 * (1 - value) for value in values), None)


def _curve(result: Result, name: str, metric: str) -> list[Point]:
    """Points of a representation, fewest minutes first."""
    return sorted(
        (
            row["minutes"],
            100 * (1 - row[metric] if metric == "accuracy" else row[metric]),
            100 * (row[f"{metric}_std"] or 0),
        )
        for row in result["summary"]
        if row["representation"] == name and metric in row
    )


def _lines(
    axis, curves: Mapping[tuple[int, str], list[Point]], colours: Mapping, title: str, chance: float | None
) -> None:
    """Error over minutes of training data."""
    for (place, name), curve in curves.items():
        minutes, values, stds = zip(*curve, strict=True)
        style = LINE_STYLES[place % len(LINE_STYLES)]
        axis.errorbar(minutes, values, stds, ls=style, marker="o", capsize=3, color=colours[place, name], label=name)
    if chance is not None:
        axis.axhline(chance, color="0.4", linestyle=":", label="chance")
    axis.set_xscale("log")
    ticks = sorted({round(minutes, 1) for curve in curves.values() for minutes, _, _ in curve})
    axis.set_xticks(ticks, [f"{minutes:g}" for minutes in ticks])
    axis.minorticks_off()
    axis.set_xlabel("labelled training data [min]")
    axis.set_ylabel(title)
    axis.grid(alpha=0.3)


def _bars(axis, values: Mapping[tuple[int, str], Point], colours: Mapping, title: str, chance: float | None) -> None:
    """Horizontal bars, the first on top."""
    order = list(values)
    widths, stds = [values[key][1] for key in order], [values[key][2] for key in order]
    axis.barh(range(len(order)), widths, xerr=stds, color=[colours[key] for key in order], height=0.7, capsize=2)
    for row, (width, std) in enumerate(zip(widths, stds, strict=True)):
        axis.text(width + std + 1, row, f"{width:.1f}", va="center", fontsize=8)
    axis.set_yticks(range(len(order)), [name for _, name in order], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, max(width + std for width, std in zip(widths, stds, strict=True)) * 1.15)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel(title)
    if chance is not None:
        axis.axvline(chance, color="0.4", linestyle=":", label="chance")
        axis.set_xlim(right=max(axis.get_xlim()[1], 1.05 * chance))


def describe(result: Result) -> str:
    """Lines that say what was left out, and the means and standard deviations of each task, representation and size."""
    lines = []
    for name, task in result["tasks"].items():
        for part in ("train", "valid", "test"):
            for what, utterances in (("no labels", task["unlabelled"][part]), ("too short", task["too_short"][part])):
                if utterances:
                    some = ", ".join(utterances[:3]) + (", ..." if len(utterances) > 3 else "")
                    lines.append(f"{name}: {part}: {counted(len(utterances), 'utterances')}: {what}: {some}")
        there = task["minutes"]["train"]
        lines += [f"{name}: {size} minutes: {there:.1f} are there, the same as all" for size in task["same_as_all"]]
    for row in result["summary"]:
        scores = [
            f"{metric.replace('_', ' ')} {100 * row[metric]:.1f}"
            + (f" +- {100 * row[f'{metric}_std']:.1f} %" if row[f"{metric}_std"] is not None else " %")
            for metric in TITLES
            if metric in row
        ]
        lines.append(
            f"{row['task']}: {row['representation']}, {row['size']} ({row['minutes']:.1f} min): {', '.join(scores)}"
        )
    return "\n".join(lines)
