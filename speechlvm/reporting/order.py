"""The order of the trained systems of a table: paired differences of bits, beside the published order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechlvm.coding import PCM_CODINGS
from speechlvm.reporting.collect import Score
from speechlvm.reporting.compare import ComparedRow, ComparedTable
from speechlvm.reporting.formats import Column, Grid
from speechlvm.reporting.published import mean_and_std
from speechlvm.scoring.accounting import LN2, percentile_interval, resampled_bits_per_frame
from speechlvm.scoring.results import read_utterances


@dataclass(frozen=True)
class _Place:
    """A row in the order.

    Attributes:
        item: the row.
        score: ours.
        published: of it, if known.
        drawn: bits per frame in every draw of utterances; the draws are the same for all rows.
    """

    item: ComparedRow
    score: Score
    published: float | None
    drawn: np.ndarray

    @property
    def bits(self) -> float:
        return self.score.mean("bits_per_frame")

    @property
    def name(self) -> str:
        row = self.item.row
        return " ".join(filter(None, (row.system, row.configuration, row.s and f"s={row.s}")))


def order_grids(compared: ComparedTable, scores: Sequence[Score]) -> list[Grid]:
    """A grid for each set of a table of bits on which at least two of its rows were trained and scored.

    The records are all pairs of rows.

    Args:
        compared: the table.
        scores: all scores, which may have the rows' bits of the PCM signal.
    """
    if compared.table.densities:
        return []
    places = [(name, _places(compared, name)) for name in compared.table.sets]
    return [_grid(compared, name, found, scores) for name, found in places if len(found) > 1]


def _places(compared: ComparedTable, name: str) -> list[_Place]:
    """The rows that were trained and scored on a set, best first; of these, those with the same utterances."""
    scored = [(item, item.scores[name]) for item in compared.rows if name in item.scores]
    trained = [(item, score) for item, score in scored if score.folders and not score.is_reference]
    read = [(item, score, [read_utterances(folder) for folder in score.folders]) for item, score in trained]
    found = [each for each in read if all(seed.keys() == read[0][2][0].keys() for seed in each[2])]
    if not found:
        return []
    utterances = sorted(found[0][2][0])
    frames = np.array([found[0][2][0][utterance][1] for utterance in utterances])
    nats = [np.mean([[seed[u][0] for u in utterances] for seed in seeds], axis=0) for _, _, seeds in found]
    drawn = resampled_bits_per_frame(-np.array(nats) / LN2, frames)
    rows = zip(found, drawn, strict=True)
    places = [_Place(item, score, item.row.published.get(name), draws) for (item, score, _), draws in rows]
    return sorted(places, key=lambda place: place.bits)


def _grid(compared: ComparedTable, name: str, places: list[_Place], scores: Sequence[Score]) -> Grid:
    table = compared.table
    published = sorted(place.published for place in places if place.published is not None)
    columns = [Column("rank", number=True), Column("s", number=True), Column("system"), Column("configuration")]
    columns += [Column(head, number=True) for head in (f"{table.coding} [bpf]", "95 % interval", "PCM [bpf]")]
    columns += [Column("KL by level [bpf]", number=True), Column("- the row above [bpf]", number=True)]
    columns += [Column("its 95 % interval", number=True)]
    columns += [Column(head, number=True) for head in ("published", "its rank") if published]
    rows = []
    for rank, place in enumerate(places, 1):
        row, value = place.item.row, place.published
        low, high = percentile_interval(place.drawn)
        cells = [str(rank), str(row.s or "-"), row.system, row.configuration]
        cells += [mean_and_std(place.score, "bits_per_frame"), f"{low:.3f} - {high:.3f}"]
        cells += [_of_the_signal(place.score, scores), " + ".join(f"{v:.3f}" for v in place.score.kl_bits_by_level)]
        cells += _difference(places[rank - 2], place) if rank > 1 else ["", ""]
        if published:
            cells += ["", ""] if value is None else [f"{row.mark}{value:.2f}", str(1 + published.index(value))]
        rows.append(cells)
    records = [_pair(table.table, name, *pair) for pair in itertools.combinations(places, 2)]
    note = (
        "Ranks compare the bits in the table, bounds included. *: the 95 % interval of the difference, paired over "
        "utterances, excludes zero; the CSV file has all pairs."
    )
    note += f" {_agreement(places)}" if published else ""
    title = f"Order of Table {table.table} on `{name}`"
    return Grid(f"{table.table}_order_{name}", title, columns, rows, note, records)


def _of_the_signal(score: Score, scores: Sequence[Score]) -> str:
    """Bits of the PCM signal by the same model, if it was scored over its cells."""
    for other in scores:
        same = (other.root, other.experiment, other.set, other.first.bound)
        if same == (score.root, score.experiment, score.set, score.first.bound) and other.coding in PCM_CODINGS:
            return mean_and_std(other, "bits_per_frame")
    return ""


def _difference(better: _Place, worse: _Place) -> list[str]:
    low, high = percentile_interval(worse.drawn - better.drawn)
    return [f"{worse.bits - better.bits:+.3f}{' *' if low > 0 else ''}", f"{low:+.3f} - {high:+.3f}"]


def _pair(table: str, name: str, better: _Place, worse: _Place) -> dict[str, object]:
    low, high = percentile_interval(worse.drawn - better.drawn)
    return {
        "table": table,
        "set": name,
        "better": better.score.experiment,
        "worse": worse.score.experiment,
        "difference": worse.bits - better.bits,
        "low": low,
        "high": high,
        "excludes_zero": low > 0,
    }


def _agreement(places: list[_Place]) -> str:
    """How many pairs of rows stand in the published order, and which do not."""
    known = [place for place in places if place.published is not None]
    pairs = [(a, b) for a, b in itertools.combinations(known, 2) if a.published != b.published]
    other = [f"{b.name} before {a.name}" for a, b in pairs if a.published > b.published]
    text = f"{len(pairs) - len(other)} of {len(pairs)} pairs of rows stand in the published order"
    return f"{text}; published the other way round: {'; '.join(other)}." if other else f"{text}."
