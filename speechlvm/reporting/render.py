"""The papers' tables next to our results, and all results; unknown cells stay blank.

RESULTS.md                       everything, for people
exp/<train_set>/tables/*.tex     each of the papers' tables as a LaTeX tabular
exp/<train_set>/tables/*.csv     the same with all digits, a line for each row and set
Latent space analysis is in files of the same kinds; see latent_tables.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from speechlvm.coding import CONTINUOUS, PCM_CODINGS
from speechlvm.reporting.collect import Cell
from speechlvm.reporting.compare import Comparison, Entry, Line, output
from speechlvm.reporting.formats import Column, latex_table, markdown_heads, markdown_table
from speechlvm.reporting.latent_tables import Grid
from speechlvm.reporting.tables import Row

PCM_BITS = 16
LN2 = math.log(2.0)
TRAINING = [Column(name, number=True) for name in ("training", "steps", "seeds")]


def number(value: float | None, unit: str) -> str:
    """One of our figures: three decimals of bits, whole nats; blank if unknown."""
    if value is None:
        return ""
    return f"{value:.3f}" if unit == "bits_per_frame" else f"{value:.0f}"


def published_number(value: float | None, row: Row, unit: str) -> str:
    """A paper's figure with the paper's digits: two decimals of bits, or as many as its row has; blank if unknown."""
    if value is None or unit != "bits_per_frame":
        return number(value, unit)
    decimals = max(len(repr(each).partition(".")[2]) for each in row.published.values())
    return f"{value:.{max(2, decimals)}f}"


def _value(cell: Cell, unit: str, render: Callable[[float | None, str], str] = number) -> str:
    """Mean over seeds with its sign, and their deviation."""
    deviation = cell.deviation(unit)
    return cell.sign + render(cell.mean(unit), unit) + ("" if deviation is None else f" +-{render(deviation, unit)}")


def _training(cell: Cell | None) -> list[str]:
    """Time, steps and seeds; blank where nothing was trained."""
    if cell is None or cell.first.steps is None or cell.first.hours is None:
        return ["", "", ""]
    hours = cell.mean("hours")
    time = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
    return [time, f"{cell.mean('steps'):.0f}", str(len(cell.results))]


# --- The papers' tables -----------------------------------------------------------------------------------------------


def grid(comparison: Comparison) -> tuple[list[Column], list[list[str]]]:
    """Columns and rows of one of the papers' tables: published, ours, difference, and what ours was trained with."""
    table = comparison.table
    several = any(line.row.root for line in comparison.lines)
    columns = [Column("s", number=True), Column("system"), Column("configuration")]
    columns += [Column("trained on")] if several else []
    for name in table.sets:
        length = comparison.lengths.get(name)
        group = f"{name} ({length:.1f} frames per utterance)" if table.computed and length else name
        names = [
            *(["published"] if comparison.published(name) else []),
            "ours",
            *(["difference"] if comparison.compared(name) else []),
        ]
        columns += [Column(each, group, number=True) for each in names]
    measured = any(line.row.experiment for line in comparison.lines)
    if measured:
        columns += [Column("bound"), *([Column("output")] if table.densities else []), *TRAINING, Column("experiment")]
    rows = []
    for line in comparison.lines:
        cells = [str(line.row.s or "-"), line.row.system, line.row.configuration]
        cells += [line.train_set] if several else []
        for name, entry in line.entries.items():
            cells += _entry_cells(comparison, line, name, entry)
        if measured:
            trained = next(iter(line.cells.values()), None)
            outputs = [output(trained) if trained else ""] if table.densities else []
            cells += [_bounds(line), *outputs, *_training(trained), line.row.experiment or ""]
        rows.append(cells)
    return columns, rows


def _entry_cells(comparison: Comparison, line: Line, name: str, entry: Entry) -> list[str]:
    unit, digits = comparison.table.unit, 3 if comparison.table.unit == "bits_per_frame" else 0
    if line.row.experiment is None:
        ours, digits = "" if entry.ours is None else f"{entry.ours:.1f}", 1
    else:
        ours = _value(entry.cell, unit) if entry.cell else ""
    cells = [ours]
    if comparison.published(name):
        published = published_number(entry.published, line.row, unit)
        cells.insert(0, published and line.row.mark + published)
    if comparison.compared(name):
        cells.append("" if entry.difference is None else f"{entry.difference:+.{digits}f}")
    return cells


def _bounds(line: Line) -> str:
    """Types of bound; by set where these differ."""
    bounds = {name: cell.bound for name, cell in line.cells.items()}
    if len(set(bounds.values())) <= 1:
        return next(iter(bounds.values()), "")
    return ", ".join(f"{bound} ({name})" for name, bound in bounds.items())


def published_table(comparison: Comparison) -> str:
    """One of the papers' tables in Markdown."""
    columns, rows = grid(comparison)
    return markdown_table(markdown_heads(columns), rows)


def latex(comparison: Comparison) -> str:
    """One of the papers' tables as a LaTeX tabular."""
    table = comparison.table
    return latex_table(*grid(comparison), f"Table {table.table}: {table.title}", table.note)


def records(comparison: Comparison) -> list[dict[str, Any]]:
    """One of the papers' tables with all digits, a record for each row and set; None where nothing is known."""
    table = comparison.table
    return [
        {
            "table": table.table,
            "s": line.row.s,
            "system": line.row.system,
            "configuration": line.row.configuration,
            "at": line.row.at,
            "experiment": line.row.experiment,
            "train_set": line.train_set if line.row.experiment else None,
            "set": name,
            "coding": entry.cell.coding if entry.cell else table.coding,
            "unit": table.unit,
            "published_mark": line.row.mark if entry.published is not None else None,
            "published": entry.published,
            "bound": entry.cell.first.bound if entry.cell else None,
            "ours": entry.ours,
            "standard_deviation": entry.deviation,
            "difference": entry.difference,
            "seeds": len(entry.cell.results) if entry.cell and entry.cell.first.steps is not None else None,
            "training_hours": entry.cell.mean("hours") if entry.cell else None,
            "training_steps": entry.cell.mean("steps") if entry.cell else None,
            "parameters": entry.cell.first.parameters if entry.cell else None,
            "distribution": entry.cell.first.distribution.get("name") if entry.cell else None,
            "components": entry.cell.first.distribution.get("components") if entry.cell else None,
            "minimum_std": line.row.minimum_std
            or (entry.cell.first.distribution.get("minimum_std") if entry.cell else None),
        }
        for line in comparison.lines
        for name, entry in line.entries.items()
    ]


# --- All results ------------------------------------------------------------------------------------------------------


def bits_overview(cells: list[Cell]) -> str:
    """Every probability on one set, best first: bits under each coding, share of 16-bit PCM, parameters, training."""
    codings = sorted({cell.coding for cell in cells})
    experiments: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        experiments.setdefault(cell.experiment, {})[cell.coding] = cell
    header = ["experiment", *[f"{coding} [bpf]" for coding in codings], "bound", "95 % interval", "PCM rate"]
    header += ["KL [bpf]", "parameters", *(column.name for column in TRAINING)]
    rows = []
    for experiment in sorted(experiments, key=lambda e: _sort_key(experiments[e])):
        by_coding = experiments[experiment]
        main = by_coding.get("mulaw", next(iter(by_coding.values())))
        interval = main.first.bits_per_frame_interval
        pcm = [by_coding[c].mean("bits_per_frame") for c in PCM_CODINGS if c in by_coding]
        kl = main.kl_nats_per_frame
        rows.append(
            [
                experiment,
                *[_value(by_coding[c], "bits_per_frame") if c in by_coding else "" for c in codings],
                main.bound,
                f"{interval[0]:.3f} - {interval[1]:.3f}" if len(main.results) == 1 and interval else "",
                f"{100 * min(pcm) / PCM_BITS:.1f} %" if pcm else "",
                "" if kl is None else f"{kl / LN2:.3f}",
                str(main.first.parameters or ""),
                *_training(main),
            ]
        )
    return markdown_table(header, rows)


def _sort_key(by_coding: dict[str, Cell]) -> tuple[float, float]:
    bits = {coding: cell.mean("bits_per_frame") for coding, cell in by_coding.items()}
    other = 0.0 if any(coding in bits for coding in PCM_CODINGS) else math.inf
    return bits.get("mulaw", other), min(bits.values())


def densities_overview(cells: list[Cell]) -> str:
    """Every density on one set, most likely first: nats, bound, output with its floor, parameters, training."""
    header = ["experiment", "nats per utterance", "nats per frame", "bound", "output", "KL [nats per frame]"]
    header += ["parameters", *(column.name for column in TRAINING)]
    rows = []
    for cell in sorted(cells, key=lambda cell: (-cell.mean("nats_per_frame"), cell.experiment)):
        kl = cell.kl_nats_per_frame
        rows.append(
            [
                cell.experiment,
                _value(cell, "nats_per_utterance"),
                _value(cell, "nats_per_frame", lambda value, _: f"{value:.3f}"),
                cell.bound,
                output(cell),
                "" if kl is None else f"{kl:.3f}",
                str(cell.first.parameters or ""),
                *_training(cell),
            ]
        )
    return markdown_table(header, rows)


def overviews(cells: list[Cell]) -> list[str]:
    """All results, set by set: title, table, and what preparing the set has left out."""
    parts = []
    kinds = (("pmf", "results", bits_overview), ("density", "densities", densities_overview))
    for name, (unit, what, overview) in itertools.product(sorted({cell.set for cell in cells}), kinds):
        here = [cell for cell in cells if cell.set == name and cell.first.unit == unit]
        if here:
            size = f"({here[0].first.utterances} utterances, {here[0].first.frames} frames)"
            parts += [f"## All {what} on `{name}` {size}", overview(here), *_preparation(here)]
    return parts


# --- RESULTS.md -------------------------------------------------------------------------------------------------------


def _explanations(comparisons: list[Comparison], cells: list[Cell]) -> str:
    """What the tables' signs and units mean: those that occur."""
    lines = [line for comparison in comparisons for line in comparison.lines]
    results = [*cells, *(cell for line in lines for cell in line.cells.values())]
    marks = {cell.sign for cell in results} | {line.row.mark for line in lines if line.row.published}
    codings = {cell.coding for cell in results} | {comparison.table.coding for comparison in comparisons}
    discrete, densities = codings - {CONTINUOUS}, CONTINUOUS in codings
    sentences = {
        "bpf = bits per frame (one waveform sample).": discrete,
        "`<=`: an upper bound on bits.": discrete and "<=" in marks,
        "`>=`: a lower bound on nats.": densities and ">=" in marks,
        "Bounds are the one-sample ELBO as in the papers, or the importance-weighted one of K samples (IWAE-K).": (
            marks & {"<=", ">="}
        ),
        "`+-`: standard deviation over seeds, after their mean.": any(len(cell.results) > 1 for cell in results),
        "mulaw bits are bits of 16-bit mu-law codes as in source A.": "mulaw" in codings,
        "linear and mulaw-pcm bits are bits of the PCM signal itself, comparable with FLAC, whose bits are the "
        "length of its files.": codings & set(PCM_CODINGS),
        "mulaw8 bits are of 8-bit codes and compare with nothing else here.": "mulaw8" in codings,
        "Nats are of the density of normalised values, which nothing but the least standard deviation of the output "
        "keeps from growing without limit.": densities,
        "Training and steps are those after which the model was best on the validation set.": any(
            cell.first.steps is not None for cell in results
        ),
    }
    return " ".join(sentence for sentence, wanted in sentences.items() if wanted)


def _other_data(cells: list[Cell]) -> list[str]:
    """A line for each set of which not all results are of the same data, as after preparing it anew."""
    hashes: dict[str, dict[str | None, list[str]]] = {}
    for cell in cells:
        for result in cell.results:
            experiment = "/".join(filter(None, (cell.root, cell.experiment)))
            hashes.setdefault(cell.set, {}).setdefault(result.data_hash, []).append(experiment)
    lines = []
    for name, found in hashes.items():
        most = max(found, key=lambda data: len(found[data]))
        others = sorted({experiment for data in found if data != most for experiment in found[data]})
        if others:
            lines.append(f"`{name}` changed since these were scored: {', '.join(others)}; score them again.")
    return lines


def _preparation(cells: list[Cell]) -> list[str]:
    """What was left out, converted and tolerated when the data of some results were prepared."""
    lines: list[str] = []
    for told in (result.preparation for cell in cells for result in cell.results):
        parts = [f"{told.rejected} audio files that cannot be used were left out (rejected.tsv)"] * bool(told.rejected)
        parts += [f"{count} were converted ({kind})" for kind, count in sorted(told.converted.items())]
        parts += [f"{count} {kind}" for kind, count in sorted(told.tolerated.items())]
        line = f"In preparing the corpus: {'; '.join(parts)}."
        if parts and line not in lines:
            lines.append(line)
    return lines


def document(
    comparisons: list[Comparison],
    cells: list[Cell],
    grids: list[Grid],
    train_set: str,
    command: str,
    faults: list[str],
) -> str:
    """The whole of RESULTS.md.

    Args:
        comparisons: the chosen tables.
        cells: the recipe's own results, and those of the roots that rows name.
        grids: what the recipe's own latents know.
        train_set: what they were trained on.
        command: that made them.
        faults: a line for each result that cannot be used.
    """
    parts = [f"# Results (trained on `{train_set}`)", f"Made by `{command}`."]
    parts += [text for text in (_explanations(comparisons, cells),) if text]
    parts += [f"Left out: {fault}." for fault in faults]
    parts += _other_data(cells)
    for comparison in comparisons:
        table = comparison.table
        parts += [f"## Table {table.table}: {table.title}", published_table(comparison)]
        parts += [table.note] if table.note else []
        parts += [
            f"Blank, though scored: `{experiment}` on `{name}` has the output {found}."
            for experiment, name, found in comparison.misplaced
        ]
    parts += overviews([cell for cell in cells if not cell.root])
    for grid in grids:
        parts += [f"## {grid.title}", grid.note, markdown_table(markdown_heads(grid.columns), grid.rows)]
    return "\n\n".join(parts) + "\n"
