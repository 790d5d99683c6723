"""Results found on disk, averaged over seeds. Does not import torch: fast, from result.json files alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from speechlvm.scoring.results import EXACT_BOUNDS
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import read_json


class Preparation(BaseModel):
    """What became of the corpus's files when it was prepared, all sets together; numbers of files, by kind."""

    model_config = ConfigDict(strict=True)

    rejected: int = 0
    converted: dict[str, int] = {}
    tolerated: dict[str, int] = {}


class Result(BaseModel):
    """What tables and figures need of a result.json; `speechlvm.bin.score` and `baseline` say what the fields are."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    model: str
    system: str
    set: str
    coding: str
    unit: Literal["pmf", "density"]
    bound: str
    distribution: dict[str, Any] = {}
    bits_per_frame: float | None
    bits_per_frame_interval: list[float] | None
    nats_per_frame: float
    nats_per_utterance: float
    terms_nats_per_frame: dict[str, float]
    frames: int
    utterances: int
    parameters: int | None
    steps: int | None
    hours: float | None
    data_hash: str | None = None
    preparation: Preparation = Preparation()


@dataclass(frozen=True)
class Cell:
    """One system's result on one set under one coding.

    Attributes:
        root: as the rows of tables name another recipe's experiments; "" for the recipe's own.
        experiment: directory name below exp/<train_set>.
        set: that was scored.
        coding: whose cells were scored.
        results: result.json of each seed (of one for baselines), all with the same bound.
    """

    root: str
    experiment: str
    set: str
    coding: str
    results: tuple[Result, ...]

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
    def bound(self) -> str:
        """Type of bound, in words."""
        names = {"exact": "exact", "elbo": "ELBO", "code-length": "code length"}
        return names.get(self.first.bound, self.first.bound.upper())

    @property
    def sign(self) -> str:
        """What stands before a value that is not exact: <= of bits, >= of densities."""
        if self.first.bound in EXACT_BOUNDS:
            return ""
        return "<=" if self.first.unit == "pmf" else ">="

    @property
    def kl_nats_per_frame(self) -> float | None:
        """Mean over seeds of the sum over levels; None where there are no latents."""
        sums = [[v for k, v in r.terms_nats_per_frame.items() if k.startswith("kl_")] for r in self.results]
        return statistics.fmean(map(sum, sums)) if all(sums) else None


def collect(root: Path, name: str = "") -> tuple[list[Cell], list[str]]:
    """All complete results below exp/<train_set>, sorted by experiment, set and coding; none if it is not there.

    The bound with the most samples stands for a system: an importance-weighted one for the ELBO where there is one.

    Args:
        root: exp/<train_set>.
        name: what rows call it, if it is another recipe's.

    Returns:
        The cells, and a line for each result that cannot be used: which, why, and what to do.
    """
    # by system, then by samples, then by the seed's directory: what is exact scores the same with any number of samples
    groups: dict[tuple[str, str, str], dict[int, dict[Path, Result]]] = {}
    errors = []
    for path in _complete_results(Path(root)):
        try:
            result, samples = _read(path)
        except UserError as error:
            errors.append(str(error))
            continue
        key = (path.relative_to(root).parts[0], result.set, result.coding)
        groups.setdefault(key, {}).setdefault(samples, {})[path.parent.parent] = result
    cells = [Cell(name, *key, tuple(bounds[max(bounds)].values())) for key, bounds in sorted(groups.items())]
    return cells, errors


def scores_of(directory: Path) -> tuple[list[Cell], list[str]]:
    """All complete results of one experiment directory, one to a cell, and a line for each that cannot be used."""
    cells, errors = [], []
    for path in _complete(directory, "score_*/result.json"):
        try:
            result, _ = _read(path)
        except UserError as error:
            errors.append(str(error))
            continue
        cells.append(Cell("", result.model, result.set, result.coding, (result,)))
    return cells, errors


def _complete_results(root: Path) -> Iterator[Path]:
    for pattern in ("*/score_*/result.json", "*/seed*/score_*/result.json"):  # baselines, experiments
        yield from _complete(root, pattern)


def _complete(root: Path, pattern: str) -> Iterator[Path]:
    return (path for path in sorted(root.glob(pattern)) if (path.parent / "done.json").exists())


def _read(path: Path) -> tuple[Result, int]:
    """A result, and the samples of the latents that bound its likelihood: 1 for the ELBO and for what is exact."""
    again = f"remove {path.parent} and score again"
    try:
        value = read_json(path)
    except UserError as error:
        raise UserError(f"{str(error).split(';')[0]}; {again}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a mapping, found {type(value).__name__}; {again}")
    try:
        result = Result(**value)
        kind, _, samples = result.bound.partition("-")
        return result, int(samples) if kind == "iwae" else 1
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where}: {first['msg'].lower()}; {again}") from error
    except ValueError as error:
        raise UserError(f"{path}: bound '{result.bound}'; expected iwae-K; {again}") from error


def learning_curves(root: Path, pattern: str = "*/seed*") -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Validations of history.jsonl by "experiment/seed", and a line for each file that cannot be used.

    Args:
        root: exp/<train_set>.
        pattern: of the trainings: all, or one.
    """
    curves, errors = {}, []
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
    return curves, errors
