"""Published figures of a table next to ours: which results belong in it, and which values are computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from speechlvm.reporting.collect import Cell
from speechlvm.reporting.tables import Row, Table


@dataclass(frozen=True)
class Entry:
    """A row's figures on one set, in the table's unit; what is unknown is None.

    Attributes:
        published: the paper's.
        ours: mean over seeds, or computed.
        deviation: standard deviation over seeds, if there are several.
        difference: ours - published, where these can be compared.
        cell: our result.
    """

    published: float | None
    ours: float | None
    deviation: float | None
    difference: float | None
    cell: Cell | None


@dataclass(frozen=True)
class Line:
    """A row with its figures.

    Attributes:
        row: of the table.
        train_set: what its experiment was, or will be, trained on.
        entries: by set.
    """

    row: Row
    train_set: str
    entries: dict[str, Entry]

    @property
    def cells(self) -> dict[str, Cell]:
        """Our results, by set."""
        return {name: entry.cell for name, entry in self.entries.items() if entry.cell}


@dataclass(frozen=True)
class Comparison:
    """A table with its figures.

    Attributes:
        table: as published.
        lines: in the order of its rows.
        lengths: mean frames per utterance of the sets where it is known.
        misplaced: (experiment, set, its output) of results that have no place because of their output.
    """

    table: Table
    lines: list[Line]
    lengths: dict[str, float]
    misplaced: list[tuple[str, str, str]]

    def published(self, name: str) -> bool:
        """Whether there are published figures on a set."""
        return any(name in line.row.published for line in self.lines)

    def compared(self, name: str) -> bool:
        """Whether differences can be taken on a set."""
        return self.table.comparable and self.published(name)


def compare(table: Table, cells: list[Cell], train_set: str) -> Comparison:
    """A table with the results that have a place in it: of its unit, coding and training set, and of a row's output.

    Args:
        table: of the recipe.
        cells: its results, and those of the roots that its rows name.
        train_set: name of what the recipe's own experiments were trained on.
    """
    unit = "density" if table.densities else "pmf"
    fitting = {
        (cell.root, cell.experiment, cell.set): cell
        for cell in cells
        if cell.first.unit == unit and (cell.coding == table.coding or _of_the_signal(cell))
        if cell.root or table.train_set in ("", train_set)
    }
    lengths = {cell.set: cell.first.frames / cell.first.utterances for cell in cells}
    lengths.update(table.frames_per_utterance)
    lines, misplaced = [], []
    for row in table.rows:
        entries = {}
        for name in table.sets:
            cell = fitting.get((row.root, row.experiment, name))
            if cell and row.distribution not in (None, cell.first.distribution.get("name")):
                misplaced.append((row.experiment, name, output(cell)))
                cell = None
            entries[name] = _entry(table, row, name, cell, lengths.get(name))
        lines.append(Line(row, PurePosixPath(row.root).name or table.train_set or train_set, entries))
    placed = {(cell.experiment, cell.set) for line in lines for cell in line.cells.values()}
    return Comparison(table, lines, lengths, [each for each in misplaced if each[:2] not in placed])


def _of_the_signal(cell: Cell) -> bool:
    """Whether it is a reference that has no coding of its own, and so has a place beside every coding."""
    return cell.first.bound == "code-length" or cell.first.system == "adaptive"


def _entry(table: Table, row: Row, name: str, cell: Cell | None, length: float | None) -> Entry:
    published = row.published.get(name)
    ours = deviation = None
    if cell:
        ours, deviation = cell.mean(table.unit), cell.deviation(table.unit)
    elif row.minimum_std is not None and length is not None:
        ours = length * row.largest_log_density
    known = table.comparable and ours is not None and published is not None
    return Entry(published, ours, deviation, ours - published if known else None, cell)


def output(cell: Cell) -> str:
    """Output distribution with its settings, above all the floor that bounds a density."""
    settings: dict[str, Any] = dict(cell.first.distribution)
    name, components = settings.pop("name", ""), settings.pop("components", None)
    words = [f"{name}({components})" if components else name]
    if (floor := settings.pop("minimum_std", None)) is not None:
        words.append(f"std >= {floor:g}" if floor else "no floor")
    for key, value in sorted(settings.items()):
        words.append(f"{'' if value else 'not '}{key}" if isinstance(value, bool) else f"{key} {value}")
    return ", ".join(words)


def sweep(comparison: Comparison) -> dict[str, list[tuple[float, Cell]]]:
    """Results of a table with an axis, by set and in the order of the axis; sets without any are left out."""
    lines = sorted(comparison.lines, key=lambda line: line.row.at)
    found = {
        name: [(line.row.at, line.cells[name]) for line in lines if name in line.cells]
        for name in comparison.table.sets
    }
    return {name: places for name, places in found.items() if places}
