"""Tables of latent space analysis and probes, for RESULTS.md and for the page of an experiment.

exp/<train_set>/tables/levels.{csv,tex}         information, units and time scale of each representation
exp/<train_set>/tables/neighbours.{csv,tex}     accuracies of k nearest neighbours
exp/<train_set>/tables/probes.{csv,tex}         scores of small recognisers
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from speechlvm.latents.levels import ACTIVE_NATS, ACTIVE_VARIANCE, LEAST_SAMPLES
from speechlvm.reporting.analysis_results import (
    PROTOCOLS,
    SUBJECTS,
    AnalysisResults,
    Estimate,
    accuracy,
    by_experiment,
    combine,
)
from speechlvm.reporting.formats import Column, Grid

LATENTS = "Latent space analysis"
PROBES = "probes"


def grids(results: Sequence[AnalysisResults]) -> list[Grid]:
    """The tables that there is something in."""
    return [grid for grid in (_levels(results), _neighbours(results), _probes(results)) if grid.records]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _span(values: Iterable[float]) -> str:
    """Per cents from the least to the greatest value; blank if there are none."""
    values = sorted(values)
    return " - ".join(dict.fromkeys(map(_percent, (values[0], values[-1])))) if values else ""


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


def _levels(results: Sequence[AnalysisResults]) -> Grid:
    columns = [Column("experiment"), Column("representation")]
    columns += [Column(head, number=True) for head, _ in LEVELS.values()] + [Column("seeds", number=True)]
    rows, records = [], []
    for experiment, seeds in by_experiment(results).items():
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
    title = f"{LATENTS}: information, units in use, time scale"
    return Grid("levels", title, *_filled(columns, rows), note, records)


# --- Nearest neighbours -----------------------------------------------------------------------------------------------


def _neighbours(results: Sequence[AnalysisResults]) -> Grid:
    heads = [(subject, protocol) for subject in SUBJECTS for protocol in PROTOCOLS]
    columns = [Column("experiment"), Column("representation")]
    columns += [Column(PROTOCOLS[protocol], f"{subject} [%]", number=True) for subject, protocol in heads]
    rows, records = [], []
    for experiment, seeds in by_experiment(results).items():
        for name in dict.fromkeys(n for e in seeds for c in e.classifications.values() for n in c.representations):
            found = [accuracy(seeds, subject, name, protocol) for subject, protocol in heads]
            rows.append([experiment, name, *(known[0].text(_percent) if known else "" for known in found)])
            for head, known in zip(heads, found, strict=True):
                if known:
                    records.append(_neighbours_record(seeds, *head, name, *known))
    if rows:
        chances = [[c.chance for each in results for c in each.curves(*head).values()] for head in heads]
        rows.append(["chance", "", *map(_span, chances)])
        columns, rows = _filled(columns, rows)
    ks = " or ".join(map(str, sorted({record["k"] for record in records})))
    several = any(record["seeds"] > 1 for record in records)
    sizes = {name: [e.classifications[name].size for e in results if name in e.classifications] for name in SUBJECTS}
    items = ", ".join(f"{name} {' or '.join(dict.fromkeys(known))}" for name, known in sizes.items() if known)
    note = (
        f"k nearest neighbours (k = {ks}) in the space of an LDA that has not seen the item; brackets: 95 % "
        f"intervals{', `+-`: standard deviation over seeds' if several else ''}; chance: always the largest class. "
        "Where one speaker is left out, nothing of that speaker is among the neighbours, or in the LDA. Items (of "
        f"speakers): {items}."
    )
    return Grid("neighbours", f"{LATENTS}: phones and speakers", columns, rows, note, records)


def _neighbours_record(
    seeds: Sequence[AnalysisResults], subject: str, protocol: str, name: str, estimate: Estimate, k: int
) -> dict[str, Any]:
    first = next(each for each in seeds if subject in each.classifications)
    low, high = estimate.interval or (None, None)
    return {
        "subject": subject,
        "protocol": protocol,
        "experiment": first.experiment,
        "representation": name,
        "k": k,
        "accuracy": estimate.mean,
        "low": low,
        "high": high,
        "standard_deviation": estimate.std,
        "seeds": estimate.count,
        "chance": next(curve.chance for each in seeds for curve in each.curves(subject, protocol).values()),
        "items": first.classifications[subject].items,
        "classes": len(first.classifications[subject].classes),
    }


# --- Probes -----------------------------------------------------------------------------------------------------------


def _probes(results: Sequence[AnalysisResults]) -> Grid:
    groups: dict[tuple[str, str, str, str, str], list[tuple[float, float]]] = {}
    for each in results:
        for run in each.probes.runs if each.probes else ():
            for score, value in run.scores.items():
                key = (run.task, score, run.size, each.experiment, run.representation)
                groups.setdefault(key, []).append((run.minutes, value))
    estimates = {key: combine(value for _, value in runs) for key, runs in groups.items()}
    records = [
        {
            **dict(zip(("task", "score", "size", "experiment", "representation"), key, strict=True)),
            "minutes": sum(minutes for minutes, _ in runs) / len(runs),
            "trainings": len(runs),
            "mean": estimates[key].mean,
            "standard_deviation": estimates[key].std,
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
        found = [estimates.get((*head, *who)) for head in heads]
        rows.append([*who, *(estimate.text(_percent) if estimate else "" for estimate in found)])
    tasks = [each.probes.tasks for each in results if each.probes]
    chances = [
        _span(known[task].chance[score] for known in tasks if task in known and score in known[task].chance)
        for task, score, _ in heads
    ]
    if any(chances):
        rows.append(["chance", "", *chances])
    most = max((len(runs) for runs in groups.values()), default=0)
    note = (
        "Small recognisers trained on frozen representations with so much labelled speech, all with the same budget"
        f"{f'; mean and standard deviation over up to {most} trainings' if most > 1 else ''}. Of error rates less is "
        f"better, of accuracies more{'; chance: always the commonest phone' if any(chances) else ''}."
    )
    return Grid(PROBES, "Probes", columns, rows, note, records)


def _minutes(size: str) -> float:
    return math.inf if size == "all" else float(size)
