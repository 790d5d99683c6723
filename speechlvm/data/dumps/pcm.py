"""Dumps of audio: the int16 PCM of every utterance as RIFF records, and the exact histogram of PCM values.

<dump>/pcm.<job>.ark        records "<utt> RIFF....data<int16 samples>", as Kaldi and kaldiio write them
<dump>/shard.<job>.json     offsets, frames and a hash of each utterance in it
<dump>/histogram.<job>.npy  int64 counts of the 65 536 PCM values
<dump>/pcm.scp utt2num_samples histogram.npy info.json      of the whole set, written by `merge`
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from speechlvm.data.audio import MOST_FRAMES, wav_header
from speechlvm.data.dumps.dump import Dump, DumpRecord, make_again
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import hash_value, write_array, write_json
from speechlvm.utils.shards import read_shards, remove_shards_beyond, write_index, write_shard

RIFF_HEADER_BYTES = 44
SAMPLE_BYTES = 2


def write(
    directory: Path, job: int, audio: Iterable[tuple[str, Iterable[np.ndarray]]], rate_hz: int, inputs: dict
) -> None:
    """Write one job's archive, histogram and, last, its JSON; only one block of samples is in memory at a time.

    Args:
        directory: directory of the dump.
        job: number of the shard, from 1.
        audio: (utterance, blocks of int16 samples), sorted.
        rate_hz: sampling rate in the headers.
        inputs: everything that determines the shard; stored in it.

    Raises:
        UserError: an utterance is too long for a record.
    """
    histogram = np.zeros(65536, dtype=np.int64)
    with write_shard(directory, job, inputs, ["pcm"]) as shard:
        stream = shard.streams["pcm"]
        for utterance, blocks in audio:
            stream.write(utterance.encode() + b" ")
            offset, frames, digest = stream.tell(), 0, hashlib.sha256()
            stream.write(wav_header(0, rate_hz))
            for samples in blocks:
                frames += len(samples)
                if frames > MOST_FRAMES:
                    raise UserError(
                        f"{utterance}: more than {MOST_FRAMES} frames, the limit of a record; dump it in segments with "
                        "--segment_frames"
                    )
                data = samples.astype("<i2", copy=False).tobytes()
                stream.write(data)
                digest.update(data)
                histogram += np.bincount(samples.astype(np.int32) + 32768, minlength=65536)
            stream.seek(offset)
            stream.write(wav_header(frames, rate_hz))
            stream.seek(0, os.SEEK_END)
            shard.entries["pcm"].append([utterance, offset, frames, digest.hexdigest()])
        write_array(directory / f"histogram.{job}.npy", histogram)
        shard.about["rate_hz"] = rate_hz


def merge(directory: Path, jobs: int, source: str, preparation: dict | None = None) -> dict:
    """Join the shards into scp, utt2num_samples and histogram; returns info.json.

    Args:
        directory: directory of the dump.
        jobs: number of shards.
        source: data directory.
        preparation: counts of rejected, converted and odd files in its preparation.

    Raises:
        UserError: a shard is missing.
    """
    shards = read_shards(directory, jobs)
    lines = write_index(directory, shards, "pcm", "utt2num_samples")
    histogram = sum(load_histogram(directory / f"histogram.{job}.npy") for job in range(1, jobs + 1))
    write_array(directory / "histogram.npy", histogram)
    info = {
        "kind": "pcm16",
        "source": source,
        "rate_hz": shards[0]["rate_hz"],
        "preparation": preparation or {},
        "utterances": len(lines),
        "frames": int(sum(frames for _, _, _, frames, _ in lines)),
        "data_hash": hash_value([[utterance, digest] for utterance, _, _, _, digest in lines]),
    }
    write_json(directory / "info.json", info)
    remove_shards_beyond(directory, jobs, "pcm", "histogram")
    return info


def load_histogram(path: Path) -> np.ndarray:
    """(65536,) int64 counts of PCM value v at index v + 32768.

    Raises:
        UserError: missing or not such a table.
    """
    try:
        histogram = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; {make_again(path.parent)}") from error
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a histogram of PCM values; {make_again(path.parent)}") from error
    if histogram.shape != (65536,) or histogram.dtype != np.int64:
        found = f"{histogram.dtype}{histogram.shape}"
        raise UserError(f"{path}: holds {found}; expected int64(65536,); {make_again(path.parent)}")
    return histogram


class PCMDump(Dump):
    """Random access to the int16 samples of a dump of audio."""

    index, counts = "pcm.scp", "utt2num_samples"
    header_bytes, frame_bytes = RIFF_HEADER_BYTES, SAMPLE_BYTES

    @property
    def histogram(self) -> np.ndarray:
        """(65536,) int64 counts of the set's PCM values."""
        return load_histogram(self.directory / "histogram.npy")

    def marginal(self) -> np.ndarray:
        """The exact histogram."""
        return self.histogram

    def _decode(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, dtype="<i2").astype(np.int16, copy=False)

    def _check_header(self, record: DumpRecord, descriptor: int) -> None:
        header = os.pread(descriptor, RIFF_HEADER_BYTES, record.offset)
        if len(header) != RIFF_HEADER_BYTES:
            raise self._mismatch(record, f"no record of {record.utterance}")
        riff, _, wave, fmt, _, tag, channels, rate, _, _, bits, data_tag, size = struct.unpack(
            "<4sI4s4sIHHIIHH4sI", header
        )
        if (riff, wave, fmt, data_tag, tag, channels, bits) != (b"RIFF", b"WAVE", b"fmt ", b"data", 1, 1, 16):
            raise self._mismatch(record, "no 16-bit mono RIFF header")
        if rate != self.rate_hz or size != record.frames * SAMPLE_BYTES:
            raise self._mismatch(
                record,
                f"header says {size // SAMPLE_BYTES} frames at {rate} Hz, "
                f"the index {record.frames} at {self.rate_hz} Hz",
            )
