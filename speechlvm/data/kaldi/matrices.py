"""Sequences of real vectors (pen points, joint angles) in data directories: matrices in archives, and their channels.

    <archive>.ark   records "<utt> \\0BFM <rows><columns><float32 values>", as Kaldi and kaldiio write them

A data directory of such sequences has, besides feats.scp and utt2num_frames, two files of its own:

    channels        name real|binary    one line per column of the matrices, in order
    rate_hz         frames per second, one number; absent if frames have no rate, as in handwriting

Archives are read only as headers followed by float32 values, which cannot run code.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from speechlvm.utils.errors import UserError
from speechlvm.utils.files import atomic_write, disk_errors
from speechlvm.utils.text import read_lines, read_text

KINDS = ("real", "binary")

VALUE_BYTES = 4

_HEADER = struct.Struct("<5sbibi")

HEADER_BYTES = _HEADER.size

PREPARE_AGAIN = "prepare the data again"


def write_vectors(
    directory: Path, name: str, sequences: Iterable[tuple[str, np.ndarray]]
) -> tuple[dict[str, str], dict[str, int]]:
    """Write sequences to <directory>/<name>.ark, completely or not at all.

    Args:
        directory: created if it does not exist.
        name: stem of the archive.
        sequences: (utterance, (T, C) values).

    Returns:
        The columns `feats` and `num_frames` of a `DataDirectory`.
    """
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    path = (directory / f"{name}.ark").absolute()
    feats, num_frames = {}, {}
    with atomic_write(path, "wb") as stream:
        for utterance, values in sequences:
            feats[utterance] = f"{path}:{write_record(stream, utterance, values)}"
            num_frames[utterance] = len(values)
    return feats, num_frames


def write_record(stream, utterance: str, values: np.ndarray) -> int:
    """Append a record; returns the offset of its header for scp files."""
    stream.write(utterance.encode() + b" ")
    offset = stream.tell()
    _write_header(stream, *values.shape)
    stream.write(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return offset


def extend_record(stream, offset: int, values: np.ndarray, rows: int) -> None:
    """Append to the last record, whose header is at `offset`, so that it has `rows` rows."""
    end = stream.tell()
    stream.seek(offset)
    _write_header(stream, rows, values.shape[1])
    stream.seek(end)
    stream.write(np.ascontiguousarray(values, dtype="<f4").tobytes())


def _write_header(stream, rows: int, columns: int) -> None:
    stream.write(_HEADER.pack(b"\0BFM ", 4, rows, 4, columns))


def read_vectors(location: str, utterance: str | None = None, remedy: str = PREPARE_AGAIN) -> np.ndarray:
    """(T, C) float32 of an entry "path:offset" of an scp file.

    Args:
        location: the entry.
        utterance: required utterance of the record; None: any.
        remedy: advice in errors.

    Raises:
        UserError: no such file, not a float32 matrix, or of another utterance.
    """
    with _record(location, utterance, remedy) as (stream, rows, columns):
        data = stream.read(rows * columns * VALUE_BYTES)
    return np.frombuffer(data, dtype="<f4").reshape(rows, columns)


def count_frames(location: str, utterance: str) -> int:
    """Number of frames of an entry of feats.scp, from its header; errors as in `read_vectors`."""
    with _record(location, utterance, PREPARE_AGAIN) as (_, rows, _columns):
        return rows


@contextmanager
def _record(location: str, utterance: str | None, remedy: str) -> Iterator[tuple[IO[bytes], int, int]]:
    """The archive, positioned at the values of a complete record, and the number of rows and columns."""
    path, _, offset = location.rpartition(":")
    if not path or not (offset.isdecimal() and offset.isascii()):
        raise UserError(f"'{location}' in an scp file: expected path.ark:offset; {remedy}")
    name, start = b"" if utterance is None else utterance.encode() + b" ", int(offset)
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, start - len(name)))
            if stream.read(len(name)) != name:
                raise UserError(f"{location}: no record of {utterance}; {remedy}")
            stream.seek(start)
            rows, columns = parse_header(stream.read(HEADER_BYTES), location, remedy)
            size, found = rows * columns * VALUE_BYTES, os.fstat(stream.fileno()).st_size - start - HEADER_BYTES
            if found < size:
                raise UserError(f"{location}: ends after {found} of {size} bytes; {remedy}")
            yield stream, rows, columns
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {remedy}") from error


def parse_header(data: bytes, where: str, remedy: str = PREPARE_AGAIN) -> tuple[int, int]:
    """Rows and columns of a record, from its header.

    Raises:
        UserError: not a float32 matrix.
    """
    if len(data) == HEADER_BYTES:
        magic, size_of_rows, rows, size_of_columns, columns = _HEADER.unpack(data)
        if (magic, size_of_rows, size_of_columns) == (b"\0BFM ", 4, 4) and rows > 0 and columns > 0:
            return rows, columns
    raise UserError(f"{where}: no float32 matrix in Kaldi's binary format; {remedy}")


def read_channels(directory: Path) -> tuple[dict[str, str], float | None]:
    """Channels, name -> real | binary in the order of the columns, and frames per second or None.

    Raises:
        UserError: the files are missing or malformed.
    """
    path = directory / "channels"
    channels: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        parts = line.split(" ")
        if len(parts) != 2 or parts[1] not in KINDS or not parts[0].isprintable() or parts[0] in ("", *channels):
            raise UserError(f"{path}:{number}: {line!r}; expected 'name real' or 'name binary', each name once")
        channels[parts[0]] = parts[1]
    if not channels:
        raise UserError(f"{path}:1: empty file; expected a line 'name real|binary' per channel")
    path = directory / "rate_hz"
    if not path.exists():
        return channels, None
    text = read_text(path)
    try:
        rate_hz = float(text)
    except ValueError:
        rate_hz = math.nan
    if not 0 < rate_hz < math.inf:
        raise UserError(f"{path}:1: {text[:99].rstrip()!r}; expected frames per second, above 0")
    return channels, rate_hz


def write_channels(directory: Path, channels: dict[str, str], rate_hz: float | None) -> None:
    """Writes the files that `read_channels` reads."""
    with atomic_write(directory / "channels") as stream:
        stream.writelines(f"{name} {kind}\n" for name, kind in channels.items())
    if rate_hz is not None:
        with atomic_write(directory / "rate_hz") as stream:
            stream.write(f"{rate_hz!r}\n")
