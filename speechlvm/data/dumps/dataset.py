"""Batches of raw data: whole utterances of similar length, or random segments; a pure function of (seed, epoch).

No batch exceeds the given number of frames, padding included: longer utterances are split into consecutive segments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from speechlvm.data.dumps.dump import Dump
from speechlvm.utils.processes import follow_parent
from speechlvm.utils.settings import Settings


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
        segments: the segment of each row.
        data: (B, T) int16 PCM or (B, T, C) float32 vectors, zero beyond each row's length.
        lengths: (B,) int64 frames.
        beside: (B, T, N) float32 of the frames, where something is computed of them (`load_batches`).
    """

    segments: tuple[Segment, ...]
    data: Tensor
    lengths: Tensor
    beside: Tensor | None = None

    @property
    def frames(self) -> int:
        """Frames in the batch without padding."""
        return int(self.lengths.sum())

    def noise_keys(self, *prefix: int | str) -> list[tuple]:
        """One key per row: the prefix, the utterance and the start of the segment."""
        return [(*prefix, segment.utterance, segment.start) for segment in self.segments]


Beside = Callable[[Sequence[Segment]], Sequence[np.ndarray]]
"""Segments of a dump -> (frames, N) float32 of each."""


def keyed_generator(*key: int | str) -> np.random.Generator:
    """A generator that depends on the key alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def split_utterance(utterance: str, frames: int, most: int) -> list[Segment]:
    """Splits an utterance into as few consecutive segments of equal length, at most `most` frames, as possible."""
    count = -(-frames // most)
    starts = [frames * number // count for number in range(count + 1)]
    return [Segment(utterance, start, stop - start) for start, stop in pairwise(starts)]


def whole_utterance_batches(
    frames: dict[str, int], batch_frames: int, seed: int, epoch: int, max_frames: int | None = None
) -> list[list[Segment]]:
    """All frames of every utterance once, in batches of similar length.

    Lengths are perturbed by up to 10 % before sorting, so that batches differ from epoch to epoch.

    Args:
        frames: number of frames of each utterance.
        batch_frames: maximum number of frames of a batch, padding included.
        seed, epoch: determine the batches.
        max_frames: longer utterances are split; None: those longer than `batch_frames`.
    """
    generator = keyed_generator(seed, epoch, "batches")
    most = min(batch_frames, max_frames or batch_frames)
    segments = [
        segment for utterance in sorted(frames) for segment in split_utterance(utterance, frames[utterance], most)
    ]
    jitter = 1.0 + 0.1 * generator.random(len(segments))
    order = sorted(range(len(segments)), key=lambda i: (segments[i].frames * jitter[i], i))
    batches: list[list[Segment]] = []
    longest = 0
    for index in order:
        segment = segments[index]
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

    Shorter utterances are used whole. The start depends on (seed, epoch, utterance), but not on the other
    utterances.
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
        return whole_utterance_batches(frames, settings.batch_frames, seed, epoch, settings.max_frames)
    return random_segment_batches(frames, settings.segment_frames, settings.batch_frames, seed, epoch)


def cut_utterances(frames: dict[str, int], settings: DataSettings) -> int:
    """Number of utterances that `plan_batches` splits."""
    return 0 if settings.segment_frames else sum(length > settings.row_frames for length in frames.values())


def consecutive_batches(frames: dict[str, int], batch_frames: int) -> list[list[Segment]]:
    """Every utterance once, whole, by decreasing length, for scoring: the largest batch comes first.

    An utterance longer than `batch_frames` is a batch of its own, which the caller reads in chunks.
    """
    batches: list[list[Segment]] = []
    for utterance in sorted(frames, key=lambda u: (-frames[u], u)):
        segment = Segment(utterance, 0, frames[utterance])
        if batches and batches[-1][0].frames * (len(batches[-1]) + 1) <= batch_frames:
            batches[-1].append(segment)
        else:
            batches.append([segment])
    return batches


class _Batches(Dataset):
    """Map-style data set of batches."""

    def __init__(self, dump: Dump, batches: Sequence[Sequence[Segment]], beside: Beside | None) -> None:
        self.dump = dump
        self.batches = batches
        self.beside = beside

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return read_batch(self.dump, self.batches[index], self.beside)


def read_batch(dump: Dump, segments: Sequence[Segment], beside: Beside | None = None) -> Batch:
    """Read and pad segments."""
    lengths = torch.tensor([segment.frames for segment in segments])
    rows = [dump.read(segment.utterance, segment.start, segment.start + segment.frames) for segment in segments]
    of_rows = None if beside is None else _padded(beside(segments))
    return Batch(tuple(segments), _padded(rows), lengths, of_rows)


def _padded(rows: Sequence[np.ndarray]) -> Tensor:
    data = np.zeros((len(rows), max(map(len, rows)), *rows[0].shape[1:]), dtype=rows[0].dtype)
    for padded, row in zip(data, rows, strict=True):
        padded[: len(row)] = row
    return torch.from_numpy(data)


def load_batches(
    dump: Dump, batches: Sequence[Sequence[Segment]], workers: int = 0, beside: Beside | None = None
) -> Iterator[Batch]:
    """The batches in order, read lazily; `workers` processes read ahead, and compute what is `beside` the frames."""
    # without a generator the loader would draw from torch's global one
    generator = torch.Generator()
    items = _Batches(dump, batches, beside)
    return iter(DataLoader(items, None, num_workers=workers, generator=generator, worker_init_fn=follow_parent))


class DataSettings(Settings):
    """How training batches are made."""

    batch_frames: int = Field(gt=0, le=10**9, description="frames per batch, padding included")
    segment_frames: int | None = Field(
        default=None, gt=0, le=10**9, description="random segments; null: whole utterances"
    )
    max_frames: int | None = Field(
        default=None, gt=0, le=10**9, description="frames per row; longer utterances are cut; null: batch_frames"
    )
    workers: int = Field(default=0, ge=0, le=64, description="processes that read ahead")

    @model_validator(mode="after")
    def _segment_fits(self) -> DataSettings:
        if self.segment_frames is not None and self.segment_frames > self.batch_frames:
            raise ValueError(f"segment_frames {self.segment_frames} exceeds batch_frames {self.batch_frames}")
        if None not in (self.segment_frames, self.max_frames) and self.segment_frames > self.max_frames:
            raise ValueError(f"segment_frames {self.segment_frames} exceeds max_frames {self.max_frames}")
        return self

    @property
    def row_frames(self) -> int:
        """Maximum number of frames of a row of a batch."""
        return self.segment_frames or min(self.batch_frames, self.max_frames or self.batch_frames)
