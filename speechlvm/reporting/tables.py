"""Tables as the papers print them, with our figures beside; unknown cells stay blank.

A table is a YAML file:

    table: A1
    title: what it is
    unit: bits_per_frame            # or nats_per_utterance
    coding: mulaw
    sets: [test]                    # sets of this recipe, three columns each
    comparable: true                # false: published on another corpus, no differences are printed
    rows:
      - {s: 64, system: LSTM, configuration: Dd=256, experiment: lstm_s64, published: {test: 13.34}}
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from speechlvm.coding import PCM_CODINGS
from speechlvm.config import load_yaml, validated
from speechlvm.errors import ConfigError
from speechlvm.reporting.collect import Cell
from speechlvm.scoring.results import EXACT_BOUNDS
from speechlvm.settings import Settings

PCM_BITS = 16


class Row(Settings):
    """One published row and the experiment that reproduces it."""

    s: int | None = None
    system: str
    configuration: str = ""
    experiment: str
    published: dict[str, float] = {}


class Table(Settings):
    """One published table."""

    table: str
    title: str
    unit: Literal["bits_per_frame", "nats_per_utterance"]
    coding: str
    sets: list[str] = Field(min_length=1)
    comparable: bool = True
    rows: list[Row] = Field(min_length=1)


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


def markdown_table(header: list[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown, columns padded so that it also reads as plain text."""
    lines = [header, *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rendered = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([rendered[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *rendered[1:]])


def number(value: float | None, unit: str) -> str:
    """Two or more digits as the papers print them; blank if unknown."""
    if value is None:
        return ""
    return f"{value:.3f}" if unit == "bits_per_frame" else f"{value:.0f}"


def _bound_sign(result: dict[str, Any]) -> str:
    if result["bound"] in EXACT_BOUNDS:
        return ""
    return "<=" if result["unit"] == "pmf" else ">="


def _value(cell: Cell, unit: str) -> str:
    text = _bound_sign(cell.first) + number(cell.mean(unit), unit)
    deviation = cell.deviation(unit)
    return text if deviation is None else f"{text} +-{number(deviation, unit)}"


def published_table(table: Table, cells: list[Cell]) -> str:
    """The paper's table with ours beside: published, ours, difference, and what ours was trained with."""
    found = {(c.experiment, c.set): c for c in cells if c.coding == table.coding or c.first["bound"] == "code-length"}
    header = ["s", "system", "configuration"]
    for name in table.sets:
        header += [f"{name}: published", "ours", *(["difference"] if table.comparable else [])]
    header += ["training", "steps", "seeds", "experiment"]
    rows = []
    for row in table.rows:
        line = [str(row.s or "-"), row.system, row.configuration]
        trained: Cell | None = None
        for name in table.sets:
            cell, published = found.get((row.experiment, name)), row.published.get(name)
            trained = trained or cell
            ours = cell.mean(table.unit) if cell else None
            line += [number(published, table.unit), _value(cell, table.unit) if cell else ""]
            if table.comparable:
                known = ours is not None and published is not None
                line.append(f"{ours - published:+.{_digits(table.unit)}f}" if known else "")
        rows.append([*line, *_training(trained), row.experiment])
    return markdown_table(header, rows)


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
    pcm = [by_coding[c].mean("bits_per_frame") for c in PCM_CODINGS if c in by_coding]
    companded = by_coding["mulaw"].mean("bits_per_frame") if "mulaw" in by_coding else 0.0
    return companded, min(pcm, default=0.0)


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
        "`<=`: an upper bound on bits (one-sample ELBO); `>=`: a lower bound on nats. mulaw bits are bits of 16-bit "
        "mu-law codes as in the papers; linear and mulaw-pcm bits are bits of the PCM signal itself, comparable with "
        "FLAC (linear: code length of its files)."
    )
    for table in tables:
        parts += [f"## Table {table.table}: {table.title}", published_table(table, cells)]
    for name in sorted({cell.set for cell in cells if cell.first["unit"] == "pmf"}):
        utterances, frames = cells_size(cells, name)
        parts += [f"## All results on `{name}` ({utterances} utterances, {frames} frames)", overview_table(cells, name)]
    return "\n\n".join(parts) + "\n"


def cells_size(cells: list[Cell], name: str) -> tuple[int, int]:
    """Utterances and frames of a set."""
    first = next(cell.first for cell in cells if cell.set == name)
    return first["utterances"], first["frames"]
