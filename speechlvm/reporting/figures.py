"""Figures over experiments: bits per frame of each, and learning curves over time."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from speechlvm.reporting.collect import Cell
from speechlvm.reporting.pictures import new_figure, save_figure
from speechlvm.reporting.tables import Table
from speechlvm.scoring.results import EXACT_BOUNDS

BASELINE_SYSTEMS = ("uniform", "dmol", "flac")


def bits_figure(path: Path, cells: list[Cell], name: str, codings: Collection[str]) -> None:
    """Horizontal bars of bits per frame on one set, best on top; baselines in grey, 95 % intervals.

    `codings` are those whose bits compare with each other.
    """
    chosen = [c for c in cells if c.set == name and c.coding in codings and c.first["unit"] == "pmf"]
    chosen.sort(key=lambda c: c.mean("bits_per_frame"), reverse=True)
    figure = new_figure(figsize=(7, 0.6 + 0.32 * len(chosen)))
    axis = figure.add_subplot()
    for row, cell in enumerate(chosen):
        value = cell.mean("bits_per_frame")
        low, high = cell.first["bits_per_frame_interval"]
        grey = cell.first["system"] in BASELINE_SYSTEMS
        axis.barh(row, value, color="0.75" if grey else "tab:blue", height=0.7)
        axis.errorbar(value, row, xerr=[[max(0.0, value - low)], [max(0.0, high - value)]], color="0.2", capsize=2)
        axis.text(high + 0.03, row, f"{'' if cell.first['bound'] in EXACT_BOUNDS else '≤ '}{value:.2f}",
                  va="center", fontsize=8)  # fmt: skip
    axis.set_yticks(range(len(chosen)), [c.experiment for c in chosen], fontsize=8)
    values = [c.mean("bits_per_frame") for c in chosen]
    axis.set_xlim(max(0.0, min(values) - 1.0), max(values) + 0.6)
    axis.set_xlabel(f"bits per frame on {name} ({' and '.join(sorted({c.coding for c in chosen}))} cells)")
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def sweep_figure(path: Path, table: Table, results: dict[str, list[tuple[float, Cell]]]) -> None:
    """A table's unit over its axis, one line per set; bars are standard deviations over seeds.

    Args:
        path: PNG or PDF.
        table: with an axis.
        results: by set, from `tables.sweep`.
    """
    figure = new_figure(figsize=(5, 3.6))
    axis = figure.add_subplot()
    for name, places in results.items():
        values = [cell.mean(table.unit) for _, cell in places]
        deviations = [cell.deviation(table.unit) or 0.0 for _, cell in places]
        axis.errorbar([at for at, _ in places], values, yerr=deviations, marker="o", capsize=3, label=name)
    axis.set_xticks(sorted({row.at for row in table.rows}))
    bounds = {cell.first["bound"] in EXACT_BOUNDS for places in results.values() for _, cell in places}
    mark = "" if bounds == {True} else "≥ " if table.densities else "≤ "
    axis.set_xlabel(table.axis)
    axis.set_ylabel(mark + table.unit.replace("_", " "))
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    save_figure(figure, path)


def curves_figure(path: Path, curves: dict[str, list[dict[str, Any]]], field: str) -> None:
    """Validation over minutes of training, one line per run, lower is better.

    Args:
        path: PNG or PDF.
        curves: entries of history.jsonl by run.
        field: bits_per_frame, or nats_per_frame, whose negative is drawn.
    """
    sign = 1 if field == "bits_per_frame" else -1
    figure = new_figure(figsize=(7, 4.2))
    axis = figure.add_subplot()
    for name, curve in curves.items():
        axis.plot([e["seconds"] / 60 for e in curve], [sign * e[field] for e in curve], marker=".", label=name)
    first, last = ([sign * curve[place][field] for curve in curves.values()] for place in (0, -1))
    # the marginal at the start is far above what matters
    axis.set_ylim(min(last) - 0.1, min(max(first), max(last) + 2.0) + 0.1)
    axis.set_xlabel("training time [min]")
    axis.set_ylabel("validation bits per frame" if sign == 1 else "negative validation nats per frame")
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
    save_figure(figure, path)
