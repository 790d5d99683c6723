"""The papers' tables and published figures: the files in a recipe's conf/tables.

A table is a YAML file with the table's name:

    table: A1
    title: what it is
    unit: bits_per_frame            # of codes or PCM values; or nats_per_utterance, of normalised values
    coding: mulaw                   # results under another coding, or in another unit, have no place in it
    sets: [test]                    # sets of this recipe, up to three columns each
    train_set: train                # of a recipe with several: this recipe's results of another have no place in it
    comparable: true                # false: published on another corpus, no differences are printed
    note: printed below it
    axis: stochastic layers S       # a sweep, drawn as a figure over `at` of its rows
    frames_per_utterance: {paper: 49367.3}   # sets of which only that is known, for rows that are computed from it
    rows:
      - {s: 64, system: LSTM, configuration: Dd=256, experiment: lstm_s64, published: {test: 13.34}}
      - {s: 64, system: VRNN, configuration: Dz=256, experiment: vrnn_s64, published: {test: 12.54}, mark: "<="}
      - {s: 64, system: LSTM, experiment: lstm_s64, root: ../librilight/exp/train_10h}   # another recipe's experiments
      - {system: Theirs, external: conf/theirs, source: "https://...", date: "2026-01-31"}   # another program's results

A row's `root` starts at the recipe, which is the current directory; it may also hold another training set's experiments
in this recipe. A table with such rows shows what each was trained on. A computed row has no experiment but a
`minimum_std`, and shows what no Gaussian density with that floor can exceed. `external` is a folder of results of
another program, whose shape is in MODELS.md.

Sequences that are not audio have `unit: nats_per_utterance` and `coding: normalised`. Rows name the output that their
figures are of (`distribution: gaussian`), as configurations do; results with another one have no place in them.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from speechlvm.coding import CONTINUOUS, OBSERVATIONS
from speechlvm.utils.errors import ConfigError
from speechlvm.utils.settings import Settings, load_yaml, validated

RELATIVE_DIRECTORY = re.compile(r"(\.\./)*\w[\w.-]*(/\w[\w.-]*)*")


class Row(Settings):
    """One row: published figures by set, and the experiment that reproduces them or the floor they are computed from.

    Attributes:
        root: exp/<train_set> of another recipe, relative to this one, if the experiment is not of this recipe.
        external: folder of another program's results, relative to the recipe, in place of an experiment.
        source, date: of these.
        distribution: output of the experiment; results with another have no place here. None: any.
        at: place on the axis of a sweep.
        mark: what the published figures are, if not exact: bounds, or about that.
        minimum_std: of a Gaussian whose largest likelihood is computed.
    """

    s: int | None = None
    system: str
    configuration: str = ""
    experiment: str | None = None
    root: str = ""
    external: str = ""
    source: str = ""
    date: str = ""
    distribution: str | None = None
    at: float | None = None
    published: dict[str, float] = {}
    mark: Literal["", "<=", ">=", "~"] = ""
    minimum_std: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Row:
        if [self.experiment is None, self.minimum_std is None, not self.external].count(False) != 1:
            raise ValueError("give one of experiment, external and minimum_std")
        if self.external and not (RELATIVE_DIRECTORY.fullmatch(self.external) and self.source and self.date):
            raise ValueError(
                f"external '{self.external}', source '{self.source}', date '{self.date}'; "
                "expected a directory like conf/theirs, where the results are from, and of when"
            )
        if self.root and (self.experiment is None or not RELATIVE_DIRECTORY.fullmatch(self.root)):
            raise ValueError(
                f"root '{self.root}' with experiment '{self.experiment or ''}'; "
                "expected an experiment and a directory like ../<recipe>/exp/<train_set>"
            )
        return self

    @property
    def origin(self) -> str:
        """Where its figures are from: the experiment, or source and date; "" if they are computed."""
        return f"{self.source} ({self.date})" if self.external else self.experiment or ""

    @property
    def largest_log_density(self) -> float:
        """Nats of one frame that no Gaussian, and no mixture of them, exceeds with this `minimum_std`.

        The value at the mean with the smallest standard deviation: -log(2 pi) / 2 - log(minimum_std) (source A, eq. 12
        and 13, and its Table 5).
        """
        return -0.5 * math.log(2 * math.pi) - math.log(self.minimum_std)


class Table(Settings):
    """One table; see the module."""

    table: str
    title: str
    unit: Literal["bits_per_frame", "nats_per_utterance"]
    coding: str
    sets: list[str] = Field(min_length=1)
    train_set: str = ""
    comparable: bool = True
    note: str = ""
    axis: str = ""
    frames_per_utterance: dict[str, float] = {}
    rows: list[Row] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Table:
        if self.coding not in OBSERVATIONS:
            raise ValueError(f"coding '{self.coding}' is unknown; expected one of {', '.join(OBSERVATIONS)}")
        if self.densities != (self.coding == CONTINUOUS):
            raise ValueError(f"unit {self.unit}, coding {self.coding}: nats, and nothing else, go with {CONTINUOUS}")
        for row in self.rows:
            place = row.experiment or row.external or f"minimum_std {row.minimum_std:g}"
            if unknown := sorted(row.published.keys() - set(self.sets)):
                raise ValueError(f"{place}: published on {', '.join(unknown)}; sets are {', '.join(self.sets)}")
            if self.axis and row.at is None:
                raise ValueError(f"{place}: lacks `at`, its place on the axis '{self.axis}'")
            if row.minimum_std is not None and not self.densities:
                raise ValueError(f"{place}: a floor bounds densities; this table is in {self.unit}")
        if unknown := sorted(self.frames_per_utterance.keys() - set(self.sets)):
            raise ValueError(f"frames_per_utterance of {', '.join(unknown)}; sets are {', '.join(self.sets)}")
        return self

    @property
    def densities(self) -> bool:
        """Whether it is about densities rather than probabilities."""
        return self.unit == "nats_per_utterance"

    @property
    def computed(self) -> bool:
        """Whether some rows are computed from the lengths of the sets."""
        return any(row.minimum_std is not None for row in self.rows)


def load_tables(directory: Path) -> list[Table]:
    """All tables of a recipe.

    Raises:
        ConfigError: malformed, or not named as its file is.
    """
    tables = []
    for path in sorted(Path(directory).glob("*.yaml")):
        tables.append(validated(Table, load_yaml(path), str(path)))
        if tables[-1].table != path.stem:
            raise ConfigError(f"{path}: table '{tables[-1].table}'; expected '{path.stem}', as the file is named")
    return tables


def choose(tables: list[Table], names: list[str]) -> list[Table]:
    """The tables of these names; all if none is named.

    Raises:
        ConfigError: no such table.
    """
    known = {table.table: table for table in tables}
    for name in names:
        if name not in known:
            raise ConfigError(f"table '{name}' is unknown; expected {', '.join(known)}")
    return [known[name] for name in names] or tables


def roots(tables: list[Table]) -> list[str]:
    """Directories of other experiments that rows name."""
    return sorted({row.root for table in tables for row in table.rows if row.root})


def externals(tables: list[Table]) -> list[str]:
    """Folders of other programs' results that rows name."""
    return sorted({row.external for table in tables for row in table.rows if row.external})
