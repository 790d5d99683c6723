"""Dumps of sequences of real vectors (pen points, joint angles).

    <dump>/feats.<job>.ark      written by job <job>, in the format of `speechlvm.data.kaldi.matrices`
    <dump>/shard.<job>.json     offsets, frames, moments and a hash of each utterance
    <dump>/feats.scp utt2num_frames info.json      of the whole set, written by `merge`

Real channels are normalised by the mean and standard deviation of the training set when they are read; binary ones
stay 0 or 1.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from speechlvm.data.dumps.dump import Dump, DumpRecord
from speechlvm.data.kaldi.matrices import HEADER_BYTES, VALUE_BYTES, parse_header, write_record
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import hash_value, write_json
from speechlvm.utils.shards import read_shards, remove_shards_beyond, write_index, write_shard

MARGINAL_FRAMES = 16_384
"""Maximum number of frames from which the marginal distribution is fitted."""


def write(
    directory: Path, job: int, sequences: Iterable[tuple[str, np.ndarray]], channels: dict[str, str], inputs: dict
) -> None:
    """Write one job's archive and, last, its JSON.

    Raises:
        UserError: a sequence with another number of channels, a value that is not finite, or a value of a binary
            channel that is not 0 or 1.
    """
    with write_shard(directory, job, inputs, ["feats"]) as shard:
        for utterance, values in sequences:
            _check_values(utterance, values, channels)
            offset = write_record(shard.streams["feats"], utterance, values)
            wide = values.astype(np.float64)
            mean = wide.mean(0)
            squares = ((wide - mean) ** 2).sum(0)
            digest = hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()
            entry = [utterance, offset, len(values), digest, mean.tolist(), squares.tolist()]
            shard.entries["feats"].append(entry)


def _check_values(utterance: str, values: np.ndarray, channels: dict[str, str]) -> None:
    if values.shape[1] != len(channels):
        raise UserError(f"{utterance}: {values.shape[1]} columns; expected {len(channels)} ({', '.join(channels)})")
    for column, (name, kind) in enumerate(channels.items()):
        wrong = ~np.isfinite(values[:, column])
        if kind == "binary":
            wrong |= (values[:, column] != 0) & (values[:, column] != 1)
        if wrong.any():
            frame = int(wrong.argmax())
            expected = "0 or 1" if kind == "binary" else "a finite number"
            raise UserError(
                f"{utterance}: frame {frame}: {name} is {values[frame, column]}; expected {expected}; "
                "fix or leave out the sequence and prepare the data again"
            )


def merge(directory: Path, jobs: int, source: str, channels: dict[str, str], rate_hz: float | None) -> dict:
    """Join the shards; returns info.json. Moments do not depend on the number of shards."""
    lines = write_index(directory, read_shards(directory, jobs), "feats", "utt2num_frames")
    frames, mean, squares = 0, np.zeros(len(channels)), np.zeros(len(channels))
    for _, _, _, count, _, own_mean, own_squares in lines:
        # pairwise update of mean and squared deviations: no cancellation even if the mean is large
        difference = np.array(own_mean) - mean
        share = count / (frames + count)
        squares = squares + np.array(own_squares) + difference**2 * frames * share
        mean = mean + difference * share
        frames += count
    info = {
        "kind": "vectors",
        "source": source,
        "rate_hz": rate_hz,
        "channels": list(map(list, channels.items())),  # keys of a JSON file have no order
        "mean": mean.tolist(),
        "std": np.sqrt(squares / frames).tolist(),
        "utterances": len(lines),
        "frames": frames,
        "data_hash": hash_value([[line[0], line[4]] for line in lines]),
    }
    write_json(directory / "info.json", info)
    remove_shards_beyond(directory, jobs, "feats")
    return info


class VectorDump(Dump):
    """Random access to the sequences of a dump.

    Attributes:
        channels: name -> real | binary, in the order of the columns.
        mean: (C,) over all frames.
        std: (C,) over all frames.
    """

    index, counts = "feats.scp", "utt2num_frames"

    def __init__(self, directory: Path, info: dict) -> None:
        super().__init__(directory, info)
        self.channels: dict[str, str] = dict(info["channels"])
        self.mean, self.std = np.array(info["mean"]), np.array(info["std"])
        self.header_bytes, self.frame_bytes = HEADER_BYTES, VALUE_BYTES * len(self.channels)

    def marginal(self) -> np.ndarray:
        """(N, C) float32: equally spaced frames of the whole set, at most `MARGINAL_FRAMES`."""
        every = -(-self.frames // MARGINAL_FRAMES)
        return np.concatenate(list(self._every(every)))

    def _every(self, every: int) -> Iterator[np.ndarray]:
        start = 0
        for utterance, record in self.records.items():
            yield self.read(utterance)[start::every]
            start = (start - record.frames) % every

    def _decode(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, dtype="<f4").reshape(-1, len(self.channels)).astype(np.float32, copy=False)

    def _check_header(self, record: DumpRecord, descriptor: int) -> None:
        data = os.pread(descriptor, HEADER_BYTES, record.offset)
        try:
            shape = parse_header(data, "")
        except UserError:
            raise self._mismatch(record, "no float32 matrix") from None
        if shape != (record.frames, len(self.channels)):
            raise self._mismatch(record, f"holds {shape[0]} x {shape[1]} values, the index says {record.frames} frames")
