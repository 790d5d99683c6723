"""Representations on disk: latents, hidden states or spectra of each utterance of a set.

    <store>/<name>_<statistic>.<job>.ark    Kaldi float32 matrices (steps, dimensions), one for each utterance
    <store>/<name>_<statistic>.scp          of the whole set: "<utt> <archive>:<offset>"
    <store>/shard.<job>.json                what job <job> wrote
    <store>/info.json done.json             of the whole set

A statistic is "mean" (posterior means of latents; the values themselves of hidden states and spectra), "std" (posterior
standard deviations) or "kl" (nats per step and dimension). Archives are read only as headers followed by float32
values, which cannot run code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from speechlvm.data.kaldi.matrices import extend_record, read_vectors, write_record
from speechlvm.data.kaldi.tables import unsafe_id
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import disk_errors, read_json, write_json
from speechlvm.utils.records import read_record
from speechlvm.utils.shards import read_shards, remove_shards_beyond, write_index, write_shard

STATISTICS = ("mean", "std", "kl")
KINDS = ("latent", "hidden", "spectrum")
MADE = ("model", "num_samples", "names", "seed")  # settings of extraction that all sets must share


@dataclass(frozen=True)
class Representation:
    """Description of vectors at regular steps.

    Attributes:
        name: name in files and figures: z1, h, skip50, logmel.
        kind: latent, hidden or spectrum.
        hop_frames: frames from one step to the next.
        first_centre_frames: the frame at which step 0 is centred; step i is centred `i * hop_frames` later.
        dimensions: D.
        statistics: available members of `STATISTICS`, always including "mean".
    """

    name: str
    kind: str
    hop_frames: int
    first_centre_frames: float
    dimensions: int
    statistics: tuple[str, ...] = ("mean",)

    def steps_within(self, start_frame: int, end_frame: int, steps: int) -> slice:
        """Steps centred in frames start_frame .. end_frame - 1, or the nearest step if there is none.

        Args:
            start_frame: first frame.
            end_frame: the frame after the last.
            steps: number of steps of the utterance; the slice is never empty.
        """
        first = int(np.ceil((start_frame - self.first_centre_frames) / self.hop_frames))
        after = int(np.ceil((end_frame - self.first_centre_frames) / self.hop_frames))
        first, after = max(first, 0), min(after, steps)
        if first < after:
            return slice(first, after)
        middle = ((start_frame + end_frame) / 2 - self.first_centre_frames) / self.hop_frames
        nearest = min(max(int(np.floor(middle + 0.5)), 0), steps - 1)
        return slice(nearest, nearest + 1)


Values = Mapping[str, Mapping[str, np.ndarray]]
"""Values of one utterance: name -> statistic -> (steps, D) float32."""


def write(
    directory: Path,
    job: int,
    items: Iterable[tuple[str, Values]],
    representations: Iterable[Representation],
    inputs: dict[str, Any],
) -> None:
    """Write the archives of one job and, last, its JSON.

    Args:
        directory: directory of the store.
        job: number of the shard, from 1.
        items: (utterance, values), in any order; those of long utterances can be in consecutive parts.
        representations: representations that each utterance has.
        inputs: everything that determines the shard; stored in it.

    Raises:
        UserError: a value is not finite, or its shape does not match the representation.
    """
    described = list(representations)
    stems = [(r, statistic, f"{r.name}_{statistic}") for r in described for statistic in r.statistics]
    last, rows = None, {}
    with write_shard(directory, job, inputs, [stem for _, _, stem in stems]) as shard:
        shard.about["representations"] = [asdict(r) for r in described]
        for utterance, values in items:
            for r, statistic, stem in stems:
                with np.errstate(over="ignore"):  # infinite values are refused below
                    array = np.asarray(values[r.name][statistic], dtype="<f4")
                expected = (len(values[r.name]["mean"]), r.dimensions)
                if array.shape != expected or not len(array):
                    raise UserError(f"{utterance}: {stem}: {array.shape}; expected (steps, dimensions) {expected}")
                if not np.isfinite(array).all():
                    raise UserError(f"{utterance}: {stem} is not finite; the model is broken for this utterance")
                if utterance == last:
                    rows[stem] += len(array)
                    extend_record(shard.streams[stem], shard.entries[stem][-1][1], array, rows[stem])
                else:
                    rows[stem] = len(array)
                    shard.entries[stem].append([utterance, write_record(shard.streams[stem], utterance, array)])
            last = utterance


def expected_bytes(described: Iterable[Representation], lengths: Collection[int]) -> int:
    """Approximate size of a store of utterances of these lengths in frames."""
    return sum(
        len(r.statistics) * (4 * r.dimensions * -(-frames // r.hop_frames) + 300)
        for r in described
        for frames in lengths
    )


def merge(directory: Path, jobs: int, info: Mapping[str, Any]) -> dict[str, Any]:
    """Join the shards into scp files; returns the contents of info.json.

    Args:
        directory: directory of the store.
        jobs: number of shards.
        info: result of `about_dump`, with "source" (experiment name, or "spectra") and, for latents, "num_samples".
    """
    shards, utterances = read_shards(directory, jobs), 0
    described = next((shard["representations"] for shard in shards if shard["representations"]), [])
    stems = [f"{r['name']}_{statistic}" for r in described for statistic in r["statistics"]]
    for stem in stems:
        utterances = len(write_index(directory, shards, stem))
    info = {**info, "kind": "representations", "utterances": utterances, "representations": described}
    write_json(directory / "info.json", info)
    remove_shards_beyond(directory, jobs, *stems)
    _remove_others(directory, stems)
    return info


def about_dump(dump: Path) -> dict[str, Any]:
    """Fields of info.json that come from the dump.

    Returns:
        set, rate_hz (frames per second or None), data_hash, and segment_frames, None unless recordings were cut.
    """
    info = read_json(dump / "info.json")
    return {
        "set": dump.name,
        "rate_hz": info["rate_hz"],
        "data_hash": info["data_hash"],
        "segment_frames": read_json(dump / "done.json").get("segment_frames"),
    }


def _remove_others(directory: Path, stems: Collection[str]) -> None:
    """Remove files of an earlier run for other representations or statistics."""
    for statistic in STATISTICS:
        for stale in directory.glob(f"*_{statistic}.*"):
            if stale.name.partition(".")[0] not in stems:
                with disk_errors(stale):
                    stale.unlink()


class Store:
    """Random access to the representations of a set.

    Attributes:
        directory: directory of the store.
        info: contents of info.json.
        source: name of the experiment, or "spectra".
        rate_hz: frames per second; None if frames have no rate.
        representations: representations by name, lowest level first.
        utterances: utterance ids, sorted.
        made: settings that all sets of one model share: checkpoint, samples, seed; empty for spectra.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        done, info = (read_record(self.directory / name, dict, self._again()) for name in ("done.json", "info.json"))
        try:
            if info["kind"] != "representations":
                raise ValueError(f"kind '{info['kind']}'")
            self.info, self.source, self.rate_hz = info, info["source"], info["rate_hz"]
            self._count = info["utterances"]
            described = [Representation(**{**r, "statistics": tuple(r["statistics"])}) for r in info["representations"]]
            if any(r.hop_frames < 1 for r in described):
                raise ValueError("hop_frames below 1")
            if unsafe := [r.name for r in described if unsafe_id(r.name)]:  # files are named after them
                raise ValueError(f"a representation called {unsafe[0]!a}")
            self.made = {key: done[key] for key in MADE if key in done}
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{directory}/info.json: damaged ({error!r}); {self._again()}") from error
        self.representations = {r.name: r for r in described}
        self._places: dict[tuple[str, str], dict[str, str]] = {}
        self.utterances = sorted(self._index(described[0].name, "mean")) if described else []

    def _again(self) -> str:
        return f"remove {self.directory} and run stage 6 (latents) again"

    def _index(self, name: str, statistic: str) -> dict[str, str]:
        """Utterance -> location. Archives are next to their scp file, so the store can be moved."""
        if (name, statistic) not in self._places:
            path = self.directory / f"{name}_{statistic}.scp"
            places = {}
            try:
                for line in path.read_text(encoding="utf-8").splitlines():
                    utterance, _, location = line.partition(" ")
                    places[utterance] = f"{self.directory}/{location.rpartition('/')[2]}"
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path}: cannot be read ({error}); {self._again()}") from error
            if len(places) != self._count:
                raise UserError(f"{path}: {len(places)} utterances, info.json says {self._count}; {self._again()}")
            self._places[name, statistic] = places
        return self._places[name, statistic]

    def read(self, name: str, utterance: str, statistic: str = "mean") -> np.ndarray:
        """(steps, D) float32 of an utterance.

        Raises:
            UserError: not in the store, or damaged.
        """
        if name not in self.representations or statistic not in self.representations[name].statistics:
            known = ", ".join(f"{r.name} ({' '.join(r.statistics)})" for r in self.representations.values())
            raise UserError(f"{self.directory}: no {statistic} of '{name}'; expected: {known}")
        places = self._index(name, statistic)
        if utterance not in places:
            raise UserError(f"{self.directory}: {utterance}: not in {name}_{statistic}.scp; is it from another set?")
        values = read_vectors(places[utterance], utterance, self._again())
        dimensions = self.representations[name].dimensions
        if values.shape[1] != dimensions:
            raise UserError(
                f"{places[utterance]}: {utterance} has {values.shape[1]} dimensions, info.json says {dimensions}; "
                f"{self._again()}"
            )
        return values.copy()  # writable

    def check_compatible(self, other: Store) -> None:
        """Check that the store of another set is of the same trained model, with the same sampling settings.

        Raises:
            UserError: it is not, for instance because stage 6 was interrupted after the model had been retrained.
        """
        if self._identity() != other._identity():
            raise UserError(
                f"{self.directory}: {self._describe()}; {other.directory}: {other._describe()}; "
                "only sets of one model can be used together"
            )
        differing = [key for key in MADE if self.made.get(key) != other.made.get(key)]
        if differing:
            what = "another training" if "model" in differing else f"another {', '.join(differing)}"
            raise UserError(
                f"{self.directory}: made with {what} than {other.directory}; run stage 6 (latents) for all sets"
            )

    def _identity(self) -> tuple:
        """What is the same in all sets of a model; the statistics may differ."""
        described = [replace(representation, statistics=()) for representation in self.representations.values()]
        return self.source, self.rate_hz, described

    def _describe(self) -> str:
        named = [f"{r.name} (D={r.dimensions}, hop {r.hop_frames} frames)" for r in self.representations.values()]
        return f"{self.source}, {self.rate_hz} Hz, {', '.join(named)}"

    def step_rate_hz(self, name: str) -> float | None:
        """Steps per second; None if frames have no rate."""
        return None if self.rate_hz is None else self.rate_hz / self.representations[name].hop_frames


def open_stores(directories: Iterable[Path]) -> list[Store]:
    """Open the stores of several sets.

    Raises:
        UserError: one is damaged, they are of different models, or two of them have an utterance in common.
    """
    stores = [Store(directory) for directory in directories]
    owners: dict[str, Store] = {}
    for store in stores:
        store.check_compatible(stores[0])
        for utterance in store.utterances:
            if owners.setdefault(utterance, store) is not store:
                raise UserError(
                    f"{store.directory}: {utterance} is in {owners[utterance].directory}, too; give each utterance once"
                )
    return stores
