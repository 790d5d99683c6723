"""Dumps: every utterance's int16 PCM once, as RIFF records in ark + scp, and the exact histogram of PCM values.

    <dump>/pcm.<job>.ark        records "<utt> RIFF....data<int16 samples>", as Kaldi and kaldiio write them
    <dump>/part.<job>.json      what job <job> wrote: offsets, frames and a hash of each utterance's samples
    <dump>/histogram.<job>.npy  int64 counts of the 65 536 PCM values
    <dump>/pcm.scp utt2num_samples histogram.npy info.json      of the whole set, written by `merge`

The reader opens archives only as 44-byte RIFF headers followed by samples: nothing that is read can run code.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechlvm.errors import UserError
from speechlvm.files import atomic_write, disk_errors, hash_value, read_json, write_json

RIFF_HEADER_BYTES = 44
SAMPLE_BYTES = 2


@dataclass(frozen=True)
class Record:
    """Where an utterance's samples lie: `offset` is the RIFF header's, as in the scp file."""

    utterance: str
    archive: Path
    offset: int
    frames: int


def share_of(items: list, job: int, jobs: int) -> list:
    """Contiguous share of job 1 .. jobs."""
    return items[len(items) * (job - 1) // jobs : len(items) * job // jobs]


def write_part(directory: Path, job: int, audio: Iterable[tuple[str, np.ndarray]], rate_hz: int, inputs: dict) -> None:
    """Write one job's archive, histogram and, last, its JSON.

    Args:
        directory: of the dump.
        job: number of this part, from 1.
        audio: (utterance, int16 samples), sorted.
        rate_hz: sampling rate in the headers.
        inputs: what the part was made from; `part_is_done` compares it.
    """
    import kaldiio

    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    archive = directory / f"pcm.{job}.ark"
    with disk_errors(directory):
        (directory / f"part.{job}.json").unlink(missing_ok=True)
        for leftover in directory.glob(f".pcm.{job}.ark.*.tmp"):  # of a run that was killed
            leftover.unlink()
    histogram = np.zeros(65536, dtype=np.int64)
    entries = []
    with atomic_write(archive, "wb") as stream:
        for utterance, samples in audio:
            offset = stream.tell() + len(utterance.encode()) + 1
            kaldiio.save_ark(stream, {utterance: (rate_hz, samples)})
            histogram += np.bincount(samples.astype(np.int32) + 32768, minlength=65536)
            digest = hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()
            entries.append([utterance, offset, len(samples), digest])
    with atomic_write(directory / f"histogram.{job}.npy", "wb") as stream:
        np.save(stream, histogram, allow_pickle=False)
    write_json(directory / f"part.{job}.json", {"inputs": inputs, "rate_hz": rate_hz, "utterances": entries})


def part_is_done(directory: Path, job: int, inputs: dict) -> bool:
    """Whether part `job` is complete and was made from `inputs`."""
    path = directory / f"part.{job}.json"
    return path.exists() and read_json(path).get("inputs") == inputs


def merge(directory: Path, jobs: int, source: str) -> dict:
    """Join the parts into scp, utt2num_samples and histogram; returns what info.json says.

    Raises:
        UserError: a part is missing.
    """
    parts = [read_json(directory / f"part.{job}.json") for job in range(1, jobs + 1)]
    histogram = sum(load_histogram(directory / f"histogram.{job}.npy") for job in range(1, jobs + 1))
    lines = sorted(
        (utterance, f"pcm.{job}.ark", offset, frames, digest)
        for job, part in enumerate(parts, start=1)
        for utterance, offset, frames, digest in part["utterances"]
    )
    root = directory.absolute()
    with atomic_write(directory / "histogram.npy", "wb") as stream:
        np.save(stream, histogram, allow_pickle=False)
    with atomic_write(directory / "utt2num_samples") as stream:
        stream.writelines(f"{utterance} {frames}\n" for utterance, _, _, frames, _ in lines)
    with atomic_write(directory / "pcm.scp") as stream:
        stream.writelines(f"{utterance} {root / archive}:{offset}\n" for utterance, archive, offset, _, _ in lines)
    info = {
        "source": source,
        "rate_hz": parts[0]["rate_hz"],
        "utterances": len(lines),
        "frames": int(sum(frames for _, _, _, frames, _ in lines)),
        "data_hash": hash_value([[utterance, digest] for utterance, _, _, _, digest in lines]),
    }
    write_json(directory / "info.json", info)
    for stale in directory.glob("*.*.*"):  # parts of an earlier run with more jobs
        stem, number, _ = stale.name.split(".", 2)
        if stem in ("pcm", "part", "histogram") and number.isdigit() and int(number) > jobs:
            with disk_errors(stale):
                stale.unlink()
    return info


def load_histogram(path: Path) -> np.ndarray:
    """(65536,) int64 counts of PCM value v at index v + 32768.

    Raises:
        UserError: missing or not such a table.
    """
    try:
        histogram = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; run stage 2 (dumps)") from error
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a histogram of PCM values; run stage 2 (dumps) again") from error
    if histogram.shape != (65536,) or histogram.dtype != np.int64:
        raise UserError(f"{path}: holds {histogram.dtype}{histogram.shape}; expected int64(65536,); run stage 2 again")
    return histogram


class Dump:
    """Random access to the samples of a dump; reads only what is asked for, by position.

    Attributes:
        records: utterance -> Record, sorted by utterance.
        info: contents of info.json.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.info = read_json(self.directory / "info.json")
        self.rate_hz: int = self.info["rate_hz"]
        self._descriptors: dict[Path, int] = {}
        self._checked: set[str] = set()
        frames = dict(self._table("utt2num_samples"))
        self.records: dict[str, Record] = {}
        for number, (utterance, location) in enumerate(self._table("pcm.scp"), start=1):
            path, _, offset = location.rpartition(":")
            if utterance not in frames or not frames[utterance].isdigit() or not offset.isdigit():
                raise UserError(
                    f"{self.directory / 'pcm.scp'}:{number}: {utterance} has no valid offset or no entry in "
                    "utt2num_samples; run stage 2 (dumps) again"
                )
            # beside its scp first: a dump that was copied or moved reads its own archives
            beside = self.directory / Path(path).name
            archive = beside if beside.exists() else Path(path)
            self.records[utterance] = Record(utterance, archive, int(offset), int(frames[utterance]))
        if len(self.records) != self.info["utterances"]:
            raise UserError(
                f"{self.directory / 'pcm.scp'}: {len(self.records)} utterances, info.json says "
                f"{self.info['utterances']}; run stage 2 (dumps) again"
            )

    def _table(self, name: str) -> list[list[str]]:
        path = self.directory / name
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError as error:
            raise UserError(f"{path}: missing; run stage 2 (dumps)") from error
        rows = [line.split(" ", 1) for line in lines]
        for number, row in enumerate(rows, start=1):
            if len(row) != 2:
                raise UserError(f"{path}:{number}: expected an utterance and a value; run stage 2 (dumps) again")
        return rows

    @property
    def histogram(self) -> np.ndarray:
        """(65536,) int64 counts of the set's PCM values."""
        return load_histogram(self.directory / "histogram.npy")

    @property
    def frames(self) -> int:
        """Frames of the whole set."""
        return sum(record.frames for record in self.records.values())

    def read(self, utterance: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Samples start .. stop - 1 of an utterance, int16.

        Raises:
            UserError: the archive does not hold what its index says.
        """
        record = self.records[utterance]
        stop = record.frames if stop is None else min(stop, record.frames)
        descriptor = self._open(record)
        if utterance not in self._checked:
            self._check_header(record, descriptor)
            self._checked.add(utterance)
        count = (stop - start) * SAMPLE_BYTES
        data = os.pread(descriptor, count, record.offset + RIFF_HEADER_BYTES + start * SAMPLE_BYTES)
        if len(data) != count:
            raise self._mismatch(record, f"ends after {len(data)} of {count} bytes")
        return np.frombuffer(data, dtype="<i2").astype(np.int16, copy=False)

    def _open(self, record: Record) -> int:
        if record.archive not in self._descriptors:
            try:
                self._descriptors[record.archive] = os.open(record.archive, os.O_RDONLY)
            except OSError as error:
                raise UserError(f"{record.archive}: {error.strerror}; run stage 2 (dumps) again") from error
        return self._descriptors[record.archive]

    def _check_header(self, record: Record, descriptor: int) -> None:
        name = record.utterance.encode() + b" "
        start = max(0, record.offset - len(name))
        data = os.pread(descriptor, len(name) + RIFF_HEADER_BYTES, start)
        header = data[len(name) :]
        if data[: len(name)] != name or len(header) != RIFF_HEADER_BYTES:
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

    def _mismatch(self, record: Record, reason: str) -> UserError:
        return UserError(
            f"{record.archive}:{record.offset}: {record.utterance}: {reason}; "
            f"the archive does not belong to {self.directory / 'pcm.scp'}; run stage 2 (dumps) again"
        )

    def close(self) -> None:
        """Close the archives."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def __getstate__(self) -> dict:
        # loader workers open the archives for themselves
        return {**self.__dict__, "_descriptors": {}}
