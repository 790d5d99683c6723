"""Tables as the papers print them, with our figures beside; unknown cells stay blank.

A table is a YAML file:

    table: A1
    title: what it is
    unit: bits_per_frame            # of codes or PCM values; or nats_per_utterance, of normalised samples
    coding: mulaw                   # results under another coding, or in another unit, have no place in it
    sets: [test]                    # sets of this recipe, up to three columns each
    comparable: true                # false: published on another corpus, no differences are printed
    note: printed below it
    axis: stochastic layers S       # a sweep, drawn as a figure over `at` of its rows
    frames_per_utterance: {paper: 49367.3}   # sets of which only that is known, for rows that are computed from it
    rows:
      - {s: 64, system: LSTM, configuration: Dd=256, experiment: lstm_s64, published: {test: 13.34}}
      - {s: 64, system: VRNN, configuration: Dz=256, experiment: vrnn_s64, published: {test: 12.54}, mark: "<="}

      - {s: 64, system: LSTM, experiment: lstm_s64, root: ../librilight/exp/train_10h}   # another recipe's experiments

A row's `root` starts at the recipe, which is the current directory; it may also hold another training set's experiments
in this recipe. A table with such rows shows what each was trained on. A row without an experiment is computed: it has a
`minimum_std`, and shows what no Gaussian density with that floor can exceed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field, model_validator

from speechlvm.coding import PCM_CODINGS
from speechlvm.config import load_yaml, validated
from speechlvm.distributions import DISTRIBUTIONS
from speechlvm.distributions.gaussian import largest_log_density
from speechlvm.errors import ConfigError
from speechlvm.observation import CONTINUOUS, OBSERVATIONS
from speechlvm.reporting.collect import Cell
from speechlvm.scoring.results import EXACT_BOUNDS
from speechlvm.settings import Settings

PCM_BITS = 16
RELATIVE_DIRECTORY = re.compile(r"(\.\./)*\w[\w.-]*(/\w[\w.-]*)*")


class Row(Settings):
    """One row: published figures by set, and the experiment that reproduces them or the floor they are computed from.

    Attributes:
        root: exp/<train_set> of another recipe, relative to this one, if the experiment is not of this recipe.
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
    distribution: str | None = None
    at: float | None = None
    published: dict[str, float] = {}
    mark: Literal["", "<=", ">=", "~"] = ""
    minimum_std: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Row:
        if (self.experiment is None) == (self.minimum_std is None):
            raise ValueError("give either an experiment or a minimum_std")
        if self.root and (self.experiment is None or not RELATIVE_DIRECTORY.fullmatch(self.root)):
            raise ValueError(
                f"root '{self.root}' with experiment '{self.experiment or ''}'; "
                "expected an experiment and a directory like ../<recipe>/exp/<train_set>"
            )
        if self.distribution is not None and self.distribution not in DISTRIBUTIONS:
            known = ", ".join(DISTRIBUTIONS)
            raise ValueError(f"distribution '{self.distribution}' is unknown; expected one of {known}")
        return self


class Table(Settings):
    """One table; see the module."""

    table: str
    title: str
    unit: Literal["bits_per_frame", "nats_per_utterance"]
    coding: str
    sets: list[str] = Field(min_length=1)
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
            place = row.experiment or f"minimum_std {row.minimum_std:g}"
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
        """Whether any of its rows is computed rather than measured."""
        return any(row.minimum_std is not None for row in self.rows)


def load_tables(directory: Path) -> list[Table]:
    """All tables of a recipe.

    Raises:
        ConfigError: malformed.
    """
    return [validated(Table, load_yaml(path), str(path)) for path in sorted(Path(directory).glob("*.yaml"))]


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


def markdown_table(header: list[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown, columns padded so that it also reads as plain text."""
    lines = [header, *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rendered = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([rendered[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *rendered[1:]])


def number(value: float | None, unit: str) -> str:
    """One of our figures: three decimals of bits, whole nats; blank if unknown."""
    if value is None:
        return ""
    return f"{value:.3f}" if unit == "bits_per_frame" else f"{value:.0f}"


def published_number(value: float | None, unit: str) -> str:
    """A paper's figure with the paper's digits: two decimals of bits, or as many as it has; blank if there is none."""
    if value is None or unit != "bits_per_frame":
        return number(value, unit)
    text = f"{value:.2f}"
    return text if float(text) == value else repr(value)


def _bound_sign(result: dict[str, Any]) -> str:
    if result["bound"] in EXACT_BOUNDS:
        return ""
    return "<=" if result["unit"] == "pmf" else ">="


def _value(cell: Cell, unit: str) -> str:
    text = _bound_sign(cell.first) + number(cell.mean(unit), unit)
    deviation = cell.deviation(unit)
    text += "" if deviation is None else f" +-{number(deviation, unit)}"
    return text if cell.samples == 1 else f"{text} (K={cell.samples})"


class _Figures:
    """What there is to put into a table: results of its unit and coding, and lengths of its sets."""

    def __init__(self, table: Table, cells: list[Cell]) -> None:
        unit = "density" if table.densities else "pmf"
        self.cells = {
            (cell.root, cell.experiment, cell.set): cell
            for cell in cells
            if cell.first["unit"] == unit and (cell.coding == table.coding or cell.first["bound"] == "code-length")
        }
        self.lengths = {cell.set: cell.first["frames"] / cell.first["utterances"] for cell in cells}
        self.lengths.update(table.frames_per_utterance)

    def cell(self, row: Row, name: str) -> Cell | None:
        """The row's result on a set."""
        cell = self.cells.get((row.root, row.experiment, name))
        if cell and row.distribution not in (None, cell.first.get("distribution", {}).get("name")):
            return None
        return cell

    def computed(self, row: Row, name: str) -> float | None:
        """Largest log-likelihood in nats per utterance of a set, whose length may not be known."""
        length = self.lengths.get(name)
        return None if length is None else length * largest_log_density(row.minimum_std)


def sweep(table: Table, cells: list[Cell]) -> dict[str, list[tuple[float, Cell]]]:
    """Results of a table with an axis, by set and in the order of the axis; sets without any are left out."""
    figures = _Figures(table, cells)
    rows = sorted(table.rows, key=lambda row: row.at)
    found = {name: [(row.at, cell) for row in rows if (cell := figures.cell(row, name))] for name in table.sets}
    return {name: places for name, places in found.items() if places}


def published_table(table: Table, cells: list[Cell], train_set: str) -> str:
    """The paper's table with ours beside: published, ours, difference, and what ours was trained with.

    Args:
        table: of the recipe.
        cells: its results, and those of the roots that its rows name.
        train_set: name of what the recipe's own experiments were trained on.
    """
    figures = _Figures(table, cells)
    compared = {name: any(name in row.published for row in table.rows) for name in table.sets}
    several = any(row.root for row in table.rows)
    header = ["s", "system", "configuration", *(["trained on"] if several else [])]
    for name in table.sets:
        label = name
        if table.computed and name in figures.lengths:
            label += f" ({figures.lengths[name]:.1f} frames per utterance)"
        header += [f"{label}: published", "ours"] if compared[name] else [f"{label}: ours"]
        header += ["difference"] if compared[name] and table.comparable else []
    measured = any(row.experiment for row in table.rows)
    if measured:
        header += [*(["output"] if table.densities else []), "training", "steps", "seeds", "experiment"]
    rows = []
    for row in table.rows:
        line = [str(row.s or "-"), row.system, row.configuration]
        if several:
            line.append(PurePosixPath(row.root).name or train_set)
        trained: Cell | None = None
        for name in table.sets:
            published = row.published.get(name)
            if row.experiment is None:
                ours = figures.computed(row, name)
                text = "" if ours is None else f"{ours:.1f}"
            else:
                cell = figures.cell(row, name)
                trained = trained or cell
                ours, text = (cell.mean(table.unit), _value(cell, table.unit)) if cell else (None, "")
            if compared[name]:
                line.append("" if published is None else row.mark + published_number(published, table.unit))
            line.append(text)
            if compared[name] and table.comparable:
                known = ours is not None and published is not None
                digits = 1 if row.experiment is None else _digits(table.unit)
                line.append(f"{ours - published:+.{digits}f}" if known else "")
        if measured:
            line += [*([_output(trained)] if table.densities else []), *_training(trained), row.experiment or ""]
        rows.append(line)
    return markdown_table(header, rows)


def _output(cell: Cell | None) -> str:
    """Output distribution with the floor that bounds its likelihood."""
    if cell is None:
        return ""
    settings = dict(cell.first["distribution"])
    name, floor, components = settings.pop("name"), settings.pop("minimum_std"), settings.pop("components", None)
    return f"{name}{f'({components})' if components else ''}, {f'std >= {floor:g}' if floor else 'no floor'}"


def _digits(unit: str) -> int:
    return 3 if unit == "bits_per_frame" else 0


def _training(cell: Cell | None) -> list[str]:
    if cell is None or cell.first["steps"] is None:
        return ["", "", ""]
    hours = cell.mean("hours")
    time = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
    return [time, f"{cell.mean('steps'):.0f}", str(len(cell.results))]


def overview_table(cells: list[Cell], name: str) -> str:
    """Every result on one set, best first: bits under each coding, share of 16-bit PCM, parameters, training."""
    codings = sorted({cell.coding for cell in cells if cell.set == name and cell.first["unit"] == "pmf"})
    experiments: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        if cell.set == name and cell.first["unit"] == "pmf":
            experiments.setdefault(cell.experiment, {})[cell.coding] = cell
    header = ["experiment", *[f"{coding} [bpf]" for coding in codings], "95 % interval", "PCM rate", "KL [bpf]"]
    header += ["parameters", "training", "steps", "seeds"]
    rows = []
    for experiment in sorted(experiments, key=lambda e: _sort_key(experiments[e])):
        by_coding = experiments[experiment]
        any_cell = next(iter(by_coding.values()))
        main = by_coding.get("mulaw", any_cell)
        low, high = main.first["bits_per_frame_interval"]
        pcm = [by_coding[c].mean("bits_per_frame") for c in PCM_CODINGS if c in by_coding]
        rows.append(
            [
                experiment,
                *[_value(by_coding[c], "bits_per_frame") if c in by_coding else "" for c in codings],
                f"{low:.3f} - {high:.3f}" if len(main.results) == 1 else "",
                f"{100 * min(pcm) / PCM_BITS:.1f} %" if pcm else "",
                _kl_bits(main.first),
                str(main.first["parameters"] or ""),
                *_training(main),
            ]
        )
    return markdown_table(header, rows)


def _sort_key(by_coding: dict[str, Cell]) -> tuple[float, float]:
    bits = {coding: cell.mean("bits_per_frame") for coding, cell in by_coding.items()}
    other = 0.0 if any(coding in bits for coding in PCM_CODINGS) else math.inf
    return bits.get("mulaw", other), min(bits.values())


def _kl_bits(result: dict[str, Any]) -> str:
    from speechlvm.accounting import LN2

    terms = [v for k, v in result["terms_nats_per_frame"].items() if k.startswith("kl_")]
    return f"{sum(terms) / LN2:.3f}" if terms else ""


def render(tables: list[Table], cells: list[Cell], train_set: str, command: str) -> str:
    """The whole of RESULTS.md."""
    parts = [
        f"# Results (trained on `{train_set}`)",
        f"Made by `{command}`; bpf = bits per frame (one waveform sample).",
    ]
    parts.append(
        "`<=`: an upper bound on bits (the one-sample ELBO as in the papers, or the importance-weighted bound where K "
        "stands beside); `>=`: a lower bound on nats. mulaw bits are bits of 16-bit mu-law codes as in source A; "
        "linear and mulaw-pcm bits are bits of the PCM signal itself, comparable with FLAC (linear: code length of "
        "its files). mulaw8 bits are of 8-bit codes and compare with nothing else here. Nats are of the density of "
        "normalised samples, which nothing but the least standard deviation of the output keeps from growing without "
        "limit."
    )
    for table in tables:
        parts += [f"## Table {table.table}: {table.title}", published_table(table, cells, train_set)]
        parts += [table.note] if table.note else []
    cells = [cell for cell in cells if not cell.root]
    for name in sorted({cell.set for cell in cells if cell.first["unit"] == "pmf"}):
        utterances, frames = cells_size(cells, name)
        parts += [f"## All results on `{name}` ({utterances} utterances, {frames} frames)", overview_table(cells, name)]
    return "\n\n".join(parts) + "\n"


def cells_size(cells: list[Cell], name: str) -> tuple[int, int]:
    """Utterances and frames of a set."""
    first = next(cell.first for cell in cells if cell.set == name)
    return first["utterances"], first["frames"]
