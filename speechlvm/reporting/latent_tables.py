"""Tables of latent space analysis and probes, for RESULTS.md and for the page of an experiment.

exp/<train_set>/tables/levels.{csv,tex}         information, units and time scale of each representation
exp/<train_set>/tables/neighbours.{csv,tex}     accuracies of k nearest neighbours
exp/<train_set>/tables/probes.{csv,tex}         scores of small recognisers
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from speechlvm.latents.levels import ACTIVE_NATS, ACTIVE_VARIANCE, LEAST_SAMPLES
from speechlvm.reporting.analysis_results import PROTOCOLS, SUBJECTS, Findings, Value, accuracy, by_experiment, combine
from speechlvm.reporting.formats import Column

LATENTS = "Latent space analysis"
PROBES = "probes"


@dataclass(frozen=True)
class Grid:
    """A table in cells of text, and the same with all digits.

    Attributes:
        name: of its files.
        title: above it.
        note: what its figures are.
        columns: heads.
        rows: cells.
        records: for CSV.
    """

    name: str
    title: str
    note: str
    columns: list[Column]
    rows: list[list[str]]
    records: list[dict[str, Any]]


def grids(findings: Sequence[Findings]) -> list[Grid]:
    """The tables that there is something in."""
    return [grid for grid in (_levels(findings), _neighbours(findings), _probes(findings)) if grid.records]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _filled(columns: list[Column], rows: list[list[str]]) -> tuple[list[Column], list[list[str]]]:
    """Without columns that are blank in every row."""
    kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    return [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]


# --- Levels -----------------------------------------------------------------------------------------------------------

LEVELS: dict[str, tuple[str, Callable[[float], str]]] = {
    "rate_hz": ("steps per s", lambda value: f"{value:g}"),
    "dimensions": ("dimensions", lambda value: f"{value:g}"),
    "active_units": ("active", lambda value: f"{value:.4g}"),
    "active_units_by_kl": ("active by KL", lambda value: f"{value:.4g}"),
    "kl_nats_per_step": ("KL [nats per step]", lambda value: f"{value:.3f}"),
    "kl_bits_per_second": ("KL [bits per s]", lambda value: f"{value:.1f}"),
    "autocorrelation_ms": ("autocorrelation [ms]", lambda value: f"{value:.1f}"),
}
SETTINGS = ("rate_hz", "dimensions")  # the same in each training


def _levels(findings: Sequence[Findings]) -> Grid:
    columns = [Column("experiment"), Column("representation")]
    columns += [Column(head, number=True) for head, _ in LEVELS.values()] + [Column("seeds", number=True)]
    rows, records = [], []
    for experiment, seeds in by_experiment(findings).items():
        for name in dict.fromkeys(name for each in seeds for name in each.levels):
            known = [each.levels[name] for each in seeds if name in each.levels]
            values = {
                key: combine(getattr(level, key) for level in known[: 1 if key in SETTINGS else None]) for key in LEVELS
            }
            collapsed = sum(level.collapsed for level in known)
            which = "" if not collapsed else " (collapsed)" if len(known) == 1 else f" (collapsed: {collapsed})"
            texts = {key: values[key].text(render) if values[key] else "" for key, (_, render) in LEVELS.items()}
            if beyond := [level.longest_lag_ms for level in known if level.longest_lag_ms is not None]:
                texts["autocorrelation_ms"] = f"> {max(beyond):.0f}"
            rows.append([experiment, name + which, *texts.values(), str(len(known))])
            record: dict[str, Any] = {"experiment": experiment, "representation": name, "kind": known[0].kind}
            record |= {"seeds": len(known), "collapsed": collapsed}
            for key, value in values.items():
                record |= {key: value and value.mean, f"{key}_deviation": value and value.std}
            records.append(record)
    note = (
        f"Active: units whose posterior mean has a variance above {ACTIVE_VARIANCE:g} (known from {LEAST_SAMPLES} "
        f"samples on), or (by KL) whose KL is above {ACTIVE_NATS:g} nats per step; autocorrelation: the lag at which "
        "it falls below 1/e."
    )
    return Grid("levels", f"{LATENTS}: information, units in use, time scale", note, *_filled(columns, rows), records)


# --- Nearest neighbours -----------------------------------------------------------------------------------------------


def _neighbours(findings: Sequence[Findings]) -> Grid:
    heads = [(subject, protocol) for subject in SUBJECTS for protocol in PROTOCOLS]
    columns = [Column("experiment"), Column("representation")]
    columns += [Column(PROTOCOLS[protocol], f"{subject} [%]", number=True) for subject, protocol in heads]
    rows, records, ks, several = [], [], set(), False
    for experiment, seeds in by_experiment(findings).items():
        names = dict.fromkeys(name for e in seeds for c in e.comparisons.values() for name in c.representations)
        for name in names:
            cells = [accuracy(seeds, subject, name, protocol) for subject, protocol in heads]
            rows.append([experiment, name, *(cell[0].text(_percent) if cell else "" for cell in cells)])
            for (subject, protocol), cell in zip(heads, cells, strict=True):
                if cell:
                    ks.add(cell[1])
                    several |= cell[0].count > 1
                    records.append(_neighbours_record(seeds, subject, name, protocol, *cell))
    chances = [_chances(findings, subject, protocol) for subject, protocol in heads]
    if rows:
        rows.append(["chance", "", *chances])
    found = " or ".join(map(str, sorted(ks)))
    sizes = {name: [e.comparisons[name].size for e in findings if name in e.comparisons] for name in SUBJECTS}
    items = ", ".join(f"{name} {' or '.join(dict.fromkeys(known))}" for name, known in sizes.items() if known)
    note = (
        f"k nearest neighbours (k = {found}) in the space of an LDA that has not seen the item; brackets: 95 % "
        f"intervals{', `+-`: standard deviation over seeds' if several else ''}; chance: always the largest class. "
        "Where one speaker is left out, nothing of that speaker is among the neighbours, or in the LDA. Items (of "
        f"speakers): {items}."
    )
    columns, rows = _filled(columns, rows) if rows else (columns, rows)
    return Grid("neighbours", f"{LATENTS}: phones and speakers", note, columns, rows, records)


def _curves(findings: Sequence[Findings], subject: str, protocol: str) -> list[Any]:
    return [
        known.curves[protocol]
        for each in findings
        if subject in each.comparisons
        for known in each.comparisons[subject].representations.values()
        if protocol in known.curves
    ]


def _chances(findings: Sequence[Findings], subject: str, protocol: str) -> str:
    return _span([curve.chance for curve in _curves(findings, subject, protocol)])


def _span(values: Sequence[float]) -> str:
    """Least and greatest in per cent, where experiments were analysed on different sets; blank of nothing."""
    values = sorted(values)
    return " - ".join(dict.fromkeys(map(_percent, (values[0], values[-1])))) if values else ""


def _neighbours_record(
    seeds: Sequence[Findings], subject: str, name: str, protocol: str, value: Value, k: int
) -> dict[str, Any]:
    comparison = next(each.comparisons[subject] for each in seeds if subject in each.comparisons)
    low, high = value.interval or (None, None)
    return {
        "subject": subject,
        "protocol": protocol,
        "experiment": seeds[0].experiment,
        "representation": name,
        "k": k,
        "accuracy": value.mean,
        "low": low,
        "high": high,
        "standard_deviation": value.std,
        "seeds": value.count,
        "chance": _curves(seeds, subject, protocol)[0].chance,
        "items": comparison.items,
        "classes": len(comparison.classes),
    }


# --- Probes -----------------------------------------------------------------------------------------------------------


def _probes(findings: Sequence[Findings]) -> Grid:
    groups: dict[tuple[str, str, str, str, str], list[tuple[float, float]]] = {}
    for each in findings:
        for run in each.probes.runs if each.probes else ():
            for score, value in run.scores.items():
                key = (run.task, score, run.size, each.experiment, run.representation)
                groups.setdefault(key, []).append((run.minutes, value))
    records = [
        {
            **dict(zip(("task", "score", "size", "experiment", "representation"), key, strict=True)),
            "minutes": sum(minutes for minutes, _ in runs) / len(runs),
            "trainings": len(runs),
            "mean": combine(value for _, value in runs).mean,
            "standard_deviation": combine(value for _, value in runs).std,
        }
        for key, runs in groups.items()
    ]
    order = list(dict.fromkeys(key[:2] for key in groups))
    heads = sorted({key[:3] for key in groups}, key=lambda head: (order.index(head[:2]), _minutes(head[2])))
    columns = [Column("experiment"), Column("representation")]
    for head in heads:
        minutes = next(runs[0][0] for key, runs in groups.items() if key[:3] == head)
        size = f"all ({minutes:.3g} min)" if head[2] == "all" else f"{head[2]} min"
        columns.append(Column(size, f"{head[0]}: {head[1].replace('_', ' ')} [%]", number=True))
    rows = []
    for who in dict.fromkeys(key[3:] for key in groups):
        values = [combine(value for _, value in groups.get((*head, *who), [])) for head in heads]
        rows.append([*who, *(value.text(_percent) if value else "" for value in values)])
    chances = [_probe_chances(findings, task, score) for task, score, _ in heads]
    if any(chances):
        rows.append(["chance", "", *chances])
    most = max((len(runs) for runs in groups.values()), default=0)
    note = (
        "Small recognisers trained on frozen representations with so much labelled speech, all with the same budget"
        f"{f'; mean and standard deviation over up to {most} trainings' if most > 1 else ''}. Of error rates less is "
        f"better, of accuracies more{'; chance: always the commonest phone' if any(chances) else ''}."
    )
    return Grid(PROBES, "Probes", note, columns, rows, records)


def _minutes(size: str) -> float:
    return math.inf if size == "all" else float(size)


def _probe_chances(findings: Sequence[Findings], task: str, score: str) -> str:
    known = [each.probes.tasks[task].chance for each in findings if each.probes and task in each.probes.tasks]
    return _span([chance[score] for chance in known if score in chance])
