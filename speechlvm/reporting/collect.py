"""Results found on disk, averaged over seeds."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechlvm.errors import UserError
from speechlvm.files import read_json


@dataclass(frozen=True)
class Cell:
    """One system's result on one set under one coding.

    Attributes:
        root: as the rows of tables name another recipe's experiments; "" for the recipe's own.
        experiment: directory name below exp/<train_set>.
        set: that was scored.
        coding: whose cells were scored.
        results: result.json of each seed (of one for baselines).
    """

    root: str
    experiment: str
    set: str
    coding: str
    results: tuple[dict[str, Any], ...]

    def mean(self, field: str) -> float | None:
        """Mean over seeds; None where the field does not apply."""
        values = [result[field] for result in self.results]
        return None if None in values else statistics.fmean(values)

    def deviation(self, field: str) -> float | None:
        """Standard deviation over seeds, if there are several."""
        values = [result[field] for result in self.results]
        return statistics.stdev(values) if len(values) > 1 and None not in values else None

    @property
    def samples(self) -> int:
        """Samples of the latents that each likelihood is bounded with; 1 for the ELBO and for what is exact."""
        return _samples(self.first["bound"])

    @property
    def first(self) -> dict[str, Any]:
        """One of the results, for what does not vary with the seed."""
        return self.results[0]


def _samples(bound: str) -> int:
    return int(bound.removeprefix("iwae-")) if bound.startswith("iwae-") else 1


def collect(root: Path, name: str = "") -> list[Cell]:
    """All complete results below exp/<train_set>, sorted by experiment, set and coding; none if it is not there.

    The bound with the most samples stands for a system: an importance-weighted one for the ELBO where there is one.

    Args:
        root: exp/<train_set>.
        name: what rows call it, if it is another recipe's.

    Raises:
        UserError: a result lacks a field.
    """
    # by system, then by samples, then by the seed's directory: what is exact scores the same with any number of samples
    groups: dict[tuple[str, str, str], dict[int, dict[Path, dict[str, Any]]]] = {}
    for path in sorted(Path(root).glob("*/**/score_*/result.json")):
        if not (path.parent / "done.json").exists():
            continue
        result = read_json(path)
        try:
            key = (path.relative_to(root).parts[0], result["set"], result["coding"])
            samples = _samples(result["bound"])
        except KeyError as error:
            raise UserError(f"{path}: lacks {error}; remove {path.parent} and score again") from error
        groups.setdefault(key, {}).setdefault(samples, {})[path.parent.parent] = result
    return [Cell(name, *key, tuple(bounds[max(bounds)].values())) for key, bounds in sorted(groups.items())]


def learning_curves(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Validations of history.jsonl by "experiment/seed"."""
    curves = {}
    for path in sorted(Path(root).glob("*/seed*/history.jsonl")):
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if entries:
            curves["/".join(path.relative_to(root).parts[:2])] = entries
    return curves
