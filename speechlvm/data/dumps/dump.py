"""Reading of dumps: random access to the frames of utterances in archives.

Archives are read only as headers of fixed size followed by frames, which cannot run code. The hash of each utterance
is checked when it is read for the first time.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechlvm.data.kaldi.tables import unsafe_id
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import hash_value, read_json

BLOCK_BYTES = 1 << 20


class DumpRecord(NamedTuple):
    """Place of the frames of an utterance; `offset` is that of the record's header, as in the scp file."""

    utterance: str
    archive: Path
    offset: int
    frames: int


def share_of(items: list, job: int, jobs: int) -> list:
    """The contiguous share of job `job` (from 1) of `jobs`."""
    return items[len(items) * (job - 1) // jobs : len(items) * job // jobs]


def random_utterances(dump: Dump, minutes: float | None) -> list[str]:
    """Random utterances of at least `minutes` in total, sorted; the same ones in every call.

    Args:
        dump: the set.
        minutes: minimum total duration; all utterances if None, or if the set is shorter.

    Raises:
        UserError: frames of the dump have no rate.
    """
    if minutes is None:
        return sorted(dump.records)
    if dump.rate_hz is None:
        raise UserError(f"{dump.directory}: its frames have no rate; take all of it, without --minutes")
    chosen, frames = [], 0
    for utterance in sorted(dump.records, key=lambda utterance: hash_value(["subset", utterance])):
        if frames >= minutes * 60 * dump.rate_hz:
            break
        chosen.append(utterance)
        frames += dump.records[utterance].frames
    return sorted(chosen)


def make_again(directory: Path) -> str:
    """Advice for a damaged dump, as stage 2 alone skips dumps that done.json marks as complete."""
    return f"remove {directory} and run stage 2 (dumps) again"


class Dump(ABC):
    """Random access to the frames of a dump; reads only the requested frames.

    Attributes:
        records: utterance -> DumpRecord, sorted by utterance.
        info: contents of info.json.
        rate_hz: frames per second; None if frames have no rate.
        header_bytes: size of the header of each record.
        frame_bytes: size of one frame.
        index: name of the file with the offsets of records.
        counts: name of the file with the number of frames of each utterance.
    """

    index: str
    counts: str
    header_bytes: int
    frame_bytes: int

    def __init__(self, directory: Path, info: dict) -> None:
        self.directory = Path(directory)
        self.info = info
        self.rate_hz: float | None = info["rate_hz"]
        self._descriptors: dict[Path, int] = {}
        self._checked: set[str] = set()
        self._digests: dict[str, str] = {}
        archives: dict[str, Path] = {}
        self.records: dict[str, DumpRecord] = {}
        both = zip_longest(self._table(self.index), self._table(self.counts), fillvalue=("", ""))
        for number, ((utterance, location), (counted, frames)) in enumerate(both, start=1):
            path, _, offset = location.rpartition(":")
            if utterance != counted or not frames.isdigit() or not offset.isdigit():
                raise UserError(
                    f"{self.directory / self.index}:{number}: {utterance} has no valid offset, or {self.counts} has "
                    f"'{counted} {frames}' in this line; {make_again(self.directory)}"
                )
            if reason := unsafe_id(utterance):  # samples and sounds are named after utterances
                raise UserError(f"{self.directory / self.index}:{number}: {reason}; {make_again(self.directory)}")
            if path not in archives:
                # in its own directory first: a dump that was copied or moved reads its own archives
                own = self.directory / Path(path).name
                archives[path] = own if own.exists() else Path(path)
            self.records[utterance] = DumpRecord(utterance, archives[path], int(offset), int(frames))
        if len(self.records) != self.info["utterances"]:
            raise UserError(
                f"{self.directory / self.index}: {len(self.records)} utterances, info.json says "
                f"{self.info['utterances']}; {make_again(self.directory)}"
            )

    @abstractmethod
    def marginal(self) -> np.ndarray:
        """Statistics of single frames, for `Observation.marginal`."""

    @abstractmethod
    def _check_header(self, record: DumpRecord, descriptor: int) -> None:
        """Raise `_mismatch` unless the record matches the index."""

    @abstractmethod
    def _decode(self, data: bytes) -> np.ndarray:
        """Convert bytes to frames."""

    def _table(self, name: str) -> Iterator[tuple[str, str]]:
        path = self.directory / name
        try:
            with open(path, encoding="utf-8") as stream:
                for number, line in enumerate(stream, start=1):
                    utterance, blank, value = line.rstrip("\n").partition(" ")
                    if not blank:
                        raise UserError(
                            f"{path}:{number}: expected an utterance and a value; {make_again(self.directory)}"
                        )
                    yield utterance, value
        except FileNotFoundError as error:
            raise UserError(f"{path}: missing; {make_again(self.directory)}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: damaged ({error}); {make_again(self.directory)}") from error

    @property
    def frames(self) -> int:
        """Frames of the whole set."""
        return sum(record.frames for record in self.records.values())

    def read(self, utterance: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames start .. stop - 1 of an utterance: (T,) int16 of PCM, (T, C) float32 of vectors.

        Raises:
            UserError: the archive does not match its index.
        """
        record = self.records[utterance]
        stop = record.frames if stop is None else min(stop, record.frames)
        descriptor = self._open(record)
        if utterance not in self._checked:
            name = utterance.encode() + b" "
            if os.pread(descriptor, len(name), max(0, record.offset - len(name))) != name:
                raise self._mismatch(record, f"no record of {utterance}")
            self._check_header(record, descriptor)
            self._check_digest(record, descriptor)
            self._checked.add(utterance)
        count = (stop - start) * self.frame_bytes
        data = os.pread(descriptor, count, record.offset + self.header_bytes + start * self.frame_bytes)
        if len(data) != count:
            raise self._mismatch(record, f"{len(data)} bytes, {count} before")
        return self._decode(data)

    def _check_digest(self, record: DumpRecord, descriptor: int) -> None:
        if not self._digests:
            shards = sorted(self.directory.glob("shard.*.json"))
            entries = sorted(entry for path in shards for entry in read_json(path)["entries"][Path(self.index).stem])
            if hash_value([[entry[0], entry[3]] for entry in entries]) != self.info["data_hash"]:
                raise UserError(
                    f"{self.directory}/info.json: does not match shard.*.json; {make_again(self.directory)}"
                )
            self._digests = {entry[0]: entry[3] for entry in entries}
        found, position = hashlib.sha256(), record.offset + self.header_bytes
        end = position + record.frames * self.frame_bytes
        while position < end:
            data = os.pread(descriptor, min(BLOCK_BYTES, end - position), position)
            if not data:
                found_bytes = max(0, position - record.offset - self.header_bytes)
                raise self._mismatch(record, f"ends after {found_bytes} of {record.frames * self.frame_bytes} bytes")
            found.update(data)
            position += len(data)
        if found.hexdigest() != self._digests[record.utterance]:
            raise self._mismatch(record, "damaged: the SHA-256 of its frames differs from when they were written")

    def _open(self, record: DumpRecord) -> int:
        if record.archive not in self._descriptors:
            try:
                self._descriptors[record.archive] = os.open(record.archive, os.O_RDONLY)
            except OSError as error:
                raise self._mismatch(record, error.strerror) from error
        return self._descriptors[record.archive]

    def _mismatch(self, record: DumpRecord, reason: str) -> UserError:
        """The error for a record that does not match the index; stage 2 repeats jobs whose shard is missing."""
        shard = self.directory / f"shard.{record.archive.name.split('.')[1]}.json"
        remedy = f"remove {shard} and run stage 2 (dumps) again" if shard.exists() else make_again(self.directory)
        return UserError(
            f"{record.archive}:{record.offset}: {record.utterance}: {reason}; "
            f"the archive does not belong to {self.directory / self.index}; {remedy}"
        )

    def close(self) -> None:
        """Close the archives."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def __getstate__(self) -> dict:
        # loader workers open the archives themselves
        return {**self.__dict__, "_descriptors": {}}
