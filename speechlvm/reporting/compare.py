"""Published figures of a table next to ours: which scores belong in it, and which values are computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from speechlvm.reporting.collect import Score
from speechlvm.reporting.tables import Row, Table


@dataclass(frozen=True)
class ComparedRow:
    """A row of a table with our figures.

    Attributes:
        row: of the table.
        train_set: what its experiment was, or will be, trained on; "" for results of another program.
        scores: ours, by set.
        ours: by set, in the table's unit: means over seeds, or computed.
    """

    row: Row
    train_set: str
    scores: dict[str, Score]
    ours: dict[str, float]


@dataclass(frozen=True)
class ComparedTable:
    """A table with its figures.

    Attributes:
        table: as published.
        rows: in the order of the table's.
        lengths: mean frames per utterance of the sets where it is known.
        misplaced: (experiment, set, its output) of scores that have no place because of their output.
        unplaced: (folder, what they are of) of results of another program, if none of them has a place in its row.
    """

    table: Table
    rows: list[ComparedRow]
    lengths: dict[str, float]
    misplaced: list[tuple[str, str, str]]
    unplaced: list[tuple[str, str]]

    def published(self, name: str) -> bool:
        """Whether there are published figures on a set."""
        return any(name in row.published for row in self.table.rows)

    def compared(self, name: str) -> bool:
        """Whether differences can be taken on a set."""
        return self.table.comparable and self.published(name)

    def difference(self, item: ComparedRow, name: str) -> float | None:
        """Ours - published, where these can be compared."""
        if self.table.comparable and name in item.ours and name in item.row.published:
            return item.ours[name] - item.row.published[name]
        return None


def compare(table: Table, scores: list[Score], train_set: str) -> ComparedTable:
    """A table with the scores that have a place in it: of its unit, coding and training set, and of a row's output.

    Bounds are the one-sample ELBO, as published; another program's are what it has.

    Args:
        table: of the recipe.
        scores: its own, and those of the roots and folders that its rows name.
        train_set: name of what the recipe's own experiments were trained on.
    """
    unit = "density" if table.densities else "pmf"
    external = {row.external for row in table.rows if row.external}
    fitting = {
        (score.root, score.experiment, score.set): score
        for score in sorted(scores, key=lambda score: not score.tighter)  # the ELBO, where there are both
        if not score.tighter or score.root in external
        if score.first.unit == unit and (score.coding == table.coding or _is_of_the_signal(score))
        if score.root or table.train_set in ("", train_set)
    }
    lengths = {score.set: score.first.frames / score.first.utterances for score in scores}
    lengths.update(table.frames_per_utterance)
    rows, misplaced = [], []
    for row in table.rows:
        place = (row.external or row.root, row.experiment or "")
        found = {name: fitting.get((*place, name)) for name in table.sets}
        chosen: dict[str, Score] = {}
        for name, score in found.items():
            if score and row.distribution in (None, score.first.distribution.get("name")):
                chosen[name] = score
            elif score:
                misplaced.append((row.experiment or row.external, name, score.output))
        ours = {name: score.mean(table.unit) for name, score in chosen.items()}
        if row.minimum_std is not None:
            ours = {name: lengths[name] * row.largest_log_density for name in table.sets if name in lengths}
        trained_on = "" if row.external else PurePosixPath(row.root).name or table.train_set or train_set
        rows.append(ComparedRow(row, trained_on, chosen, ours))
    placed = {(score.experiment or score.root, score.set) for row in rows for score in row.scores.values()}
    blank = external - {row.row.external for row in rows if row.scores} - {each[0] for each in misplaced}
    unplaced = [(score.root, _contents(score)) for score in scores if score.root in blank]
    return ComparedTable(table, rows, lengths, [each for each in misplaced if each[:2] not in placed], unplaced)


def _contents(score: Score) -> str:
    """What a score is of, as in its result.json."""
    return f"set {score.set}, coding {score.coding}, unit {score.first.unit}"


def _is_of_the_signal(score: Score) -> bool:
    """Whether it is a reference that has no coding of its own, and so has a place under every coding."""
    return score.first.bound == "code-length" or score.first.system == "adaptive"


def sweep(compared: ComparedTable) -> dict[str, list[tuple[float, Score]]]:
    """Scores of a table with an axis, by set and in the order of the axis; sets without any are left out."""
    rows = sorted(compared.rows, key=lambda item: item.row.at)
    found = {
        name: [(item.row.at, item.scores[name]) for item in rows if name in item.scores] for name in compared.table.sets
    }
    return {name: places for name, places in found.items() if places}
