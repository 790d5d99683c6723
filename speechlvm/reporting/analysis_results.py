"""Latent space analysis: analyses (stage 7) and probes (stage 8) of experiments and of spectra, found on disk.

Does not import torch: it works in seconds, from result.json files alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from speechlvm.utils.errors import UserError
from speechlvm.utils.records import Record, read_record

SPECTRA = "spectra"
LEAVE_ONE_OUT, LEAVE_ONE_SPEAKER_OUT = "leave_one_out", "leave_one_speaker_out"
PROTOCOLS = {LEAVE_ONE_OUT: "leave one out", LEAVE_ONE_SPEAKER_OUT: "leave one speaker out"}
ANALYSES = ("levels", "phones", "gender", "height")
SUBJECTS = ("phones", "gender", "height of men", "height of women")


class Curve(Record):
    """Accuracies of k nearest neighbours over k = 1, 2, ..., with their intervals."""

    k: list[int] = Field(min_length=1)
    accuracy: list[float]
    low: list[float]
    high: list[float]
    chance: float


class Headline(Record):
    """The point of a curve that tables show for a representation."""

    protocol: str
    k: int = Field(ge=1)


class Accuracies(Record):
    """How well a representation tells classes apart; curves by protocol."""

    kind: str
    curves: dict[str, Curve]
    headline: Headline


class Classification(Record):
    """Representations compared by how well they tell the same classes apart."""

    items: int
    speakers: int | dict[str, Any]
    classes: dict[str, int]
    representations: dict[str, Accuracies]
    notes: list[str] = []

    @property
    def size(self) -> str:
        """Number of items and, in brackets, of their speakers."""
        return f"{self.items} ({self.speakers if isinstance(self.speakers, int) else len(self.speakers)})"


class GroupResults(Record):
    """Classifications within groups of speakers: of height among men, and among women."""

    groups: dict[str, Classification]
    notes: list[str] = []


class LevelResult(Record):
    """What a level, or another representation, holds; None where that is not known."""

    kind: str
    rate_hz: float | None
    dimensions: int
    active_units: int | None
    active_units_by_kl: int | None
    kl_nats_per_step: float | None
    kl_bits_per_second: float | None
    autocorrelation: list[float]
    autocorrelation_ms: float | None
    collapsed: bool

    @property
    def longest_lag_ms(self) -> float | None:
        """The last lag of an autocorrelation that does not fall below 1/e up to it; None of others."""
        if not self.autocorrelation or not self.rate_hz or self.autocorrelation_ms is not None:
            return None
        return 1000 * (len(self.autocorrelation) - 1) / self.rate_hz


class LevelResults(Record):
    """What tables need of analysis/levels/result.json."""

    representations: dict[str, LevelResult]


class ProbeResult(Record):
    """One run of a probe; accuracy, and fields that end in _error_rate, are its scores."""

    model_config = ConfigDict(extra="allow")

    task: str
    representation: str
    size: str
    minutes: float

    @property
    def scores(self) -> dict[str, float]:
        """Error rates and accuracies by name."""
        fields = self.model_extra or {}
        return {key: fields[key] for key in fields if key == "accuracy" or key.endswith("_error_rate")}


class ProbeTask(Record):
    """What is known of a task: by score, what always the commonest label reaches."""

    chance: dict[str, float]


class ProbeResults(Record):
    """What tables need of probes/result.json."""

    runs: list[ProbeResult]
    tasks: dict[str, ProbeTask]


@dataclass(frozen=True)
class AnalysisResults:
    """Results of stages 7 and 8 for one training of an experiment, or for the spectra.

    Attributes:
        experiment: directory below exp/<train_set>; "spectra" for the baselines.
        levels: by representation.
        classifications: by subject: those of `SUBJECTS` that there are.
        probes: None if there are none.
        notes: what analyses left out, by the analysis.
    """

    experiment: str
    levels: dict[str, LevelResult] = field(default_factory=dict)
    classifications: dict[str, Classification] = field(default_factory=dict)
    probes: ProbeResults | None = None
    notes: dict[str, list[str]] = field(default_factory=dict)

    def curves(self, subject: str, protocol: str) -> dict[str, Curve]:
        """Accuracies by representation."""
        classification = self.classifications.get(subject)
        known = classification.representations.items() if classification else ()
        return {name: each.curves[protocol] for name, each in known if protocol in each.curves}


def collect_analyses(root: Path, errors: list[str]) -> list[AnalysisResults]:
    """All complete analyses and probes below exp/<train_set>: experiments by name and seed, the spectra last.

    Args:
        root: exp/<train_set>.
        errors: gets a line for each result.json that cannot be used: which, why, and what to do.
    """
    directories = [*sorted(Path(root).glob("*/seed*")), Path(root) / SPECTRA]
    found = [read_analyses(directory, errors) for directory in directories]
    return [each for each in found if each.levels or each.classifications or each.probes]


def read_analyses(directory: Path, errors: list[str]) -> AnalysisResults:
    """Complete analyses and probes of one experiment directory; `errors` as in `collect_analyses`."""
    directory = Path(directory)
    *_, experiment, name = directory.absolute().parts

    def read(folder: Path, kind: type[Record], stage: str = "7 (latent analysis)") -> Any:
        if (folder / "done.json").exists():
            try:
                return read_record(folder / "result.json", kind, f"remove {folder} and run stage {stage} again")
            except UserError as error:
                errors.append(str(error))
        return None

    levels = read(directory / "analysis" / "levels", LevelResults)
    classifications = {name: read(directory / "analysis" / name, Classification) for name in ("phones", "gender")}
    notes = {name: each.notes for name, each in classifications.items() if each}
    if height := read(directory / "analysis" / "height", GroupResults):
        notes["height"] = height.notes
        classifications |= {f"height of {group}": each for group, each in height.groups.items()}
    return AnalysisResults(
        experiment if name.startswith("seed") else name,
        levels.representations if levels else {},
        {name: classifications[name] for name in SUBJECTS if classifications.get(name)},
        read(directory / "probes", ProbeResults, "8 (probes)"),
        notes,
    )


@dataclass(frozen=True)
class Estimate:
    """A number that several trainings have.

    Attributes:
        mean: over them.
        std: standard deviation over them, if there are several.
        interval: of 95 %, where there is one training and it has one.
        count: of trainings.
    """

    mean: float
    std: float | None
    interval: tuple[float, float] | None
    count: int

    def text(self, render: Callable[[float], str]) -> str:
        """The mean, and how sure it is."""
        if self.std is not None:
            return f"{render(self.mean)} +-{render(self.std)}"
        return render(self.mean) + (f" [{', '.join(map(render, self.interval))}]" if self.interval else "")


def combine(values: Iterable[float | None], interval: tuple[float, float] | None = None) -> Estimate | None:
    """The estimate of several trainings, None if none has it; `interval` is that of the first."""
    known = [value for value in values if value is not None]
    if len(known) > 1:
        return Estimate(statistics.fmean(known), statistics.stdev(known), None, len(known))
    return Estimate(known[0], None, interval, 1) if known else None


def by_experiment(results: Iterable[AnalysisResults]) -> dict[str, list[AnalysisResults]]:
    """The trainings of each experiment, in order."""
    groups: dict[str, list[AnalysisResults]] = {}
    for each in results:
        groups.setdefault(each.experiment, []).append(each)
    return groups


def accuracy(seeds: Iterable[AnalysisResults], subject: str, name: str, protocol: str) -> tuple[Estimate, int] | None:
    """Accuracy of a representation under a protocol, at the k of its headline or the last before it, and that k.

    Args:
        seeds: trainings of one experiment.
        subject: of `SUBJECTS`.
        name: of the representation.
        protocol: of `PROTOCOLS`.
    """
    points = []
    for each in seeds:
        if curve := each.curves(subject, protocol).get(name):
            k = each.classifications[subject].representations[name].headline.k
            points.append((curve, min(k, len(curve.k)) - 1))
    if not points:
        return None
    curve, place = points[0]
    estimate = combine((curve.accuracy[place] for curve, place in points), (curve.low[place], curve.high[place]))
    return estimate, curve.k[place]


@dataclass(frozen=True)
class MeanCurve:
    """Accuracies over k of a representation, means over seeds.

    Attributes:
        experiment: that the representation belongs to.
        representation: name.
        accuracy: (largest k,) from k = 1.
        chance: accuracy of always the largest class.
    """

    experiment: str
    representation: str
    accuracy: list[float]
    chance: float


def mean_curves(results: Sequence[AnalysisResults]) -> dict[str, list[MeanCurve]]:
    """All curves of each subject, by its name and protocol: speakers left out, where there are such curves."""
    panels = {}
    for subject in SUBJECTS:
        for protocol in (LEAVE_ONE_SPEAKER_OUT, LEAVE_ONE_OUT):
            known: dict[tuple[str, str], list[Curve]] = {}
            for each in results:
                for name, curve in each.curves(subject, protocol).items():
                    known.setdefault((each.experiment, name), []).append(curve)
            if known:
                panels[f"{subject}, {PROTOCOLS[protocol]}"] = [
                    MeanCurve(
                        *who,
                        # to the largest k that all seeds have
                        [statistics.fmean(values) for values in zip(*(c.accuracy for c in curves), strict=False)],
                        statistics.fmean(curve.chance for curve in curves),
                    )
                    for who, curves in known.items()
                ]
                break
    return panels
