"""Labelled items for analyses: averages of representations over phones or whole utterances, with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechlvm.data.kaldi.directory import DataDirectory, Interval, load_data_dir
from speechlvm.latents.store import Store, open_stores
from speechlvm.utils.errors import UserError


class Unsuitable(UserError):
    """The data do not support an analysis: labels are missing, or there are fewer than two classes."""


@dataclass(frozen=True)
class Items:
    """N labelled vectors of each representation.

    Attributes:
        features: (N, D) float64, by name of the representation.
        labels: (N,) str.
        speakers: (N,) str.
    """

    features: dict[str, np.ndarray]
    labels: np.ndarray
    speakers: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: np.ndarray) -> Items:
        """The items for which `chosen`, (N,) bool, is true."""
        features = {name: values[chosen] for name, values in self.features.items()}
        return Items(features, self.labels[chosen], self.speakers[chosen])


@dataclass(frozen=True)
class Set:
    """Representations of a set, and its data directory."""

    store: Store
    directory: Path
    data: DataDirectory


def require_labels(sets: Sequence[Set], **files: str) -> None:
    """Raise `Unsuitable` if a data directory lacks a file; `files` maps attributes of `DataDirectory` to file names."""
    for item in sets:
        for attribute, name in files.items():
            if not getattr(item.data, attribute):
                raise Unsuitable(f"{item.directory / name}: no such file, and this analysis needs it")


def open_sets(stores: Sequence[Path], directories: Sequence[Path]) -> list[Set]:
    """Open stores, and the data directories of the same sets.

    Raises:
        UserError: see `open_stores` and `load_data_dir`.
    """
    return [
        Set(store, Path(path), load_data_dir(path))
        for store, path in zip(open_stores(stores), directories, strict=True)
    ]


def check_labelled(sets: Sequence[Set]) -> None:
    """Check that stores and data directories have the same utterances, so that labels apply to representations.

    Raises:
        Unsuitable: the representations are of segments of recordings.
        UserError: a store and its data directory have different utterances.
    """
    for item in sets:
        store = item.store
        missing = sorted(set(item.data.utterances) ^ set(store.utterances))
        if missing and store.info.get("segment_frames"):
            raise Unsuitable(
                f"{store.directory}: recordings were cut into segments of {store.info['segment_frames']} frames, but "
                "labels are of whole recordings"
            )
        if missing:
            which, other = item.directory, store.directory
            if missing[0] in set(store.utterances):
                which, other = other, which
            raise UserError(
                f"{store.directory}: does not match {item.directory}: {missing[0]} is in {which} and not in {other} "
                f"({len(missing)} such utterances); give the data directory of the latents, or run stage 6 (latents) "
                "again"
            )


def of_phones(sets: Sequence[Set], speaker: str, fold: Callable[[str], str | None]) -> Items:
    """Averages over the duration of each phone of a speaker, in temporal order.

    Args:
        sets: sets with `phones`.
        speaker: speaker id.
        fold: label -> class, or None to leave the phone out.
    """

    def pieces(data: DataDirectory, utterance: str) -> list[Piece]:
        segments = data.phones.get(utterance, []) if data.utt2spk[utterance] == speaker else []
        return [(segment, name) for segment in segments if (name := fold(segment.label)) is not None]

    return _averages(sets, pieces)


def of_utterances(sets: Sequence[Set], label: Callable[[DataDirectory, str], str | None]) -> Items:
    """Averages over whole utterances.

    Args:
        sets: sets of speech.
        label: (data, speaker) -> class, or None to leave the speaker out.
    """

    def pieces(data: DataDirectory, utterance: str) -> list[Piece]:
        name = label(data, data.utt2spk[utterance])
        return [] if name is None else [(None, name)]

    return _averages(sets, pieces)


Piece = tuple[Interval | None, str]
"""Start and end in an utterance, or None for all of it, and its class."""


def _averages(sets: Sequence[Set], pieces: Callable[[DataDirectory, str], list[Piece]]) -> Items:
    representations = sets[0].store.representations
    features: dict[str, list[np.ndarray]] = {name: [] for name in representations}
    labels, speakers = [], []
    for item in sets:
        for utterance in item.data.utterances:
            found = pieces(item.data, utterance)
            labels += [label for _, label in found]
            speakers += [item.data.utt2spk[utterance]] * len(found)
            for name, representation in representations.items() if found else ():
                values = item.store.read(name, utterance).astype(np.float64)
                for segment, _ in found:
                    steps = slice(None)
                    if segment is not None:
                        steps = representation.steps_within(segment.start_sample, segment.end_sample, len(values))
                    features[name].append(values[steps].mean(0))
    arrays = {
        name: np.array(features[name]).reshape(-1, representation.dimensions)
        for name, representation in representations.items()
    }
    return Items(arrays, np.array(labels, str), np.array(speakers, str))
