"""Latent space analysis: analyses (stage 7) and probes (stage 8) of experiments and of spectra, found on disk.

No torch in here: it works in seconds, from result.json files alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from speechlvm.utils.errors import UserError
from speechlvm.utils.files import read_json

SPECTRA = "spectra"
LEAVE_ONE_OUT, LEAVE_ONE_SPEAKER_OUT = "leave_one_out", "leave_one_speaker_out"
PROTOCOLS = {LEAVE_ONE_OUT: "leave one out", LEAVE_ONE_SPEAKER_OUT: "leave one speaker out"}
ANALYSES = ("levels", "phones", "gender", "height")
SUBJECTS = ("phones", "gender", "height of men", "height of women")


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Curve(_Record):
    """Accuracies of k nearest neighbours over k = 1, 2, ..., with their intervals."""

    k: list[int] = Field(min_length=1)
    accuracy: list[float]
    low: list[float]
    high: list[float]
    chance: float


class Headline(_Record):
    """Which point of which curve stands for a representation."""

    protocol: str
    k: int = Field(ge=1)


class Classified(_Record):
    """How well a representation tells classes apart; curves by protocol."""

    kind: str
    curves: dict[str, Curve]
    headline: Headline


class Comparison(_Record):
    """Representations compared by how well they tell the same classes apart."""

    items: int
    speakers: int | dict[str, Any]
    classes: dict[str, int]
    representations: dict[str, Classified]
    notes: list[str] = []

    @property
    def size(self) -> str:
        """Number of items and, in brackets, of the speakers whose they are."""
        return f"{self.items} ({self.speakers if isinstance(self.speakers, int) else len(self.speakers)})"


class Groups(_Record):
    """Comparisons within groups of speakers: of height among men, and among women."""

    groups: dict[str, Comparison]
    notes: list[str] = []


class Level(_Record):
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


class Levels(_Record):
    """What tables need of analysis/levels/result.json."""

    representations: dict[str, Level]


class Run(BaseModel):
    """One training of a probe; accuracy, and fields that end in _error_rate, are its scores."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow")

    task: str
    representation: str
    size: str
    minutes: float

    @property
    def scores(self) -> dict[str, float]:
        """Error rates and accuracies by name."""
        fields = self.model_extra or {}
        return {key: fields[key] for key in fields if key == "accuracy" or key.endswith("_error_rate")}


class Task(_Record):
    """What is known of a task: by score, what always the commonest label reaches."""

    chance: dict[str, float]


class Probes(_Record):
    """What tables need of probes/result.json."""

    runs: list[Run]
    tasks: dict[str, Task]


@dataclass(frozen=True)
class Findings:
    """What stages 7 and 8 found for one training of an experiment, or for the spectra.

    Attributes:
        experiment: directory below exp/<train_set>; "spectra" for the baselines.
        levels: by representation.
        comparisons: by subject: those of `SUBJECTS` that there are.
        probes: None if there are none.
        notes: what analyses left out, by the analysis.
    """

    experiment: str
    levels: dict[str, Level] = field(default_factory=dict)
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    probes: Probes | None = None
    notes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def representations(self) -> list[str]:
        """Names in all analyses, in their order."""
        names = [self.levels, *(comparison.representations for comparison in self.comparisons.values())]
        return list(dict.fromkeys(name for known in names for name in known))


def collect_findings(root: Path) -> tuple[list[Findings], list[str]]:
    """All complete analyses and probes below exp/<train_set>: experiments by name and seed, the spectra last.

    Returns:
        What there is, and a line for each result.json that cannot be used: which, why, and what to do.
    """
    found, errors = [], []
    for directory in [*sorted(Path(root).glob("*/seed*")), Path(root) / SPECTRA]:
        findings, more = findings_of(directory)
        found.append(findings)
        errors += more
    return [each for each in found if each.representations or each.probes], errors


def findings_of(directory: Path) -> tuple[Findings, list[str]]:
    """Complete analyses and probes of one experiment directory, and a line for each that cannot be used."""
    directory, errors = Path(directory), []
    *_, experiment, name = directory.absolute().parts

    def read(folder: Path, record: type[BaseModel], stage: str) -> Any:
        if (folder / "done.json").exists():
            try:
                return _read(folder, record, stage)
            except UserError as error:
                errors.append(str(error))
        return None

    analyses, stage = directory / "analysis", "7 (latent analysis)"
    levels = read(analyses / "levels", Levels, stage)
    comparisons = {name: read(analyses / name, Comparison, stage) for name in ("phones", "gender")}
    notes = {name: comparison.notes for name, comparison in comparisons.items() if comparison}
    if height := read(analyses / "height", Groups, stage):
        notes["height"] = height.notes
        comparisons |= {f"height of {group}": comparison for group, comparison in height.groups.items()}
    probes = read(directory / "probes", Probes, "8 (probes)")
    findings = Findings(
        experiment if name.startswith("seed") else name,
        levels.representations if levels else {},
        {name: comparisons[name] for name in SUBJECTS if comparisons.get(name)},
        probes,
        notes,
    )
    return findings, errors


def _read(folder: Path, record: type[BaseModel], stage: str) -> BaseModel:
    path, again = folder / "result.json", f"remove {folder} and run stage {stage} again"
    try:
        return record.model_validate(read_json(path))
    except UserError as error:
        raise UserError(f"{str(error).split(';')[0]}; {again}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "contents"
        raise UserError(f"{path}: {where}: {first['msg'].lower()}; {again}") from error


@dataclass(frozen=True)
class Value:
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


def combine(values: Iterable[float | None], interval: tuple[float, float] | None = None) -> Value | None:
    """The value of several trainings, None if none has it; `interval` is that of the first."""
    known = [value for value in values if value is not None]
    if len(known) > 1:
        return Value(statistics.fmean(known), statistics.stdev(known), None, len(known))
    return Value(known[0], None, interval, 1) if known else None


def by_experiment(findings: Iterable[Findings]) -> dict[str, list[Findings]]:
    """The trainings of each experiment, in order."""
    groups: dict[str, list[Findings]] = {}
    for each in findings:
        groups.setdefault(each.experiment, []).append(each)
    return groups


def accuracy(seeds: Iterable[Findings], subject: str, name: str, protocol: str) -> tuple[Value, int] | None:
    """Accuracy of a representation under a protocol, at the k of its headline or the last before it, and that k.

    Args:
        seeds: trainings of one experiment.
        subject: of `SUBJECTS`.
        name: of the representation.
        protocol: whose curve is read.
    """
    points = []
    for each in seeds:
        known = _classified(each, subject).get(name)
        if known and protocol in known.curves:
            curve = known.curves[protocol]
            points.append((curve, min(known.headline.k, len(curve.k)) - 1))
    if not points:
        return None
    curve, place = points[0]
    value = combine((curve.accuracy[place] for curve, place in points), (curve.low[place], curve.high[place]))
    return value, curve.k[place]


@dataclass(frozen=True)
class MeanCurve:
    """Accuracies over k of a representation, means over seeds.

    Attributes:
        experiment: whose it is.
        representation: name.
        accuracy: (largest k,) from k = 1.
        chance: accuracy of always the largest class.
    """

    experiment: str
    representation: str
    accuracy: list[float]
    chance: float


def mean_curves(findings: Sequence[Findings]) -> dict[str, list[MeanCurve]]:
    """All curves of each subject, by its name and protocol: speakers left out, where there are such curves."""
    panels = {}
    for subject in SUBJECTS:
        known: dict[str, dict[tuple[str, str], list[Curve]]] = {}
        for each in findings:
            for name, classified in _classified(each, subject).items():
                for protocol, curve in classified.curves.items():
                    known.setdefault(protocol, {}).setdefault((each.experiment, name), []).append(curve)
        protocol = LEAVE_ONE_SPEAKER_OUT if LEAVE_ONE_SPEAKER_OUT in known else LEAVE_ONE_OUT
        if protocol in known:
            panels[f"{subject}, {PROTOCOLS[protocol]}"] = [
                MeanCurve(
                    *who,
                    # to the largest k that all seeds have
                    [statistics.fmean(values) for values in zip(*(curve.accuracy for curve in curves), strict=False)],
                    statistics.fmean(curve.chance for curve in curves),
                )
                for who, curves in known[protocol].items()
            ]
    return panels


def _classified(findings: Findings, subject: str) -> dict[str, Classified]:
    return findings.comparisons[subject].representations if subject in findings.comparisons else {}
