"""Batches of raw data: whole utterances of similar length, or random segments; a pure function of (seed, epoch)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from speechlvm.config import DataSettings
from speechlvm.data.dump import Dump


@dataclass(frozen=True)
class Segment:
    """Frames start .. start + frames - 1 of an utterance."""

    utterance: str
    start: int
    frames: int


@dataclass(frozen=True)
class Batch:
    """A padded batch of raw data.

    Attributes:
        segments: what each row is.
        data: (B, T) int16 PCM or (B, T, C) float32 vectors, zero beyond each row's length.
        lengths: (B,) int64 frames.
    """

    segments: tuple[Segment, ...]
    data: Tensor
    lengths: Tensor

    @property
    def frames(self) -> int:
        """Real frames in the batch."""
        return int(self.lengths.sum())

    def noise_keys(self, *prefix: int | str) -> list[tuple]:
        """One key per row: the prefix, the utterance and where the segment starts."""
        return [(*prefix, segment.utterance, segment.start) for segment in self.segments]


def keyed_generator(*key: int | str) -> np.random.Generator:
    """A generator that depends on the key alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def whole_utterance_batches(frames: dict[str, int], batch_frames: int, seed: int, epoch: int) -> list[list[Segment]]:
    """Every utterance once, in batches of similar length of at most `batch_frames` frames including padding.

    Lengths are perturbed by up to 10 % before sorting, so that batches differ from epoch to epoch. An utterance longer
    than `batch_frames` is a batch of its own.
    """
    generator = keyed_generator(seed, epoch, "batches")
    utterances = sorted(frames)
    jitter = 1.0 + 0.1 * generator.random(len(utterances))
    order = sorted(range(len(utterances)), key=lambda i: (frames[utterances[i]] * jitter[i], utterances[i]))
    batches: list[list[Segment]] = []
    longest = 0
    for index in order:
        segment = Segment(utterances[index], 0, frames[utterances[index]])
        longest = max(longest, segment.frames) if batches else segment.frames
        if batches and longest * (len(batches[-1]) + 1) <= batch_frames:
            batches[-1].append(segment)
        else:
            batches.append([segment])
            longest = segment.frames
    return [batches[i] for i in generator.permutation(len(batches))]


def random_segment_batches(
    frames: dict[str, int], segment_frames: int, batch_frames: int, seed: int, epoch: int
) -> list[list[Segment]]:
    """One random segment of each utterance, in batches of `batch_frames // segment_frames` rows, shuffled.

    Shorter utterances are taken whole. The start is keyed by (seed, epoch, utterance), so it does not depend on which
    other utterances there are.
    """
    segments = []
    for utterance in sorted(frames):
        length = min(segment_frames, frames[utterance])
        spare = frames[utterance] - length
        start = int(keyed_generator(seed, epoch, utterance, "segment").integers(0, spare + 1))
        segments.append(Segment(utterance, start, length))
    rows = max(1, batch_frames // segment_frames)
    order = keyed_generator(seed, epoch, "batches").permutation(len(segments))
    shuffled = [segments[i] for i in order]
    return [shuffled[i : i + rows] for i in range(0, len(shuffled), rows)]


def plan_batches(frames: dict[str, int], settings: DataSettings, seed: int, epoch: int) -> list[list[Segment]]:
    """The epoch's batches under the configuration: random segments if it gives their length, else whole utterances."""
    if settings.segment_frames is None:
        return whole_utterance_batches(frames, settings.batch_frames, seed, epoch)
    return random_segment_batches(frames, settings.segment_frames, settings.batch_frames, seed, epoch)


def consecutive_batches(frames: dict[str, int], batch_frames: int) -> list[list[Segment]]:
    """Every utterance whole and once, by decreasing length, for scoring: the largest batch comes first."""
    batches: list[list[Segment]] = []
    for utterance in sorted(frames, key=lambda u: (-frames[u], u)):
        segment = Segment(utterance, 0, frames[utterance])
        if batches and batches[-1][0].frames * (len(batches[-1]) + 1) <= batch_frames:
            batches[-1].append(segment)
        else:
            batches.append([segment])
    return batches


class _Batches(Dataset):
    """Map-style data set whose items are whole batches."""

    def __init__(self, dump: Dump, batches: Sequence[Sequence[Segment]]) -> None:
        self.dump = dump
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return read_batch(self.dump, self.batches[index])


def read_batch(dump: Dump, segments: Sequence[Segment]) -> Batch:
    """Read and pad some segments."""
    lengths = torch.tensor([segment.frames for segment in segments])
    rows = [dump.read(segment.utterance, segment.start, segment.start + segment.frames) for segment in segments]
    data = np.zeros((len(rows), int(lengths.max()), *rows[0].shape[1:]), dtype=rows[0].dtype)
    for padded, row in zip(data, rows, strict=True):
        padded[: len(row)] = row
    return Batch(tuple(segments), torch.from_numpy(data), lengths)


def load_batches(dump: Dump, batches: Sequence[Sequence[Segment]], workers: int = 0) -> Iterator[Batch]:
    """The batches in order, read lazily; `workers` processes read ahead."""
    # a generator of its own: otherwise the loader draws from torch's global one
    return iter(DataLoader(_Batches(dump, batches), batch_size=None, num_workers=workers, generator=torch.Generator()))
