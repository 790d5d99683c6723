"""Scores, compressed files and learning curves found on disk, from JSON alone. Does not import torch."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from speechlvm.scoring.results import EXACT_BOUNDS
from speechlvm.utils.errors import UserError
from speechlvm.utils.records import Record, read_record

_Kind = TypeVar("_Kind", bound=Record)
BASELINE_SYSTEMS = ("uniform", "dmol", "adaptive")  # and all codecs


class Preparation(Record):
    """What became of the corpus's files when it was prepared, all sets together; numbers of files, by kind."""

    rejected: int = 0
    converted: dict[str, int] = {}
    tolerated: dict[str, int] = {}


class Result(Record):
    """What tables and figures need of a result.json; MODELS.md says what the fields are."""

    model: str
    system: str = ""
    set: str
    coding: str
    unit: Literal["pmf", "density"]
    bound: str = Field(pattern=r"^(exact|code-length|elbo|(iwae|fivo)-[0-9]+)$")
    distribution: dict[str, Any] = {}
    bits_per_frame: float | None
    bits_per_frame_interval: list[float] | None = None
    nats_per_frame: float
    nats_per_utterance: float
    terms_nats_per_frame: dict[str, float] = {}
    frames: int
    utterances: int
    stack: int | None = None
    parameters: int | None = None
    steps: int | None = None
    hours: float | None = None
    data_hash: str | None = None
    preparation: Preparation = Preparation()


class External(Result):
    """A result.json of another program: positive numbers, of which those of one quantity agree within one percent."""

    frames: int = Field(gt=0)
    utterances: int = Field(gt=0)

    @model_validator(mode="after")
    def _agrees(self) -> External:
        bits, nats = self.bits_per_frame, self.nats_per_frame
        if (bits is None) != (self.unit == "density"):
            raise ValueError("bits_per_frame is a number if unit is pmf, and null if it is density")
        if bits is not None and not (bits > 0 and math.isclose(bits, -nats / math.log(2), rel_tol=0.01)):
            raise ValueError(f"bits_per_frame {bits:g} and nats_per_frame {nats:g}; expected bits = -nats / 0.6931")
        if not math.isclose(self.nats_per_utterance * self.utterances, nats * self.frames, rel_tol=0.01):
            expected = nats * self.frames / self.utterances
            raise ValueError(
                f"nats_per_utterance {self.nats_per_utterance:g}; {self.utterances} utterances of {self.frames} frames "
                f"together, {nats:g} nats each, have {expected:g}"
            )
        return self


class File(Record):
    """What stage 9 says of a compressed file: `speechlvm.bin.roundtrip`. Bits and bytes are totals.

    Attributes:
        model: name of the experiment, or adaptive.
        coding: over whose cells the model is evaluated.
        model_bits: negative log-likelihood, or bound, of the utterances in the file.
        table_bits: the same by the integer tables, at the latents that were chosen.
        stream_bits: of the streams, without the initial bits.
        initial_bits: that the first utterances of bits back take from nothing.
        header_bits: of header and index; with the two before it, the whole file.
        flac_bytes: of the same utterances as FLAC files, padding apart.
        lanes: utterances that are coded side by side.
        verified: a new process has decompressed the file to the same bits.
    """

    model: str
    system: str
    set: str
    coding: str
    bound: str
    seed: int | None
    utterances: int = Field(gt=0)
    frames: int = Field(gt=0)
    model_bits: float = Field(gt=0)
    table_bits: float
    stream_bits: int
    initial_bits: int
    header_bits: int
    file_bytes: int
    flac_bytes: int
    encode_seconds: float = Field(gt=0)
    decode_seconds: float = Field(gt=0)
    rate_hz: int
    lanes: int
    data_hash: str
    verified: Literal[True]

    @property
    def overhead(self) -> float:
        """What the file takes beyond bound and initial bits, as a share of the bound."""
        return (self.stream_bits + self.header_bits) / self.model_bits - 1.0


@dataclass(frozen=True)
class Score:
    """One system's results on one set under one coding, of one bound.

    Attributes:
        root: as the rows of tables name another recipe's experiments; "" for the recipe's own.
        experiment: directory name below exp/<train_set>.
        set: that was scored.
        coding: of the scored values.
        results: result.json of each seed (of one for baselines).
        folders: where these are; none of another program's.
    """

    root: str
    experiment: str
    set: str
    coding: str
    results: tuple[Result, ...]
    folders: tuple[Path, ...] = ()

    def mean(self, field: str) -> float | None:
        """Mean over seeds; None where the field does not apply."""
        values = [getattr(result, field) for result in self.results]
        return None if None in values else statistics.fmean(values)

    def std(self, field: str) -> float | None:
        """Standard deviation over seeds, if there are several."""
        values = [getattr(result, field) for result in self.results]
        return statistics.stdev(values) if len(values) > 1 and None not in values else None

    @property
    def first(self) -> Result:
        """One of the results, for what does not vary with the seed."""
        return self.results[0]

    @property
    def is_reference(self) -> bool:
        """Whether no network was trained for it."""
        return self.first.bound == "code-length" or self.first.system in BASELINE_SYSTEMS

    @property
    def bound(self) -> str:
        """Type of bound, in words."""
        names = {"exact": "exact", "elbo": "ELBO", "code-length": "code length"}
        return names.get(self.first.bound, self.first.bound.upper())

    @property
    def tighter(self) -> bool:
        """Whether it is another bound than the one-sample ELBO, which alone the papers' tables have."""
        return self.first.bound not in (*EXACT_BOUNDS, "elbo")

    @property
    def label(self) -> str:
        """The experiment, with its bound where the ELBO may stand beside it."""
        return f"{self.experiment} ({self.bound})" if self.tighter else self.experiment

    @property
    def sign(self) -> str:
        """The sign before a value that is not exact: <= for bits, >= for densities."""
        if self.first.bound in EXACT_BOUNDS:
            return ""
        return "<=" if self.first.unit == "pmf" else ">="

    @property
    def symbol(self) -> str:
        """The sign as figures and pages have it."""
        return {"": "", "<=": "≤ ", ">=": "≥ "}[self.sign]

    @property
    def kl_bits_by_level(self) -> list[float]:
        """Bits per frame, mean over seeds, of each level from z1 on; empty where there are no latents."""
        names = sorted(name for name in self.first.terms_nats_per_frame if name.startswith("kl_"))
        return [statistics.fmean(r.terms_nats_per_frame[name] for r in self.results) / math.log(2) for name in names]

    @property
    def kl_nats_per_frame(self) -> float | None:
        """Mean over seeds of the sum over levels; None where there are no latents."""
        sums = [[v for k, v in r.terms_nats_per_frame.items() if k.startswith("kl_")] for r in self.results]
        return statistics.fmean(map(sum, sums)) if all(sums) else None

    @property
    def output(self) -> str:
        """Output distribution with its settings, above all the floor that bounds a density."""
        settings: dict[str, Any] = dict(self.first.distribution)
        name, components = settings.pop("name", ""), settings.pop("components", None)
        words = [f"{name}({components})" if components else name]
        if (floor := settings.pop("minimum_std", None)) is not None:
            words.append(f"std >= {floor:g}" if floor else "no floor")
        for key, value in sorted(settings.items()):
            words.append(f"{'' if value else 'not '}{key}" if isinstance(value, bool) else f"{key} {value}")
        return ", ".join(words)


def collect(root: Path, errors: list[str], name: str = "") -> list[Score]:
    """All complete scores below exp/<train_set>, by experiment, set, coding and bound; none if it does not exist.

    Args:
        root: exp/<train_set>.
        errors: gets a line for each result that cannot be used: which, why, and what to do.
        name: what rows call the root, if it is another recipe's.
    """
    # by the seed's directory, so that what is exact counts once whatever bounds were asked for
    groups: dict[tuple[str, str, str, str], dict[Path, tuple[Path, Result]]] = {}
    for pattern in ("*/score_*", "*/seed*/score_*"):  # baselines, experiments
        for folder, result in _complete_results(Path(root), pattern, Result, errors):
            key = (folder.relative_to(root).parts[0], result.set, result.coding, result.bound)
            groups.setdefault(key, {})[folder.parent] = (folder, result)
    scores = []
    for key in sorted(groups):
        folders, results = zip(*groups[key].values(), strict=True)
        scores.append(Score(name, *key[:3], results, folders))
    return scores


def collect_external(folder: Path, errors: list[str]) -> list[Score]:
    """Results of another program: all JSON files of a folder, each on its own; `errors` as in `collect`."""
    scores, paths = [], sorted(Path(folder).glob("*.json"))
    found: dict[tuple[str, ...], Path] = {}
    for path in paths:
        try:
            result = read_record(path, External, "correct it (MODELS.md has its shape)")
        except UserError as error:
            errors.append(str(error))
            continue
        what = (result.set, result.coding, result.unit, result.bound)
        if (first := found.setdefault(what, path)) != path:
            errors.append(f"{path}: of {', '.join(what)}, as {first} is; keep one of them")
            continue
        scores.append(Score(str(folder), "", result.set, result.coding, (result,)))
    if not paths:
        errors.append(f"{folder}: no results of another program; expected JSON files (MODELS.md has their shape)")
    return scores


def scores_of(directory: Path, errors: list[str]) -> list[Score]:
    """All complete scores of one experiment directory, each on its own; `errors` as in `collect`."""
    found = _complete_results(directory, "score_*", Result, errors)
    return [Score("", result.model, result.set, result.coding, (result,), (folder,)) for folder, result in found]


def collect_files(root: Path, errors: list[str]) -> list[File]:
    """All compressed files below exp/<train_set>, the smallest first; `errors` as in `collect`."""
    patterns = ("*/compressed_*", "*/seed*/compressed_*")  # the adaptive reference, experiments
    found = [file for pattern in patterns for _, file in _complete_results(Path(root), pattern, File, errors)]
    return sorted(found, key=lambda file: (file.set, file.file_bytes / file.frames, file.model, file.seed or 0))


def files_of(directory: Path, errors: list[str]) -> list[File]:
    """The compressed files of one experiment directory; `errors` as in `collect`."""
    return [file for _, file in _complete_results(directory, "compressed_*", File, errors)]


def _complete_results(root: Path, pattern: str, kind: type[_Kind], errors: list[str]) -> Iterator[tuple[Path, _Kind]]:
    again = {Result: "score again", File: "run stage 9 again"}[kind]
    for path in sorted(root.glob(f"{pattern}/result.json")):
        if (path.parent / "done.json").exists():
            try:
                yield path.parent, read_record(path, kind, f"remove {path.parent} and {again}")
            except UserError as error:
                errors.append(str(error))


def learning_curves(root: Path, errors: list[str], pattern: str = "*/seed*") -> dict[str, list[dict[str, Any]]]:
    """Validations of history.jsonl by "experiment/seed".

    Args:
        root: exp/<train_set>.
        errors: gets a line for each file that cannot be used.
        pattern: of the trainings: all, or one.
    """
    curves = {}
    for path in sorted(Path(root).glob(f"{pattern}/history.jsonl")):
        try:
            entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            for entry in entries:
                entry["step"] + entry["seconds"], entry["bits_per_frame"], entry["nats_per_frame"] + 0.0
        except (ValueError, KeyError, TypeError) as error:
            errors.append(f"{path}: not a history of validations ({error!r}); continue the training, which writes it")
            continue
        if entries:
            curves["/".join(path.relative_to(root).parts[:2])] = entries
    return curves


def raise_first(errors: Sequence[str], out: Path) -> None:
    """Raise the first error, if there is one.

    Args:
        errors: of files that could not be used.
        out: the file that lists them all.

    Raises:
        UserError: there is an error.
    """
    if errors:
        more = f" (and {len(errors) - 1} more; {out} lists all)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{more}; everything else is in {out}")
