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
        experiment: directory name below exp/<train_set>.
        set: that was scored.
        coding: whose cells were scored.
        results: result.json of each seed (of one for baselines).
    """

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
    def first(self) -> dict[str, Any]:
        """One of the results, for what does not vary with the seed."""
        return self.results[0]


def collect(root: Path) -> list[Cell]:
    """All complete results below exp/<train_set>, sorted by experiment, set and coding.

    An importance-weighted bound stands in for the ELBO where there is one.

    Raises:
        UserError: a result lacks a field.
    """
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for path in sorted(Path(root).glob("*/**/score_*/result.json")):
        if not (path.parent / "done.json").exists():
            continue
        result = read_json(path)
        try:
            key = (path.relative_to(root).parts[0], result["set"], result["coding"], result["bound"])
        except KeyError as error:
            raise UserError(f"{path}: lacks {error}; remove {path.parent} and score again") from error
        groups.setdefault(key, []).append(result)
    tightest: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for (*key, _), results in sorted(groups.items()):  # importance-weighted bounds sort after, and replace, the ELBO
        tightest[tuple(key)] = results
    return [Cell(*key, tuple(results)) for key, results in sorted(tightest.items())]


def learning_curves(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Validations of history.jsonl by "experiment/seed"."""
    curves = {}
    for path in sorted(Path(root).glob("*/seed*/history.jsonl")):
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if entries:
            curves["/".join(path.relative_to(root).parts[:2])] = entries
    return curves
