"""The papers' tables next to our scores as grids; unknown cells stay blank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from speechlvm.reporting.collect import Score
from speechlvm.reporting.compare import ComparedRow, ComparedTable
from speechlvm.reporting.formats import Column, Grid
from speechlvm.reporting.tables import Row

TRAINING = [Column(name, number=True) for name in ("training", "steps", "seeds")]


def number(value: float | None, unit: str) -> str:
    """One of our figures: three decimals of bits, whole nats; blank if unknown."""
    if value is None:
        return ""
    return f"{value:.3f}" if unit == "bits_per_frame" else f"{value:.0f}"


def mean_and_std(score: Score, unit: str, render: Callable[[float | None, str], str] = number) -> str:
    """Mean over seeds with its sign, and their standard deviation."""
    std = score.std(unit)
    return score.sign + render(score.mean(unit), unit) + ("" if std is None else f" +-{render(std, unit)}")


def training_cells(score: Score | None) -> list[str]:
    """Cells under `TRAINING`: time, steps and seeds; blank where nothing was trained."""
    if score is None or score.first.steps is None or score.first.hours is None:
        return ["", "", ""]
    hours = score.mean("hours")
    time = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
    return [time, f"{score.mean('steps'):.0f}", str(len(score.results))]


def published_grid(compared: ComparedTable) -> Grid:
    """One of the papers' tables: published, ours, difference, and what ours was trained with.

    The records have all digits, one for each row and set.
    """
    table = compared.table
    several = any(row.root for row in table.rows)
    measured = any(row.origin for row in table.rows)
    columns = [Column("s", number=True), Column("system"), Column("configuration")]
    columns += [Column("trained on")] if several else []
    for name in table.sets:
        length = compared.lengths.get(name)
        group = f"{name} ({length:.1f} frames per utterance)" if table.computed and length else name
        heads = ["published"] if compared.published(name) else []
        heads += ["ours", "difference"] if compared.compared(name) else ["ours"]
        columns += [Column(head, group, number=True) for head in heads]
    if measured:
        columns += [Column("bound"), *([Column("output")] if table.densities else []), *TRAINING, Column("experiment")]
    rows = []
    for item in compared.rows:
        cells = [str(item.row.s or "-"), item.row.system, item.row.configuration]
        cells += [item.train_set] if several else []
        for name in table.sets:
            cells += _value_cells(compared, item, name)
        if measured:
            score = next(iter(item.scores.values()), None)
            outputs = [score.output if score else ""] if table.densities else []
            cells += [score.bound if score else "", *outputs, *training_cells(score), item.row.origin]
        rows.append(cells)
    title = f"Table {table.table}: {table.title}"
    records = [_record(compared, item, name) for item in compared.rows for name in table.sets]
    return Grid(table.table, title, columns, rows, table.note, records)


def _value_cells(compared: ComparedTable, item: ComparedRow, name: str) -> list[str]:
    """Published, ours and difference on a set, of these what the table shows."""
    unit, digits = compared.table.unit, 3 if compared.table.unit == "bits_per_frame" else 0
    score, ours, difference = item.scores.get(name), item.ours.get(name), compared.difference(item, name)
    if item.row.minimum_std is not None:
        cells, digits = ["" if ours is None else f"{ours:.1f}"], 1
    else:
        cells = [mean_and_std(score, unit) if score else ""]
    if compared.published(name):
        cells.insert(0, _published(item.row.published.get(name), item.row, unit))
    if compared.compared(name):
        cells.append("" if difference is None else f"{difference:+.{digits}f}")
    return cells


def _published(value: float | None, row: Row, unit: str) -> str:
    """A paper's figure with the paper's digits: two decimals of bits, or as many as its row has; blank if unknown."""
    if value is None:
        return ""
    if unit != "bits_per_frame":
        return row.mark + number(value, unit)
    decimals = max(len(repr(each).partition(".")[2]) for each in row.published.values())
    return f"{row.mark}{value:.{max(2, decimals)}f}"


def _record(compared: ComparedTable, item: ComparedRow, name: str) -> dict[str, Any]:
    """A row on one set with all digits; None where nothing is known."""
    table, row, score = compared.table, item.row, item.scores.get(name)
    distribution = score.first.distribution if score else {}
    return {
        "table": table.table,
        "s": row.s,
        "system": row.system,
        "configuration": row.configuration,
        "at": row.at,
        "experiment": row.origin or None,
        "train_set": item.train_set if row.experiment else None,
        "set": name,
        "coding": score.coding if score else table.coding,
        "unit": table.unit,
        "published_mark": row.mark if name in row.published else None,
        "published": row.published.get(name),
        "bound": score.first.bound if score else None,
        "ours": item.ours.get(name),
        "standard_deviation": score.std(table.unit) if score else None,
        "difference": compared.difference(item, name),
        "seeds": len(score.results) if score and score.first.steps is not None else None,
        "training_hours": score.mean("hours") if score else None,
        "training_steps": score.mean("steps") if score else None,
        "parameters": score.first.parameters if score else None,
        "distribution": distribution.get("name"),
        "components": distribution.get("components"),
        "minimum_std": row.minimum_std or distribution.get("minimum_std"),
    }
